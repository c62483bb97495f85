"""``iarmem features``: a reference made once, and given to ``mitigate`` and to a plan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iarmem_plugin.jobs.compare.material import open_material
from iarmem_plugin.jobs.plan.plan import Plan

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
RECOMPUTE = Path(__file__).parents[3] / "examples" / "recompute.py"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, dinov2_folder: Path, iarmem: Run) -> Path:
    """A file of the features of 12 pictures, beside the folder ``real`` of these."""
    folder, random = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    (folder / "real/0").mkdir(parents=True)
    for number in range(12):
        pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"real/0/{number:02}.png")
    words = ["--images", folder / "real", "--quality", f"fd-dinov2:weights={dinov2_folder}"]
    out = folder / "reference.npz"
    done = iarmem("features", "var-organism", *words, "--out", out, "--batch-size", "5", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["images"], told["holds"]) == (12, "mean and covariance, features")
    assert told["made_by"]["measure"]["weights_sha256"]
    return out


@pytest.mark.parametrize(
    ("command", "more"), [("features", ("--quality", "fid:extractor=nowhere")), ("rank", ())]
)
def test_pictures_are_not_replaced_by_what_is_made_of_them(
    command: str, more: tuple[str, ...], iarmem: Run, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures.npz"
    np.savez(pictures, images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.zeros(2, np.int64))
    before = pictures.read_bytes()
    words = ["--images", pictures, "--out", pictures]
    done = iarmem(command, "var-organism", *words, *more)
    assert done.returncode == 2
    assert "is the file of --images; name another" in done.stderr
    assert pictures.read_bytes() == before


def test_a_report_is_made_with_it_and_can_be_recomputed(
    reference: Path, scored: Path, dinov2_folder: Path, iarmem: Run, tmp_path: Path
) -> None:
    places = ["--scores", scored / "out", "--images", scored / "images", "--out", tmp_path / "out"]
    measure = ["--quality", f"fd-dinov2:weights={dinov2_folder}", "--generated", "10"]
    words = [*places, *measure, "--threshold", "0.9", "--random-sets", "0"]
    done = iarmem("mitigate", "var-organism", *words, "--reference", reference)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out/report.json").read_text())
    (known,) = document["provenance"]["generation"]["reference_files"]
    assert (known["file"], known["images"]) == ("reference.npz", 12)
    first, second = document["arms"][0]["quality"]
    name = f"reference features sha256 {known['sha256'][:12]} n=12, generated n=10"
    assert first["label"].startswith("FD (DINOv2")
    assert name in first["label"]
    assert second["label"].startswith("KD (")
    command = [sys.executable, RECOMPUTE, tmp_path / "out"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout


def test_a_plan_takes_it(reference: Path) -> None:
    pictures = {"images": str(reference.with_name("real")), "reference": str(reference)}
    document = {"model": {"name": "var-organism"}, "pictures": pictures, "arm": []}
    grid = [{"selectors": ["weight-norm"], "random-sets": 0}]
    material = open_material(Plan.from_document(document | {"grid": grid}))
    assert material.references == {}
    assert material.seen is not None
    assert material.seen.images == 12


def test_a_measure_of_predictions_sees_no_images(
    reference: Path, iarmem: Run, assert_plain_error: Callable[[Done, str], None]
) -> None:
    places = ["--images", reference.with_name("real"), "--out", reference.with_name("x.npz")]
    done = iarmem("features", "var-organism", *places, "--quality", "held-out-loss")
    assert_plain_error(done, "--quality held-out-loss sees no images; give a measure of images")
