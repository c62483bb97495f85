"""The bytes of one shard, as zarr's sharding codec stores them, coded in one go; rounding."""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c
import numpy as np
from jaxtyping import Float32, UInt8
from numcodecs import blosc

from iarmem_plugin.store.format import MANTISSA_BITS, chunks_and_shards
from iarmem_plugin.store.objects import ByteRanges

DAMAGE = (ValueError, RuntimeError)  # what checksums and codecs raise, zarr's too
_ABSENT = 2**64 - 1  # offset and size, in the index, of a chunk that is not there
_CRC = 4  # bytes of a checksum


class ShardCodec:
    """Encodes and decodes shards: one block of one slab, dims (scale, neuron, image).

    zarr reads and writes the same bytes, but handles each of a shard's hundreds of chunks as a
    task of its own, which takes twice as long. Only whole shards are coded here.

    Each chunk is compressed (blosc lz4, level 5, bitshuffle) and followed by its CRC-32C; offset
    and size of each chunk, and their CRC-32C, are at the end.

    Shapes follow from the numbers of neurons, scales and images in a slab: `chunks_and_shards`.

    Reference: Zarr version 3, codec ``sharding_indexed`` version 1.0.
    """

    def __init__(self, neurons: int, scales: int, slab: int) -> None:
        chunk, shard = chunks_and_shards(neurons, scales, slab)
        self._chunk = chunk[3:]  # dims (neuron, image)
        self._grid = (scales, shard[3] // chunk[3], slab // chunk[4])  # chunks along each dim

    def encode(
        self, values: Float32[np.ndarray, "scale neuron image"]
    ) -> UInt8[np.ndarray, " byte"]:
        """Return a shard's bytes; of the last slab, which may be shorter, too."""
        index = np.full((*self._grid, 2), _ABSENT, "<u8")
        chunks, raw = index.size // 2, 4 * int(np.prod(self._chunk))
        # in numpy's memory, which comes in larger pages than that of bytes
        data = np.empty(chunks * (raw + blosc.MAX_OVERHEAD + _CRC + 16) + _CRC, np.uint8)
        end = 0
        for place, part in self._parts(values):
            chunk = blosc.compress(self._whole(part), b"lz4", 5, blosc.BITSHUFFLE, 0)
            begin, end = end, _append(data, end, chunk)
            index[place] = begin, end - begin
        return data[: _append(data, end, index.tobytes())]

    def decode(
        self,
        data: ByteRanges,
        values: Float32[np.ndarray, "scale neuron image"],
    ) -> None:
        """Write a shard's values into an array; NaN where it holds none.

        Raises:
            ValueError: a checksum does not fit.
            RuntimeError: a chunk is of another size.
        """
        index = self._index(data)
        whole = np.empty(self._chunk, np.float32)
        for place, part in self._parts(values):
            offset, size = index[place].tolist()
            if offset == _ABSENT:
                part[...] = np.nan
                continue
            chunk = _checked(data[offset : offset + size])
            if part.shape == self._chunk and part.flags.c_contiguous:
                blosc.decompress(chunk, part)
            else:
                blosc.decompress(chunk, whole)
                part[...] = whole[: part.shape[0], : part.shape[1]]

    def _parts(self, values: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Yield each chunk's place in the grid, and its part of the values."""
        neurons, images = self._chunk
        for scale, tile, half in np.ndindex(self._grid):
            rows = slice(tile * neurons, (tile + 1) * neurons)
            part = values[scale, rows, half * images : (half + 1) * images]
            if part.size:
                yield (scale, tile, half), part

    def _whole(self, part: np.ndarray) -> np.ndarray:
        if part.shape == self._chunk:
            return np.ascontiguousarray(part)
        whole = np.full(self._chunk, np.nan, np.float32)
        whole[: part.shape[0], : part.shape[1]] = part
        return whole

    def _index(self, data: ByteRanges) -> np.ndarray:
        size = 16 * int(np.prod(self._grid))
        table = _checked(data[-size - _CRC :])
        return table.copy().view("<u8").reshape(*self._grid, 2)


def round_mantissa(values: np.ndarray, keep_bits: int | None) -> np.ndarray:
    """Round to the nearest value with few mantissa bits, ties to even.

    Args:
        values: float32 values of any shape, finite.
        keep_bits: number of the 23 mantissa bits to keep; 13 halve the disk and move UnitMem by
            3e-5 at most. None changes nothing and copies nothing.

    Returns:
        float32, within 2**-(keep_bits + 1) of the given ones, relatively.

    >>> round_mantissa(np.array([1.0, 1.3, -1.3], np.float32), 2)
    array([ 1.  ,  1.25, -1.25], dtype=float32)
    """
    if keep_bits is None or keep_bits == MANTISSA_BITS:
        return values
    dropped = MANTISSA_BITS - keep_bits
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits >> np.uint32(dropped)) & np.uint32(1)  # 1 where a tie is to be rounded up
    rounded += np.uint32((1 << (dropped - 1)) - 1)
    rounded += bits
    rounded &= np.uint32(0xFFFFFFFF ^ ((1 << dropped) - 1))
    return rounded.view(np.float32)


def _append(data: np.ndarray, begin: int, content: bytes) -> int:
    """Write bytes and their checksum into an array; return where they end."""
    end = begin + len(content)
    data[begin:end] = np.frombuffer(content, np.uint8)
    data[end : end + _CRC] = np.frombuffer(_crc(content), np.uint8)
    return end + _CRC


def _checked(data: np.ndarray) -> np.ndarray:
    """Return the bytes before a checksum, once it fits them."""
    content, stored = data[:-_CRC], data[-_CRC:].tobytes()
    if (computed := _crc(content)) != stored:
        raise ValueError(f"the checksum is {computed.hex()} and not {stored.hex()}")
    return content


def _crc(data: bytes | np.ndarray) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CRC, "little")
