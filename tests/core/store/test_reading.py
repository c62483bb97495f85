"""What reading a store costs and gives: requests, bytes, memory, and the same numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

from iarmem_metrics.random_score import RandomScore
from iarmem_metrics.unitmem import UnitMem
from iarmem_plugin.errors import InputError
from iarmem_plugin.store.store import ActivationStore


class Counting(WrapperStore[Any]):
    """Notes every request for activations that was answered: the bytes."""

    def __init__(self, store: Any, answers: list[int] | None = None) -> None:
        super().__init__(store)
        self.answers: list[int] = [] if answers is None else answers

    def _with_store(self, store: Any) -> Counting:  # zarr makes a copy that only reads
        return Counting(store, self.answers)

    async def get(self, key: str, *arguments: Any, **named: Any) -> Any:
        answer = await self._store.get(key, *arguments, **named)
        if "activation/c/" in key and answer is not None:
            self.answers.append(len(answer))
        return answer

    async def get_ranges(self, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        async for group in Store.get_ranges(self, *arguments, **named):  # by `get`, too
            yield group

    async def getsize(self, key: str) -> int:  # a request for metadata; zarr's own would read
        return len(await self._store.get(key, default_buffer_prototype()))


JOINS = hasattr(Store, "get_ranges")  # zarr 3.3 and later ask for neighbouring chunks at once


@pytest.fixture(autouse=True)
def no_gaps() -> Iterator[None]:
    """Let zarr 3.3 and later join chunks that touch, but read nothing between them."""
    with zarr.config.set({"array.sharding_coalesce_max_gap_bytes": 0}):
        yield


WIDTH = 7680  # VAR-d30
D30_SCALES, D30_BLOCKS, D30_IMAGES = 10, 2, 512


@pytest.fixture(scope="module")
def d30(made: Any) -> Counting:
    """Two blocks and two slabs of 256 images, as wide as VAR-d30, with values at random places."""
    counting = Counting(MemoryStore())
    shape = {"neurons": WIDTH, "scales": D30_SCALES, "blocks": D30_BLOCKS}
    store = made.create(counting, D30_IMAGES, "d30", slab=256, **shape)
    slab = np.zeros((1, D30_BLOCKS, D30_SCALES, WIDTH, 256), np.float32)
    slab[..., ::9, ::3] = 1
    for number in range(2):
        store.put("d30", number, slab)
    return counting


def sizes(counting: Counting, block: int, slab: int) -> np.ndarray:
    """Return the stored bytes of a shard's chunks from its index, dims (scale, tile, half)."""
    shard = counting._store._store_dict[f"d30/activation/c/0/{block}/0/0/{slab}"].to_bytes()
    chunks = D30_SCALES * (WIDTH // 512) * 2
    index = np.frombuffer(shard[-16 * chunks - 4 : -4], "<u8").reshape(-1, 2)
    return index[:, 1].reshape(D30_SCALES, WIDTH // 512, 2)


INDEX = 16 * D30_SCALES * (WIDTH // 512) * 2 + 4  # bytes: offset and length of each chunk, crc32c


def test_a_block_and_scale_costs_its_chunks_and_an_index_a_shard(d30: Counting) -> None:
    activation = ActivationStore.open(d30, "r").activation
    d30.answers.clear()
    activation.isel(block=1, scale=4).load()
    assert len(d30.answers) == (4 if JOINS else 62)  # 2 shards of 15 tiles, 2 halves, 1 index
    assert sum(d30.answers) == sum(int(sizes(d30, 1, j)[4].sum()) + INDEX for j in range(2))


def test_a_neuron_at_a_scale_costs_one_tile(d30: Counting) -> None:
    activation = ActivationStore.open(d30, "r").activation
    d30.answers.clear()
    activation.isel(block=0, scale=4, neuron=1000).load()
    assert len(d30.answers) == (4 if JOINS else 6)  # 2 shards of 2 halves and an index
    assert sum(d30.answers) == sum(int(sizes(d30, 0, j)[4, 1].sum()) + INDEX for j in range(2))


def test_a_neuron_at_all_scales_costs_ten_tiles(d30: Counting) -> None:
    activation = ActivationStore.open(d30, "r").activation
    d30.answers.clear()
    activation.isel(block=0, neuron=1000).load()
    assert len(d30.answers) == (22 if JOINS else 42)
    assert sum(d30.answers) == sum(int(sizes(d30, 0, j)[:, 1].sum()) + INDEX for j in range(2))


def test_an_image_costs_one_half_of_every_tile(d30: Counting) -> None:
    activation = ActivationStore.open(d30, "r").activation
    d30.answers.clear()
    activation.isel(image=300).load()
    assert len(d30.answers) == 302  # 2 blocks of 10 scales of 15 tiles, and 2 indices
    assert sum(d30.answers) == sum(int(sizes(d30, b, 1)[:, :, 0].sum()) + INDEX for b in range(2))


def test_streaming_a_store_costs_one_request_a_shard(d30: Counting) -> None:
    store = ActivationStore.open(d30, "r")
    d30.answers.clear()
    for batch in store.batches(block=1):
        assert batch.shape == (1, D30_SCALES, WIDTH, 256)
    assert len(d30.answers) == 2
    assert sum(d30.answers) == sum(int(sizes(d30, 1, j).sum()) + INDEX for j in range(2))


def test_files_and_bytes_equal_the_formula(tmp_path: Path, made: Any) -> None:
    store, _ = made.fill(tmp_path / "x.zarr", count=20, slab=8)  # slabs of 8, 8 and 4
    found = (tmp_path / "x.zarr/tiny/activation/c").rglob("*")
    shards = sorted(file for file in found if file.is_file())
    assert len(shards) == made.BLOCKS * 3
    noise = made.SCALES * 20 * 8 * 4  # bytes of a shard; random mantissas shrink by a fifth at most
    index = 16 * made.SCALES + 4
    for shard in shards[:2]:
        assert 0.8 * noise < shard.stat().st_size <= noise + made.SCALES * (16 + 4) + index
    assert store["tiny"].stored_bytes() == sum(shard.stat().st_size for shard in shards)


# --- the same numbers


def plain_unitmem(scores: np.ndarray) -> np.ndarray:
    """Return UnitMem by its definition, from scores with the image first."""
    largest = scores.max(0).astype("f8")
    rest = (scores.sum(0, dtype="f8") - largest) / (len(scores) - 1)
    total = np.where(largest + rest, largest + rest, 1)  # 0 where no image activates the neuron
    return (largest - rest) / total


def test_a_store_is_scored_block_by_block_as_by_the_definition(tmp_path: Path, made: Any) -> None:
    store, scores = made.fill(tmp_path / "x.zarr")
    found = store.score("unitmem")
    np.testing.assert_allclose(found, plain_unitmem(scores), rtol=1e-9)
    assert np.array_equal(found["top_image"], scores.argmax(0) + 3)  # ids, not positions
    assert list(found["block"].to_numpy()) == [0, 1]
    assert found.attrs["images"] == 21


@pytest.mark.parametrize("metric", [UnitMem, RandomScore])
def test_a_store_is_scored_as_its_batches_are(tmp_path: Path, metric: Any, made: Any) -> None:
    store, _ = made.fill(tmp_path / "x.zarr")
    one = metric()
    for batch in store.batches():
        one.update(batch)
    xr.testing.assert_identical(store.score(metric), one.compute())


@given(data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_slab_size_order_and_number_of_ranks_give_the_whole_reduction(
    data: st.DataObject, made: Any
) -> None:
    count, slab = data.draw(st.integers(2, 13)), data.draw(st.integers(1, 14))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores = draw.choice(np.array([0, 0.5, 1, 2], "f4"), (count, made.BLOCKS, 1, 5))  # many ties
    store = made.create({}, count, "m", neurons=5, scales=1, slab=slab)
    for number in data.draw(st.permutations(store.pending())):
        at = store.images_of("m", number)
        store.put("m", number, made.as_slab(scores[at.start : at.stop]))
    world = data.draw(st.integers(1, 3))
    ranks = [UnitMem() for _ in range(world)]
    for number, batch in enumerate(store.batches()):
        ranks[number % world].update(batch)
    merged = UnitMem()
    for one in data.draw(st.permutations(ranks)):
        merged.merge(one.state())
    for found in (merged.compute(), store.score(UnitMem)):
        assert np.array_equal(found["top_image"], scores.argmax(0) + 3)  # the smallest of ties
        np.testing.assert_allclose(found, plain_unitmem(scores), rtol=1e-12)


@pytest.mark.parametrize(
    ("neurons", "scales", "count", "slab"),
    [(513, 1, 3, 2), (20, 3, 21, 8), (20, 1, 1, 8), (7, 2, 5, 1), (1, 1, 128, 128)],
)
def test_stores_of_any_shape_give_back_what_was_written(
    tmp_path: Path, neurons: int, scales: int, count: int, slab: int, made: Any
) -> None:
    layout, images = made.layout(neurons, scales), made.images(count)
    scores = made.scores(count, layout)
    place = tmp_path / "x.zarr"
    store = made.create(place, count, "m", neurons=neurons, scales=scales, slab=slab)
    with store.writing("m") as writer:
        for batch in made.batches(scores, images, 4):
            writer.write(batch)
    assert np.array_equal(made.as_slab(scores), store.activation)


@pytest.mark.parametrize(
    "key",
    [
        {"image": slice(None, None, -1)},
        {"image": [20, 0, 7], "neuron": [3, 1]},
        {"block": 1, "scale": -1, "neuron": slice(2, 19, 3)},
        {"image": slice(5, 5)},
        {"neuron": xr.DataArray([1, 2], dims="pair"), "image": xr.DataArray([3, 4], dims="pair")},
    ],
)
def test_lazy_slices_equal_slices_of_the_whole(
    tmp_path: Path, key: dict[str, Any], made: Any
) -> None:
    store, scores = made.fill(tmp_path / "x.zarr")
    whole = xr.DataArray(made.as_slab(scores), dims=store.activation.dims)
    assert np.array_equal(whole.isel(key), store.activation.isel(key))


# --- several models


def two_models(path: Path, made: Any) -> tuple[ActivationStore, np.ndarray, np.ndarray]:
    _, narrow = made.fill(path)
    wide = made.scores(4, made.layout(33, 1))
    store = made.create(path, 4, "wide", neurons=33, scales=1)
    store.put("wide", 0, made.as_slab(wide))
    return store, narrow, wide


def test_stacked_models_equal_each_part_and_are_nan_elsewhere(tmp_path: Path, made: Any) -> None:
    store, narrow, wide = two_models(tmp_path / "x.zarr", made)
    both = store.stack()
    assert dict(both.sizes) == {"model": 2, "block": 2, "scale": 3, "neuron": 33, "image": 21}
    part = both.sel(model="tiny", neuron=slice(0, 19))
    assert np.array_equal(made.as_slab(narrow)[0], part)
    part = both.sel(model="wide", scale=[0], image=slice(3, 6))
    assert np.array_equal(made.as_slab(wide)[0], part)
    assert np.isfinite(both).sum() == narrow.size + wide.size


def test_a_selection_of_stacked_models_is_all_that_is_read(tmp_path: Path, made: Any) -> None:
    store, narrow, wide = two_models(tmp_path / "x.zarr", made)
    both = store.stack(["wide", "tiny"], select={"block": 1, "scale": 0, "neuron": 5})
    assert list(both["model"].to_numpy()) == ["wide", "tiny"]
    assert np.array_equal(narrow[:, 1, 0, 5], both.sel(model="tiny"))
    assert np.array_equal(wide[:, 1, 0, 5], both.sel(model="wide")[:4])
    with pytest.raises(InputError, match="not every model has"):
        store.stack(select={"scale": 2})


def test_stacking_more_than_a_selection_is_refused(made: Any) -> None:
    store = made.create({}, 9, "m", neurons=10**5, blocks=500)
    with pytest.raises(InputError, match="5 GB are selected"):
        store.stack(partial="keep")


# --- memory


SCORE = """
import resource, sys
from iarmem_plugin.store.store import ActivationStore
ActivationStore.open(sys.argv[1]).score("unitmem")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(path: Path) -> int:
    command = [sys.executable, "-c", SCORE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_the_memory_of_a_reduction_does_not_grow_with_the_images(
    tmp_path: Path, made: Any, slab: Any
) -> None:
    peaks = []
    for slabs in (4, 40):
        path = tmp_path / f"{slabs}.zarr"
        store = made.create(path, 128 * slabs, "m", neurons=512, scales=4, slab=128)
        slab = np.random.default_rng(0).random((1, made.BLOCKS, 4, 512, 128), np.float32)
        for number in range(slabs):
            store.put("m", number, slab)
        peaks.append(peak_kib(path))
    more = 36 * slab.nbytes / 1024  # 72 MiB of activations, in KiB
    assert peaks[1] - peaks[0] < more / 8


def test_a_store_may_be_read_in_several_threads_at_once(tmp_path: Path, made: Any) -> None:
    store, scores = made.fill(tmp_path / "x.zarr")
    activation = store.activation
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: activation.to_numpy(), range(12)))
    assert all(np.array_equal(one, made.as_slab(scores)) for one in read)


SELECTIONS: list[dict[str, Any]] = [
    {},
    {"model": 0},
    {"model": [0, 0]},
    {"block": [1, 0, 1]},
    {"block": -1, "image": slice(8, None)},
    {"block": [], "image": slice(8, 16)},
    {"image": slice(0, 16)},
    {"image": slice(8, 20)},
    {"image": slice(None, None, -1)},
    {"image": slice(8, 16, 2)},
    {"image": np.arange(16, 21)},
    {"scale": slice(None, None, -1), "image": slice(0, 8)},
    {"neuron": np.arange(20)[::-1]},
    {"model": 0, "block": 1, "scale": 2, "neuron": 3, "image": 4},
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_any_selection_is_that_of_numpy(
    tmp_path: Path, selection: dict[str, Any], made: Any
) -> None:
    store, scores = made.fill(tmp_path / "x.zarr")
    whole = xr.DataArray(made.as_slab(scores), dims=store.activation.dims)
    assert np.array_equal(store.activation.isel(selection), whole.isel(selection))
