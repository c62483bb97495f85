"""A damaged picture ends a capture before its slab is committed, or is left out beforehand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import InputError
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.store.store import ActivationStore
from iarmem_plugin.testing.tiny import TinyAdapter

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of three classes; the fourth, 1/3.png, ends too early."""
    random = np.random.default_rng(0)
    for number in range(6):
        place = tmp_path / "images" / f"{number // 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(place)
    broken = tmp_path / "images" / "1" / "3.png"
    (tmp_path / "whole.png").write_bytes(broken.read_bytes())
    broken.write_bytes(broken.read_bytes()[:200])
    return tmp_path


def test_the_slab_of_a_damaged_picture_is_not_committed_and_the_run_resumes_when_it_is_mended(
    model: ImageARModel, folder: Path
) -> None:
    images, place = open_images(folder / "images"), folder / "x.zarr"
    with pytest.raises(InputError, match=r"picture '1/3.png' cannot be read"):
        localize(model, images, options=CaptureOptions(views=2, batch_size=2), store=place)
    assert ActivationStore.open(place).pending(model.adapter.variant.name) == [0]
    (folder / "images" / "1" / "3.png").write_bytes((folder / "whole.png").read_bytes())
    resumed = localize(model, images, options=CaptureOptions(views=2, batch_size=2), store=place)
    at_once = localize(model, images, options=CaptureOptions(views=2, batch_size=2))
    np.testing.assert_array_equal(resumed["score"], at_once["score"])


def test_skipped_pictures_are_in_no_slab_and_named_in_the_store(
    model: ImageARModel, folder: Path
) -> None:
    images = open_images(folder / "images").verify("skip")
    localize(model, images, options=CaptureOptions(views=2), store=folder / "x.zarr")
    dataset = ActivationStore.open(folder / "x.zarr").dataset()
    assert dataset["image"].values.tolist() == [0, 1, 2, 4, 5]
    assert dataset.attrs["provenance"]["skipped_images"] == ["1/3.png"]


def test_slabs_are_captured_in_their_order_and_no_batch_goes_over_their_ends(
    model: ImageARModel, pictures: Images
) -> None:
    run = partial(
        capture, model, pictures, views=2, batch_size=2, augmentation=Views(crop=8, pad=1)
    )
    batches = list(run(slabs=[range(4, 7), [0, 1]]))
    assert [batch["image"].values.tolist() for batch in batches] == [[4, 5], [6], [0, 1]]
    whole = xr.concat(list(run()), "image").sel(image=[4, 5, 6, 0, 1])
    # one to two images a pass: products of another shape round otherwise
    xr.testing.assert_allclose(xr.concat(batches, "image"), whole, rtol=1e-5)


@pytest.fixture(scope="session")
def run(iarmem: Run) -> Run:
    def localize(folder: Path, *options: str) -> Done:
        places = ("--images", folder / "images", "--out", folder / "out", "--json")
        return iarmem("localize", "var-organism", "--views", "1", *places, *options)

    return localize


def enlarge(folder: Path) -> None:
    for file in (folder / "images").rglob("[!3].png"):
        with Image.open(file) as picture:
            enlarged = picture.resize((32, 32))
        enlarged.save(file)


def test_localize_draws_a_subset_reads_it_first_and_writes_its_list(folder: Path, run: Run) -> None:
    enlarge(folder)
    drawn = open_images(folder / "images").balanced(1, seed=4)
    done = run(folder, "--images-per-class", "1", "--subset-seed", "4", "--on-bad-image", "skip")
    assert done.returncode == 0, done.stderr
    readable = [path for path in drawn.paths if path != "1/3.png"]
    written = (folder / "out" / "images.txt").read_text().splitlines()
    assert written == [f"{path}\t{path[0]}" for path in readable]
    assert json.loads(done.stdout)["out"] == str(folder / "out")


@pytest.mark.parametrize("options", [(), ("--verify-images",)])
def test_localize_ends_at_a_damaged_picture_and_writes_no_scores(
    folder: Path, run: Run, options: tuple[str, ...]
) -> None:
    enlarge(folder)
    done = run(folder, *options)
    assert done.returncode == 2
    assert "Error: picture '1/3.png' cannot be read" in done.stderr
    assert not (folder / "out").exists()
