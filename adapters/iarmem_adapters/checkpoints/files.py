"""Read weight files without executing them."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from mmap import MAP_PRIVATE
from pathlib import Path
from typing import cast

import rich.progress
import torch
from rich.console import Console
from rich.markup import escape
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import set_default_mmap_options

from iarmem_plugin.errors import WeightsError
from iarmem_plugin.models.hub import weight_file
from iarmem_plugin.text import shown

from .checksums import check_sums
from .index import check_not_a_shard, is_index, read_shards, shard_paths
from .states import Held, State, find_states

__all__ = ["State", "WeightFile", "file_facts", "read_weights"]

_AGAIN = "fetch it again"
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
_DAMAGED = (  # what the unpickler and the two readers raise on damaged bytes
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    struct.error,
)
_SLOW_BYTES = 2**31  # more than two seconds of hashing


@dataclass(frozen=True, slots=True)
class WeightFile:
    """The tensors of one file, memory-mapped where the format allows.

    Attributes:
        path: place of the file.
        states: each dictionary of tensors in the file.
        content: all that the file holds, with the same tensors.
    """

    path: Path
    states: list[Held]
    content: object = None


def read_weights(path: Path) -> WeightFile:
    """Read a ``.pth``, ``.bin`` or ``.safetensors`` file, whatever its name, by its content.

    The index of a model in several files, such as ``model.safetensors.index.json``, is read with
    all of them. Tensors of a zip archive (as ``torch.save`` writes it) and of a safetensors file
    are mapped, privately: they take no memory of their own until they are written to, and what is
    written never reaches the file. A file of ``torch.save`` before 1.6 is read into memory whole.

    Raises:
        InputError: there is no such file, or an index is not JSON.
        WeightsError: the file holds something else; nothing in it was executed.
    """
    path = weight_file(path)
    check_not_a_shard(path)
    content = read_shards(path, _read_one) if is_index(path) else _read_one(path)
    return WeightFile(path, find_states(content, path), content)


def file_facts(path: Path, place: str = "") -> dict[str, str | int]:
    """Return what identifies a file whose weights were taken, once it is known to be undamaged.

    The checksums inside of it are compared on the way, beside the reading. A progress bar is
    shown on a terminal while a large file is read.

    Returns:
        ``name`` (without its folder), ``sha256``, length in ``bytes`` and, where the weights lie
        deeper in the file, their ``place``. An index is one with its files: the hash is over the
        index and then over them in the order of their names, the length is that of all.

    Raises:
        WeightsError: something in a file does not fit its checksum.
    """
    digest, size = hashlib.sha256(), 0
    for part in (path, *shard_paths(path)):
        with ThreadPoolExecutor(1) as beside:
            checked = beside.submit(check_sums, part)
            _hash_into(digest, part)
            checked.result()
        size += part.stat().st_size
    facts: dict[str, str | int] = {"name": path.name, "sha256": digest.hexdigest(), "bytes": size}
    return facts | {"place": place} if place else facts


def _hash_into(digest: hashlib._Hash, path: Path) -> None:
    quiet = path.stat().st_size < _SLOW_BYTES or not sys.stderr.isatty()
    with rich.progress.open(
        path,
        "rb",
        description=f"Reading {escape(shown(path.name))}",
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    ) as file:
        hashlib.file_digest(cast(BufferedReader, file), lambda: digest)


def _read_one(path: Path) -> object:
    try:
        _check_start(path)
        return _read(path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(_refusal(path, str(error))) from error
    except _DAMAGED as error:
        raise WeightsError(_damage(path, error)) from error


def _read(path: Path) -> object:
    if _is_safetensors(path):
        return load_file(path)
    mapped = _is_whole_zip(path)
    with warnings.catch_warnings(), set_default_mmap_options(MAP_PRIVATE):
        warnings.simplefilter("ignore")  # of a TorchScript archive, which is then refused
        return torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)


def _check_start(path: Path) -> None:
    """Refuse a file that is not a weight file by its first bytes.

    Raises:
        WeightsError: the message says what the file is.
    """
    with path.open("rb") as file:
        start = file.read(512)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        problem = f"is empty: {_AGAIN}"
    elif text.startswith(b"<"):
        problem = (
            f"is a web page that was saved in place of the file: {_AGAIN} by its download link"
        )
    elif text.startswith(b"version https://git-lfs"):
        problem = "is a pointer of git-lfs, not the file itself: run 'git lfs pull' in its folder"
    elif start.startswith(b"PK") and not _is_whole_zip(path):
        problem = f"is the beginning of a file, as if its download had broken off: {_AGAIN}"
    elif start.startswith((b"PK", _LEGACY)) and path.suffix == ".safetensors":
        problem = "was written by torch.save under another format's name: rename it to .pth"
    elif start.startswith((b"PK", _LEGACY)) or _is_safetensors(path):
        return
    elif start.startswith(b"\x80"):
        problem = (
            "is a pickle that torch.save did not write; it was not run: "
            "save the weights with torch.save or as safetensors"
        )
    else:
        problem = (
            f"is neither a file of torch.save nor of safetensors; it starts with {start[:16]!r}"
        )
    raise WeightsError(f"{path} is not a readable weight file: it {problem}")


def _is_whole_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _is_safetensors(path: Path) -> bool:
    """Tell it by its start: the length of a JSON header in 8 bytes, and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and start[5:8] == b"\0\0\0"


def _refusal(path: Path, message: str) -> str:
    named = re.search(r"GLOBAL (\S+)", message)
    what = f" ({shown(named[1], 80)})" if named else ""
    return (
        f"{path} is not a readable weight file: it holds objects other than tensors{what}, which "
        "are never run; if you trust the file, load it yourself and save its state dict alone "
        "with torch.save"
    )


def _damage(path: Path, error: Exception) -> str:
    reason = shown(str(error).partition("\n")[0], 120) or type(error).__name__
    if "TorchScript" in reason:
        return f"{path} is not a weight file: it is a TorchScript program, which is never run here"
    return f"{path} cannot be read, as if its download had broken off: {_AGAIN} ({reason})"
