"""Arrays from an .npz file: whole and checked, or refused before memory is asked for."""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zlib
from collections import Counter
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

LARGEST_RATIO = 1032  # to one: deflate packs no closer
_END_SIZE = 22  # bytes of the record that ends an archive
_DAMAGE = (
    ArithmeticError,
    BadZipFile,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # encrypted; or, as NotImplementedError, packed by an unknown method
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,  # of a header of brackets, from Python 3.12 on
    zlib.error,
)
"""What zipfile and numpy raise at files that are damaged, or made to do harm."""


def read_npz(
    path: Path, names: tuple[str, ...], *, what: str = "pictures"
) -> dict[str, np.ndarray]:
    """Read some arrays of an .npz file.

    Args:
        path: file to read.
        names: arrays that are wanted; those that are not there are left out.
        what: what the file is to hold, for messages.

    Raises:
        InputError: it is not an .npz file, or an array is damaged, encrypted, packed by a method
            that numpy does not use, or larger than the file can hold.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        with ZipFile(path) as archive:
            members, size = _members(archive), os.path.getsize(path)
            _check_count(path, size - len(archive.comment), len(members))
            wanted = [(name, f"{name}.npy") for name in names if f"{name}.npy" in members]
            return {name: _array(archive, members[file], size) for name, file in wanted}
    except _DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(
            f"{shown(path, 150)} cannot be read as an .npz file of {what}: {shown(reason, 150)}; "
            "write it anew with numpy.savez"
        ) from error


def _members(archive: ZipFile) -> dict[str, ZipInfo]:
    """Return what is in the archive, by name; names stand in it twice, and must agree."""
    listed = archive.infolist()
    name, count = Counter(one.filename for one in listed).most_common(1)[0] if listed else ("", 0)
    if count > 1:
        raise ValueError(f"it holds '{shown(name, 40)}' {count} times")
    for one in listed:
        if one.flag_bits & 1:
            raise ValueError(f"'{shown(one.filename, 40)}' is encrypted")
        if one.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise ValueError(
                f"'{shown(one.filename, 40)}' is packed by method {one.compress_type}, which numpy "
                "does not use"
            )
        archive.open(one).close()  # which compares the two
    return {one.filename: one for one in listed}


def _check_count(path: Path, end: int, count: int) -> None:
    """Refuse an archive whose directory lost a part: one entry may swallow the next."""
    with path.open("rb") as file:
        file.seek(end - _END_SIZE)
        (said,) = struct.unpack_from("<H", file.read(_END_SIZE), 10)
    if said not in (count, 0xFFFF):  # of more than can be said there
        raise ValueError(f"it lists {count} arrays, and says that there are {said}")


def _array(archive: ZipFile, member: ZipInfo, size: int) -> np.ndarray:
    if member.file_size > LARGEST_RATIO * min(member.compress_size, size) + LARGEST_RATIO:
        raise ValueError(f"'{member.filename}' is said to unpack to {member.file_size:,} bytes")
    _check_size(archive, member)
    with archive.open(member) as file:
        array: np.ndarray = npy.read_array(file, allow_pickle=False)
        if file.read(1):  # the checksum is compared at the end
            raise ValueError(f"'{member.filename}' holds more than its header says")
        return array


def _check_size(archive: ZipFile, member: ZipInfo) -> None:
    """Refuse a header that promises more, or less, than there is."""
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with archive.open(member) as file:
        shape, _, dtype = read.get(npy.read_magic(file), npy.read_array_header_2_0)(file)
        found = member.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"'{member.filename}' holds objects, which are not loaded")
    needed = math.prod(shape) * dtype.itemsize
    if needed != found:
        raise ValueError(
            f"'{member.filename}' is {dtype} {shape}, {needed:,} bytes, and the file holds "
            f"{found:,}"
        )
