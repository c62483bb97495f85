"""The store against numpy's files: writing a slab, and reducing what was written.

Reported, not asserted: ``pytest tests/benchmarks/test_store_speed.py --benchmark-enable -s``.
Slabs of four blocks of VAR-d16 (4 shards of 42 MB), wall time, since both sides wait for files;
in turn within each round. The memory file system has no disk to wait for.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from iarmem_plugin.images import Images
from iarmem_plugin.layout import ModelLayout, Scale
from iarmem_plugin.store import ActivationStore
from iarmem_plugin.store_reading import slabs

D16, TINY = (4, 10, 4096, 256), (2, 2, 64, 8)  # blocks, scales, neurons, images of a slab
SLABS = 2
MEMORY = Path("/dev/shm")


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--benchmark-enable"))


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def make(folder: Path, shape: tuple[int, int, int, int]) -> tuple[ActivationStore, np.ndarray]:
    """Return an empty store and one slab like activations: a neuron's level, and noise."""
    blocks, scales, neurons, images = shape
    spans = tuple(Scale(str(s), (s,)) for s in range(scales))
    layout = ModelLayout("var", blocks, neurons, spans, "{block}.a", "{block}.b", "{block}.c")
    pictures = Images.from_arrays(
        np.zeros((SLABS * images, 1, 1, 3), np.uint8), np.zeros(SLABS * images, int)
    )
    store = ActivationStore.create(
        folder / "x.zarr", model="m", layout=layout, images=pictures, slab=images
    )
    random = np.random.default_rng(0)
    level = random.random((1, blocks, scales, neurons, 1), np.float32)
    return store, level * (0.5 + random.random((1, blocks, scales, neurons, images), np.float32))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratios(
    name: str, subject: Callable[[], object], reference: Callable[[], object], rounds: int
) -> None:
    pairs = np.array([(seconds(subject), seconds(reference)) for _ in range(rounds + 1)])[-rounds:]
    low, middle, high = np.quantile(pairs[:, 0] / pairs[:, 1], [0.25, 0.5, 0.75])
    ours, theirs = np.median(pairs, axis=0)
    print(
        f"\n{name}: {middle:.2f} (quartiles {low:.2f} to {high:.2f}; "
        f"{ours:.3f} s against {theirs:.3f} s)"
    )


def rounds_of(full: bool) -> int:
    return 7 if full else 1


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_writing_a_slab(full: bool, place: str, memory_folder: Path, tmp_path: Path) -> None:
    folder = memory_folder if place == "memory" else tmp_path
    store, slab = make(folder, D16 if full else TINY)
    writer = store.group("m")
    ratios(
        f"put a slab ({slab.nbytes / 1e6:.0f} MB, {place}) / np.save in memory, without fsync",
        lambda: writer.put(0, slab),
        lambda: np.save(memory_folder / "x.npy", slab),
        rounds_of(full),
    )
    assert store.pending() == [1]


def test_reducing_a_store(full: bool, memory_folder: Path) -> None:
    store, slab = make(memory_folder, D16 if full else TINY)
    for number in range(SLABS):
        store.put("m", number, slab)
        for block in range(slab.shape[1]):
            np.save(memory_folder / f"{number}.{block}.npy", slab[0, block])
    names = [f"{number}.{block}.npy" for number in range(SLABS) for block in range(slab.shape[1])]

    def reduce(values: np.ndarray) -> None:
        largest.append(values.max(-1))
        total.append(values.sum(-1, dtype=np.float64))

    def from_store() -> None:
        data = store.dataset()
        for block in range(slab.shape[1]):
            for batch in slabs(data, block):
                reduce(batch.to_numpy()[0])

    def from_files() -> None:
        for name in names:
            reduce(np.load(memory_folder / name))

    largest: list[np.ndarray] = []
    total: list[np.ndarray] = []
    ratios("max and sum of a store / of np.load", from_store, from_files, rounds_of(full))
    assert np.array_equal(largest[0], largest[slab.shape[1] * SLABS])  # both read the same
