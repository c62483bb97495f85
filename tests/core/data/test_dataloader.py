"""Decoding in worker processes: the same pictures in the same order, and nothing left behind."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iarmem_plugin.data import dataloader
from iarmem_plugin.data.augmentation import Augmentation, CustomViews, TenCrops, Views
from iarmem_plugin.data.dataloader import Batch, load_batches
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import InputError, WorkerError

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
    return list(load_batches(images, batches, augmentation, views=views, seed=2, workers=workers))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of the user's, which worker processes can import, too."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "views_of_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield importlib.import_module("views_of_mine")
    del sys.modules["views_of_mine"]


MINE = """
import os, signal
import numpy as np

def by_process(picture, *, image, view, seed):
    number = np.frombuffer(os.getpid().to_bytes(6, "little"), np.uint8)
    return np.stack([number.reshape(2, 3), np.full((2, 3), view, np.uint8)])

def killed(picture, **_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


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


def test_more_workers_than_cores_are_no_warning(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._utils.cpu_count", lambda: 1)  # as a machine with one core
    assert len(fed(images, workers=2)) == len(ORDER)


def test_a_corrupt_picture_is_named_when_its_batch_is_reached(folder: Path, images: Images) -> None:
    cut(folder, "0/2.png")  # the second of the list
    batches = load_batches(images, [[0], [2, 1], [3]], Views(crop=8), views=2, seed=0)
    assert next(batches).positions.tolist() == [0]
    with pytest.raises(InputError, match=r"^picture '0/2.png' cannot be read"):
        next(batches)


def test_a_workers_error_is_the_same_and_ends_the_workers(folder: Path, images: Images) -> None:
    cut(folder, "0/2.png")
    batches = load_batches(images, [[0], [2, 1], [3]], Views(crop=8), views=2, seed=0, workers=1)
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
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.dataloader import load_batches
from iarmem_plugin.data.opening import open_images

if __name__ == "__main__":
    images = open_images(sys.argv[1])
    batches = load_batches(images, [[0]] * 100_000, Views(crop=8), views=2, seed=0, workers=1)
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


UNGUARDED = """
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.dataloader import load_batches
next(load_batches(images, [[0]], Views(crop=8), views=2, seed=0, workers=1))
"""


def run_as_script(file: Path, monkeypatch: pytest.MonkeyPatch, images: Images) -> None:
    main = ModuleType("__main__")
    main.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", main)
    vars(main)["images"] = images
    exec(compile(file.read_text(), file, "exec"), vars(main))  # noqa: S102  # as Python runs it


def test_a_script_without_a_main_guard_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Images
) -> None:
    (tmp_path / "train.py").write_text(UNGUARDED)
    with pytest.raises(
        InputError, match=r"train.py again.*'if __name__ == \"__main__\":'.*workers=0"
    ):
        run_as_script(tmp_path / "train.py", monkeypatch, images)
    assert multiprocessing.active_children() == []


def test_a_script_that_was_read_before_a_prompt_needs_no_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Images
) -> None:
    (tmp_path / "definitions.py").write_text("number = 3\n")
    run_as_script(tmp_path / "definitions.py", monkeypatch, images)
    dataloader._refuse_unguarded()


def ends(iterations: int) -> Iterator[None]:
    """Give as torch does where a worker's own code has failed."""
    yield from [None] * iterations
    try:
        raise RuntimeError(
            "DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details"
        )
    except RuntimeError as error:
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly") from error


def test_a_worker_that_fails_by_itself_is_no_matter_of_memory() -> None:
    results = ends(1)
    assert dataloader._next(results, 1) is None
    with pytest.raises(WorkerError, match=r"exit code 1.*mend the error that it printed") as caught:
        dataloader._next(results, 1)
    assert "memory" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def drawer(views: Batch) -> int:
    """Return the number of the process that drew them."""
    pixels = views.pixels[0, 0].permute(1, 2, 0)[0]
    return int.from_bytes(bytes(pixels.flatten().tolist()), "little")


def test_workers_draw_the_views_in_processes_of_their_own(images: Images, mine: ModuleType) -> None:
    views = CustomViews(mine.by_process, center_of=Views(crop=8))
    (alone,) = fed(images, views, batches=[[0]])
    (other,) = fed(images, views, batches=[[0]], workers=1)
    assert drawer(alone) == os.getpid()
    assert drawer(other) not in (0, os.getpid())


def test_a_worker_that_is_killed_is_one_plain_error(images: Images, mine: ModuleType) -> None:
    with pytest.raises(WorkerError, match=r"worker process .* has ended.*fewer --workers"):
        fed(images, CustomViews(mine.killed, center_of=Views(crop=8)), workers=1)
    assert multiprocessing.active_children() == []


def test_what_cannot_be_sent_to_workers_is_refused(images: Images) -> None:
    views = CustomViews(lambda picture, **_: picture, center_of=Views(crop=8))
    with pytest.raises(InputError, match=r"cannot be sent to worker processes .* workers=0"):
        fed(images, views, workers=1)
    with pytest.raises(InputError, match="-1 workers were given"):
        fed(images, workers=-1)


def test_a_picture_that_is_too_small_is_named(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "0" / "2.png")
    with pytest.raises(InputError, match=r"picture '0/2.png': a picture of 4 x 4 pixels is too sm"):
        fed(open_images(folder))


def test_views_of_one_picture_may_be_identical_by_chance(images: Images) -> None:
    class Chance(Views):
        def draw_pixels(self, picture: Image.Image, *, image: int, **settings: Any) -> np.ndarray:
            drawn = super().draw_pixels(picture, image=image, **settings)
            return np.stack([drawn[0]] * len(drawn)) if image == 0 else drawn

    batches = [[image] for image in range(6)]
    assert len(fed(images, Chance(crop=8), batches=batches, views=2)) == 6
