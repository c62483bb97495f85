"""``iarmem rank``, run as users run it, and what ``mitigate`` makes of its file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from iarmem_plugin.evaluation.ranking.ranking import Ranking

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``images``: 7 pictures of three classes, one of them twice."""
    folder, random = tmp_path_factory.mktemp("rank"), np.random.default_rng(0)
    for number in range(7):
        place = folder / "images" / str(number % 3) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(place)
    (folder / "images/0/copy.png").write_bytes((folder / "images/0/3.png").read_bytes())
    return folder


def words(folder: Path, out: str, *options: str) -> list[str]:
    job = ["rank", "var-organism", "--images", str(folder / "images"), "--out", str(folder / out)]
    return [*job, "--batch-size", "2", "--chunk", "3", "--json", *options]


def test_one_process_and_two_write_the_same_file_and_leave_nothing_beside_it(
    folder: Path, iarmem: Run
) -> None:
    done = iarmem(*words(folder, "one.nc"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["images"], told["copies"]) == (8, 1)
    found = Ranking.load(folder / "one.nc")
    assert [one["path"] for one in told["best"]] == [found.paths[one] for one in found.order]
    two = iarmem(*words(folder, "two.nc", "--cache", str(folder / "cache")), ranks=2)
    assert two.returncode == 0, two.stderr
    assert (folder / "two.nc").read_bytes() == (folder / "one.nc").read_bytes()
    assert len(list((folder / "cache").glob("*.nc"))) == 6  # tokens and scores of three chunks
    assert not (folder / "one.nc.cache").exists()


def test_a_subset_is_ranked_and_candidates_are_chosen_from_it(folder: Path, iarmem: Run) -> None:
    done = iarmem(*words(folder, "some.nc", "--images-per-class", "2"))
    assert done.returncode == 0, done.stderr
    images, scores = str(folder / "images"), str(folder / "scores")
    done = iarmem("localize", "var-organism", "--images", images, "--out", scores, "--views", "1")
    assert done.returncode == 0, done.stderr
    settings = ["--ranking", str(folder / "some.nc"), "--near-duplicates", "0.8", "--per-class"]
    few = ["1", "--random-sets", "0", "--batch-size", "4"]
    places = ["--images", images, "--scores", scores, "--out", str(folder / "report")]
    done = iarmem("mitigate", "var-organism", *places, *settings, *few)
    assert done.returncode == 0, done.stderr
    extraction = xr.load_dataset(folder / "report" / "extraction.nc", engine="h5netcdf")
    assert extraction["cluster"].dims == ("candidate",)
    assert extraction.sizes["candidate"] == 3
    known = json.loads((folder / "report" / "report.json").read_text())["provenance"]
    assert known["candidates"]["near_duplicates"] == {"threshold": 0.8, "clusters": 3}
