"""Decoding in worker processes: the same pictures in the same order, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iarmem_plugin.augmentation import Augmentation
from iarmem_plugin.errors import InputError
from iarmem_plugin.feeding import Batch, feed
from iarmem_plugin.images import Images, open_images
from iarmem_plugin.views import TenCrops, Views

ORDER = ([4, 1], [0, 5, 2], [3])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(6):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (14, 12 + number, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number % 2}" / f"{number}.png")
    return tmp_path


@pytest.fixture
def images(folder: Path) -> Images:
    return open_images(folder)


def fed(
    images: Images,
    augmentation: Augmentation = Views(crop=8),  # noqa: B008  # frozen
    *,
    batches: Sequence[Sequence[int]] = ORDER,
    views: int = 3,
    workers: int = 0,
) -> list[Batch]:
    return list(feed(images, batches, augmentation, views=views, seed=2, workers=workers))


def cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:200])


@pytest.mark.parametrize("augmentation", [Views(crop=8), TenCrops(crop=10)])
def test_batches_hold_the_views_and_labels_of_their_pictures(
    images: Images, augmentation: Augmentation
) -> None:
    for batch, positions in zip(fed(images, augmentation), ORDER, strict=True):
        assert batch.positions.tolist() == positions
        assert batch.labels.tolist() == [0 if position < 3 else 1 for position in positions]
        for row, position in zip(batch.pixels, positions, strict=True):
            expected = augmentation.draw(images.load(position), image=position, count=3, seed=2)
            assert row.dtype == torch.uint8
            assert torch.equal(row / 255, expected)


def test_a_single_view_is_the_centre_view(images: Images) -> None:
    (batch,) = fed(images, batches=[[2]], views=1)
    assert torch.equal(batch.pixels[0, 0] / 255, Views(crop=8).center(images.load(2)))


def test_views_follow_a_pictures_id_into_subsets_and_other_batches(images: Images) -> None:
    whole = torch.cat([batch.pixels for batch in fed(images, batches=[range(6)])])
    part = torch.cat([batch.pixels for batch in fed(images.subset([5, 2]), batches=[[0], [1]])])
    assert torch.equal(part, whole[[5, 2]])


def test_two_workers_give_the_same(images: Images) -> None:
    for one, other in zip(fed(images), fed(images, workers=2), strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)


def test_a_corrupt_picture_is_named_when_its_batch_is_reached(folder: Path, images: Images) -> None:
    cut(folder, "0/2.png")  # the second of the list
    batches = feed(images, [[0], [2, 1], [3]], Views(crop=8), views=2, seed=0)
    assert next(batches).positions.tolist() == [0]
    with pytest.raises(InputError, match=r"^picture '0/2.png' cannot be read"):
        next(batches)


def test_a_workers_error_is_the_same_and_ends_the_workers(folder: Path, images: Images) -> None:
    cut(folder, "0/2.png")
    batches = feed(images, [[0], [2, 1], [3]], Views(crop=8), views=2, seed=0, workers=1)
    assert next(batches).positions.tolist() == [0]
    with pytest.raises(InputError, match=r"^picture '0/2.png' cannot be read") as caught:
        next(batches)
    assert "Traceback" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_workers_find_the_corrupt_pictures(folder: Path, images: Images) -> None:
    cut(folder, "0/2.png")
    cut(folder, "1/5.png")
    good = images.verify("skip", workers=1)
    assert good.skipped == ("0/2.png", "1/5.png")
    assert good.ids.tolist() == [0, 2, 3, 4]
    assert multiprocessing.active_children() == []


def test_views_that_are_always_identical_are_refused(images: Images) -> None:
    class Fixed(Views):
        def draw_pixels(self, picture: Image.Image, **settings: int) -> np.ndarray:
            return np.stack([self.center_pixels(picture)] * settings["count"])

    with pytest.raises(InputError, match=r"3 views of each of \d+ pictures are identical"):
        fed(images, Fixed(crop=8))


def test_feeding_leaves_the_global_generator_alone(images: Images) -> None:
    state = torch.get_rng_state()
    fed(images)
    assert torch.equal(state, torch.get_rng_state())


SCRIPT = """
import sys
from iarmem_plugin.feeding import feed
from iarmem_plugin.images import open_images
from iarmem_plugin.views import Views

if __name__ == "__main__":
    images = open_images(sys.argv[1])
    batches = feed(images, [[0]] * 100_000, Views(crop=8), views=2, seed=0, workers=1)
    print(next(batches).positions, flush=True)
    for batch in batches:
        pass
"""


def test_an_interrupt_leaves_no_process_behind(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "feeds.py"
    script.write_text(SCRIPT)
    started = subprocess.Popen(
        [sys.executable, script, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a job in the background of a shell ignores interrupts, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "[0]\n"
    os.killpg(started.pid, signal.SIGINT)
    _, errors = started.communicate(timeout=300)  # ends when every process has closed the pipe
    assert "KeyboardInterrupt" in errors
    assert started.returncode != 0
