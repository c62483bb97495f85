"""Read weight files without executing them."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from mmap import MAP_PRIVATE
from pathlib import Path
from typing import cast

import rich.progress
import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import set_default_mmap_options

from iarmem_plugin.errors import InputError, WeightsError

State = dict[str, Tensor]

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
_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before each name
_SLOW_BYTES = 2**31  # more than two seconds of hashing


@dataclass(frozen=True, slots=True)
class WeightFile:
    """The tensors of one file, memory-mapped where the format allows.

    Attributes:
        path: place of the file.
        states: tensors of each dictionary in the file, by its place: ``""`` is the file
            itself, ``"trainer.var_wo_ddp"`` lies two levels inside.
    """

    path: Path
    states: dict[str, State]


def read_weights(path: Path) -> WeightFile:
    """Read a ``.pth``, ``.bin`` or ``.safetensors`` file, whatever its name, by its content.

    Tensors of a zip archive (as ``torch.save`` writes it) and of a safetensors file are mapped,
    privately: they take no memory of their own until they are written to, and what is written
    never reaches the file. A file of ``torch.save`` before 1.6 is read into memory whole.

    Raises:
        InputError: there is no such file.
        WeightsError: the file holds something else; nothing in it was executed.
    """
    if not path.is_file():
        problem = "is a folder: name the file in it" if path.is_dir() else "does not exist"
        raise InputError(f"the weight file {path} {problem}")
    _check_start(path)
    try:
        content = _read(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(_refusal(path, str(error))) from error
    except _DAMAGED as error:
        raise WeightsError(_damage(path, error)) from error
    return WeightFile(path, dict(_states(content, "")))


def file_facts(path: Path, place: str = "") -> dict[str, str | int]:
    """Return what identifies a file whose weights were taken.

    A progress bar is shown on a terminal while a large file is read.

    Returns:
        ``name`` (without its folder), ``sha256``, length in ``bytes`` and, where the weights lie
        deeper in the file, their ``place``.
    """
    size = path.stat().st_size
    quiet = size < _SLOW_BYTES or not sys.stderr.isatty()
    with rich.progress.open(
        path,
        "rb",
        description=f"Reading {path.name}",
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    ) as file:
        digest = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
    facts: dict[str, str | int] = {"name": path.name, "sha256": digest, "bytes": size}
    return facts | {"place": place} if place else facts


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
    what = f" ({named[1]})" if named else ""
    return (
        f"{path} is not a readable weight file: it holds objects other than tensors{what}, which "
        "are never run; if you trust the file, load it yourself and save its state dict alone "
        "with torch.save"
    )


def _damage(path: Path, error: Exception) -> str:
    reason = str(error).partition("\n")[0][:200] or type(error).__name__
    if "TorchScript" in reason:
        return f"{path} is not a weight file: it is a TorchScript program, which is never run here"
    return f"{path} cannot be read, as if its download had broken off: {_AGAIN} ({reason})"


def _states(content: object, place: str) -> Iterator[tuple[str, State]]:
    """Yield the tensors of each nested dictionary that has any, out of a wrapper's names."""
    if not isinstance(content, dict):
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    for wrapper in _WRAPPERS:
        if named and all(key.startswith(wrapper) for key in named):
            inside = {key.removeprefix(wrapper): value for key, value in named.items()}
            yield from _states(inside, f"{place}.{wrapper}".strip("."))
            return
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in named.items():
        yield from _states(value, f"{place}.{key}" if place else key)
