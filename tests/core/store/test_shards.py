"""Shards as zarr reads and writes them; what is cut or flipped is never decoded."""

from __future__ import annotations

from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from iarmem_plugin.store.places import FileRanges
from iarmem_plugin.store.shards import DAMAGE, ShardCodec
from iarmem_plugin.store.store import ActivationStore

# neurons, images, slab: whole, padded or absent chunks along either dim
SHAPES = [(20, 21, 8), (600, 5, 8), (1024, 256, 256), (700, 300, 256), (513, 129, 256), (1, 1, 1)]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture(params=SHAPES, ids=str)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, made: Any
) -> tuple[ActivationStore, np.ndarray]:
    neurons, images, slab = request.param
    store = made.create(tmp_path / "x.zarr", images, "m", neurons=neurons, slab=slab)
    return store, random(1, made.BLOCKS, made.SCALES, neurons, images)


def plain(store: ActivationStore) -> zarr.Array:
    return zarr.open_array(store.name, path="m/activation", mode="r+")


def test_zarr_reads_what_is_written(store: tuple[ActivationStore, np.ndarray]) -> None:
    written, values = store
    for slab in written["m"].slabs:
        images = written.images_of("m", slab)
        written.put("m", slab, np.ascontiguousarray(values[..., images.start : images.stop]))
    assert np.array_equal(plain(written)[:], values)
    assert np.array_equal(plain(written)[0, 1, 2, :, 0], values[0, 1, 2, :, 0])


def test_what_zarr_writes_is_read(store: tuple[ActivationStore, np.ndarray]) -> None:
    opened, values = store
    plain(opened)[:] = values
    zarr.open_array(opened.name, path="m/captured", mode="r+")[:] = True
    assert np.array_equal(opened.activation, values)
    assert np.array_equal(opened.activation.isel(block=1, image=-1), values[:, 1, ..., -1])
    assert np.array_equal(opened.activation.isel(model=0, block=[1, 0]), values[0, [1, 0]])


def test_a_shard_is_as_large_as_zarr_writes_it(tmp_path: Path, made: Any) -> None:
    store, _ = made.fill(tmp_path / "x.zarr", neurons=1000)
    before = store["tiny"].stored_bytes()
    array = zarr.open_array(store.name, path="tiny/activation", mode="r+")
    array[:] = array[:]
    assert store["tiny"].stored_bytes() == before


def test_the_same_values_are_the_same_bytes() -> None:
    codec, values = ShardCodec(600, 2, 8), random(2, 600, 8)
    assert np.array_equal(codec.encode(values), codec.encode(np.asfortranarray(values)))


@pytest.mark.parametrize("images", [8, 5])
def test_every_cut_and_every_flipped_byte_is_an_error(images: int) -> None:
    codec, values = ShardCodec(9, 2, 8), random(2, 9, images)
    data, found = codec.encode(values), np.zeros_like(values)
    codec.decode(data, found)
    assert np.array_equal(found, values)
    for position in range(len(data)):
        with pytest.raises(DAMAGE):
            codec.decode(data[:position], found)
        flipped = data.copy()
        flipped[position] ^= 1 << position % 8
        with pytest.raises(DAMAGE):
            codec.decode(flipped, found)


def test_ranges_of_a_file_are_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with FileIO(tmp_path / "file") as file:
        ranges = FileRanges(file)
        assert ranges.size == 100
        assert ranges[90:].tobytes() == bytes(range(90, 100))
        assert ranges[-3:].tobytes() == bytes(range(97, 100))
        assert ranges[5:50].tobytes() == bytes(range(5, 50))
        assert ranges[50:5].size == 0
        (tmp_path / "file").write_bytes(b"short")
        with pytest.raises(ValueError, match="became shorter"):
            ranges[2:20]


def test_a_chunk_that_is_absent_is_nan() -> None:
    codec, values = ShardCodec(600, 1, 8), np.zeros((1, 600, 8), np.float32)
    nothing = np.full((1, 2, 1, 2), 2**64 - 1, "<u8")
    codec.decode(np.frombuffer(with_crc(nothing.tobytes()), np.uint8), values)
    assert np.isnan(values).all()


def with_crc(content: bytes) -> bytes:
    """Append CRC-32C by its definition: reflected polynomial 0x82F63B78, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return content + (crc ^ 0xFFFFFFFF).to_bytes(4, "little")
