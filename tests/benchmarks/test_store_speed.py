"""The store against numpy's files: writing a slab, and reducing what was written.

Reported, not asserted: ``pytest tests/benchmarks/test_store_speed.py --benchmark-enable -s``.
Slabs of four blocks of VAR-d16 (4 shards of 42 MB) or two of VAR-d30 (2 of 79 MB), in turn within
each round, quartiles of 7. Plain zarr is the same array without this package. CPU time is of all
threads: with idle cores wall time is less. The memory file system has no disk to wait for.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from iarmem_metrics.unitmem import UnitMem
from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.store import ActivationStore
from iarmem_plugin.store.reading import read_slabs

SHAPES = {"d16": (4, 10, 4096, 256), "d30": (2, 10, 7680, 256)}  # blocks, scales, neurons, images
TINY = (2, 2, 64, 8)
SLABS = 2
MEMORY = Path("/dev/shm")


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int, int]:
    return SHAPES[request.param] if request.config.getoption("--benchmark-enable") else TINY


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def make(folder: Path, shape: tuple[int, int, int, int]) -> tuple[ActivationStore, np.ndarray]:
    """Return an empty store and one slab like activations: a neuron's level, and noise."""
    blocks, scales, neurons, images = shape
    spans = tuple(Scale(str(s), (s,)) for s in range(scales))
    paths = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b"))
    layout = ModelLayout("var", blocks, neurons, spans, paths, range(scales))
    pictures = Images.from_arrays(
        np.zeros((SLABS * images, 1, 1, 3), np.uint8), np.zeros(SLABS * images, int)
    )
    settings = CaptureSettings("m", layout, pictures, slab=images)
    store = ActivationStore.create(folder / "x.zarr", settings)
    random = np.random.default_rng(0)
    level = random.random((1, blocks, scales, neurons, 1), np.float32)
    return store, level * (0.5 + random.random((1, blocks, scales, neurons, images), np.float32))


def plain_zarr(folder: Path) -> Any:
    """Return the activations as zarr gives them, as kind to it as the store is."""
    array = zarr.open_array(folder / "x.zarr", path="m/activation", mode="r+")
    return array.with_config({"write_empty_chunks": True})


def seconds(call: Callable[[], object], before: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU time of a call."""
    before()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    tasks: Mapping[str, Callable[[], object]],
    shape: tuple[int, int, int, int],
    before: Callable[[], object] = lambda: None,
) -> None:
    """Report each task's time over that of the first one."""
    rounds = 1 if shape == TINY else 7
    times = np.array(
        [[seconds(task, before) for task in tasks.values()] for _ in range(rounds + 1)]
    )[-rounds:]  # dims (round, task, clock)
    reference, *names = tasks
    for position, name in enumerate(names, 1):
        for clock, kind in enumerate(("wall", "CPU")):
            low, middle, high = np.quantile(
                times[:, position, clock] / times[:, 0, clock], [0.25, 0.5, 0.75]
            )
            ours, theirs = np.median(times[:, [position, 0], clock], axis=0)
            print(
                f"\n{name} / {reference}, {shape[2]} neurons, {kind}: {middle:.2f} ({low:.2f} to "
                f"{high:.2f}; {ours:.3f} s against {theirs:.3f} s)"
            )


def test_writing_a_slab(
    shape: tuple[int, int, int, int], memory_folder: Path, tmp_path: Path
) -> None:
    store, slab = make(memory_folder, shape)
    on_disk, _ = make(tmp_path, shape)
    array, blocks, images = plain_zarr(memory_folder), range(shape[0]), slice(shape[3])

    def remove() -> None:  # a slab that is there would be read first
        store.invalidate("m", 0)
        on_disk.invalidate("m", 0)
        for path in memory_folder.glob("*.npy"):
            path.unlink()

    def save() -> None:
        for block in blocks:
            np.save(memory_folder / f"{block}.npy", slab[:, block])

    def write() -> None:
        for block in blocks:
            array[:, block : block + 1, :, :, images] = slab[:, block : block + 1]

    tasks = {
        "np.save": save,
        "plain zarr": write,
        "put a slab": lambda: store.put("m", 0, slab),
        "put a slab on disk, flushed": lambda: on_disk.put("m", 0, slab),
    }
    compare(tasks, shape, remove)
    assert on_disk.pending() == [1]


@pytest.fixture
def written(
    shape: tuple[int, int, int, int], memory_folder: Path
) -> tuple[ActivationStore, np.ndarray]:
    """Return a store with two equal slabs, which are also in numpy's files, and the slab."""
    store, slab = make(memory_folder, shape)
    for number in range(SLABS):
        store.put("m", number, slab)
        for block in range(shape[0]):
            np.save(memory_folder / f"{number}.{block}.npy", slab[0, block])
    return store, slab


def test_reducing_a_store(
    shape: tuple[int, int, int, int],
    written: tuple[ActivationStore, np.ndarray],
    memory_folder: Path,
) -> None:
    (store, slab), array = written, plain_zarr(memory_folder)
    numbers = [(block, number) for block in range(shape[0]) for number in range(SLABS)]
    largest: dict[str, np.ndarray] = {}

    def reduce(kind: str, values: np.ndarray) -> None:
        largest[kind] = values.max(-1)
        values.sum(-1, dtype=np.float64)

    def from_files() -> None:
        for block, number in numbers:
            reduce("files", np.load(memory_folder / f"{number}.{block}.npy"))

    def from_zarr() -> None:
        for block, number in numbers:
            low, high = number * shape[3], (number + 1) * shape[3]
            reduce("zarr", array[0, block, :, :, low:high])

    def from_store() -> None:
        data = store.dataset()
        for block in range(shape[0]):
            for batch in read_slabs(data, block):
                reduce("store", batch.to_numpy()[0])

    tasks = {"np.load": from_files, "plain zarr": from_zarr, "the store": from_store}
    compare({f"{name}, max and sum": task for name, task in tasks.items()}, shape)
    for values in largest.values():
        assert np.array_equal(values, slab[0, -1].max(-1))


def test_scoring_a_store(
    shape: tuple[int, int, int, int],
    written: tuple[ActivationStore, np.ndarray],
    memory_folder: Path,
) -> None:
    store, _ = written
    scores: dict[str, list[np.ndarray]] = {}

    def from_files() -> None:
        scores["files"] = []
        for block in range(shape[0]):
            metric = UnitMem()
            for number in range(SLABS):
                values = np.load(memory_folder / f"{number}.{block}.npy")[None]
                images = np.arange(number * shape[3], (number + 1) * shape[3])
                dims = ("block", "scale", "neuron", "image")
                metric.update(xr.DataArray(values, {"block": [block], "image": images}, dims))
            scores["files"].append(metric.compute().to_numpy()[0])

    def from_store() -> None:
        scores["store"] = list(store.score(UnitMem).to_numpy())

    compare({"np.load and UnitMem": from_files, "score a store": from_store}, shape)
    assert np.array_equal(scores["files"], scores["store"])
