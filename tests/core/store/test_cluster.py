"""Scores on a cluster: those of one process, each shard read once, nothing from what is missing."""

from __future__ import annotations

import doctest
import re
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import obstore.store
import pytest
import xarray as xr
import zarr.storage
from distributed import Client, LocalCluster
from zarr.core.buffer import Buffer

from iarmem_metrics.unitmem import UnitMem
from iarmem_plugin import CaptureSettings, plugins, score_on_cluster
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import (
    CorruptStoreError,
    IncompleteCaptureError,
    InputError,
    PluginError,
)
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.store.store import ActivationStore

BLOCKS, SCALES, NEURONS, IMAGES, SLAB = 3, 2, 20, 38, 4
SLABS = 10
PAGE = Path(__file__).parents[3] / "docs" / "clusters.md"


def make_store(
    path: Path, values: np.ndarray, *, slab: int = SLAB, slabs: int | None = None
) -> ActivationStore:
    """Store values with dims (block, scale, neuron, image), all of them or the first slabs."""
    blocks, scales, neurons, count = values.shape
    spans = tuple(Scale(str(number), (number,)) for number in range(scales))
    paths = MLP(Writes("{block}.2"), {"fc1": Reads("{block}.1")}, Site("{block}.a"))
    layout = ModelLayout("var", blocks, neurons, spans, paths, range(scales))
    pixels = np.zeros((count + 5, 4, 4, 3), np.uint8)
    images = Images.from_arrays(pixels, np.arange(count + 5) % 3).subset(range(5, count + 5))
    store = ActivationStore.create(path, CaptureSettings("tiny", layout, images, slab))
    for number in range(-(-count // slab) if slabs is None else slabs):
        part = values[None, ..., number * slab : (number + 1) * slab]
        store.put("tiny", number, np.ascontiguousarray(part))
    return store


def with_ties() -> np.ndarray:
    """Return few distinct values, so that many images share a neuron's maximum."""
    shape = (BLOCKS, SCALES, NEURONS, IMAGES)
    return np.random.default_rng(0).integers(0, 9, shape).astype(np.float32)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            yield client


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    values = np.random.default_rng(1).random((BLOCKS, SCALES, NEURONS, IMAGES), np.float32)
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr", values)


def objects(path: Path) -> zarr.storage.ObjectStore[Any]:
    """Return a folder as object storage."""
    return zarr.storage.ObjectStore(obstore.store.LocalStore(path))


def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count requests to object storage for shards in this process, by key."""
    counted: Counter[str] = Counter()
    get = zarr.storage.ObjectStore.get

    async def counting(
        self: zarr.storage.ObjectStore, key: str, *args: Any, **options: Any
    ) -> Buffer | None:
        if "activation/c/" in key:
            counted[key] += 1
        return await get(self, key, *args, **options)

    monkeypatch.setattr(zarr.storage.ObjectStore, "get", counting)
    return counted


@pytest.mark.parametrize("metric", ["unitmem", "mean-activation", "random"])
def test_a_cluster_scores_as_one_process_does(
    client: Client, store: ActivationStore, metric: str
) -> None:
    one = plugins.find("metric", metric)()
    for batch in store.batches():
        one.update(batch)
    scores, expected = score_on_cluster(store, metric), one.compute()
    # sums of 38 float64 numbers in another order differ in the last digits
    xr.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)
    assert scores.attrs == expected.attrs
    assert set(scores.coords) == set(expected.coords)


def test_unitmem_and_its_images_are_those_of_the_formula(client: Client, tmp_path: Path) -> None:
    values = with_ties()
    scores = score_on_cluster(make_store(tmp_path / "a.zarr", values))
    largest = values.max(axis=-1)
    rest = (values.sum(axis=-1, dtype=np.float64) - largest) / (IMAGES - 1)
    np.testing.assert_allclose(scores, (largest - rest) / (largest + rest), rtol=1e-12)
    # numpy, too, gives the first of the largest; the images' ids begin at 5
    np.testing.assert_array_equal(scores["top_image"], values.argmax(axis=-1) + 5)


def test_a_task_reads_one_shard_and_there_is_no_second_pass(
    client: Client, store: ActivationStore
) -> None:
    prefixes = client.cluster.scheduler.task_prefixes

    def done(name: str) -> int:
        return prefixes[name].state_counts["memory"] if name in prefixes else 0

    before = done("reduce_shard"), done("merge_states")
    score_on_cluster(store)
    merges = BLOCKS * 3  # ten states meet in two, two in one
    assert (done("reduce_shard") - before[0], done("merge_states") - before[1]) == (
        BLOCKS * SLABS,
        merges,
    )


def test_a_shard_is_one_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", with_ties())
    store = ActivationStore.open(objects(tmp_path / "a.zarr"))
    counted = requests(monkeypatch)
    with dask.config.set(scheduler="synchronous"):
        score_on_cluster(store)
    assert counted == {
        f"tiny/activation/c/0/{block}/0/0/{slab}": 1
        for block in range(BLOCKS)
        for slab in range(SLABS)
    }


def test_xarray_alone_reduces_a_store_by_whole_shards(
    client: Client, store: ActivationStore
) -> None:
    activation = store.activation
    lazy = activation.chunk({"block": 1, "scale": -1, "neuron": -1, "image": SLAB})
    assert lazy.data.numblocks == (1, BLOCKS, 1, 1, SLABS)
    np.testing.assert_array_equal(lazy.max("image"), activation.to_numpy().max(axis=-1))


def test_a_metric_that_was_given_is_left_as_it_was(client: Client, store: ActivationStore) -> None:
    metric = UnitMem()
    scores = score_on_cluster(store, metric)
    assert metric.state()["images"].size == 0
    xr.testing.assert_identical(score_on_cluster(store, metric), scores)


def test_a_capture_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", with_ties(), slabs=9)
    with pytest.raises(IncompleteCaptureError, match="36 of 38 images"):
        score_on_cluster(store)


def test_a_damaged_shard_is_an_error_and_never_a_number(client: Client, tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", with_ties())
    shard = tmp_path / "a.zarr" / "tiny" / "activation" / "c" / "0" / "1" / "0" / "0" / "2"
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    with pytest.raises(CorruptStoreError, match="block 1, images 8-11"):
        score_on_cluster(store)


def test_workers_read_from_object_storage(client: Client, tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", with_ties())
    store = ActivationStore.open(objects(tmp_path / "a.zarr"))
    scores = score_on_cluster(store, "mean-activation")
    np.testing.assert_allclose(scores, with_ties().mean(axis=-1), rtol=1e-6)  # a float32 mean


class FirstBlock(Metric):
    """Its state says which block it saw first, in a number that has no dim ``block``."""

    name = "first-block"

    def __init__(self) -> None:
        self._state = xr.Dataset()

    def update(self, activations: xr.DataArray) -> None:
        first = int(activations["block"][0])
        self._state = activations.max("image").to_dataset(name="maximum").assign(first=first)

    def state(self) -> xr.Dataset:
        return self._state

    def merge(self, state: xr.Dataset) -> None:
        self._state = state

    def compute(self) -> xr.DataArray:
        return self._state["maximum"]


def test_a_metric_whose_states_cannot_be_joined_is_refused(store: ActivationStore) -> None:
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(PluginError, match="'first-block' has states that differ"):
            score_on_cluster(store, FirstBlock())


def test_without_dask_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, store: ActivationStore
) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(InputError, match=re.escape('pip install "iarmem[dask]"')):
        score_on_cluster(store)


def test_memory_does_not_grow_with_the_number_of_slabs(tmp_path: Path) -> None:
    def peak(slabs: int) -> int:
        values = np.random.default_rng(2).random((1, 2, 512, 128 * slabs), np.float32)
        store = make_store(tmp_path / f"{slabs}.zarr", values, slab=128)
        tracemalloc.start()
        with dask.config.set(scheduler="synchronous"):
            score_on_cluster(store)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    peak(1)  # what is made once, such as caches, is made now
    more = 12 * 2 * 512 * 128 * 4  # bytes of 12 slabs
    assert peak(16) - peak(4) < more / 8


def test_a_store_has_as_many_objects_as_the_page_says(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", with_ties())
    objects = [path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()]
    assert len(objects) == BLOCKS * SLABS + SLABS + 22


@pytest.mark.parametrize(
    ("what", "expected", "joined"),
    [  # of two shards a block, each with one request for its index and one for each chunk
        ({"block": 0, "scale": 1}, 2 * (1 + 2 * 2), 2 * (1 + 1)),
        ({"block": 0, "scale": 1, "neuron": 7}, 2 * (1 + 2), 2 * (1 + 1)),
        ({"block": 0, "neuron": 7}, 2 * (1 + 3 * 2), 2 * (1 + 3)),
        ({"image": 7}, 2 * (1 + 3 * 2), 2 * (1 + 3 * 2)),
    ],
    ids=["block and scale", "neuron and scale", "neuron", "image"],
)
def test_reading_takes_the_requests_that_the_page_counts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    what: dict[str, int],
    expected: int,
    joined: int,
) -> None:
    values = np.random.default_rng(3).random((2, 3, 1024, 512), np.float32)
    make_store(tmp_path / "a.zarr", values, slab=256)
    with zarr.config.set({"array.sharding_coalesce_max_gap_bytes": 0}):
        activation = ActivationStore.open(objects(tmp_path / "a.zarr")).activation
    counted = requests(monkeypatch)
    activation.isel(what).load()
    joins = hasattr(zarr.storage.ObjectStore, "get_ranges")  # zarr 3.3 and later: what touches
    assert sum(counted.values()) == (joined if joins else expected)


def test_the_numbers_of_the_page_come_out() -> None:
    code = "\n".join(re.findall(r"```pycon\n(.*?)```", PAGE.read_text(), re.DOTALL))
    examples = doctest.DocTestParser().get_doctest(code, {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples)
    assert result.attempted > 10
    assert result.failed == 0
