"""A checkpoint as a file: what torch.save writes, or safetensors in the official order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import Streamed
from iarmem_plugin.interfaces import Checkpoint

ENDINGS = (".pth", ".safetensors")
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Hashed:
    """A file that is written from its beginning to its end, and hashed on the way.

    Args:
        file: where it is written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, content: bytes | memoryview) -> int:
        """Write and hash some bytes."""
        self._digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Hand on what was written."""
        self._file.flush()

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written so far."""
        return self._digest.hexdigest()


def check_types(state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that a safetensors file cannot hold.

    Raises:
        InputError: naming the first.
    """
    for key, tensor in state.items():
        if tensor.dtype not in _TYPES:
            raise InputError(
                f"{key} is {tensor.dtype}, which is not written as safetensors here: export a .pth"
            )


def as_file(checkpoint: Checkpoint, ending: str, told: dict[str, str]) -> Streamed:
    """Return the content of a checkpoint's file, which is made while it is written.

    Args:
        checkpoint: what is written.
        ending: one of `ENDINGS`: all of its content by ``torch.save``, or its state alone.
        told: is given the ``sha256`` of the file once it is written.
    """

    def write(file: BinaryIO) -> None:
        hashed = Hashed(file)
        if ending == ".pth":
            torch.save(checkpoint.content, hashed)  # type: ignore[arg-type]  # it needs no more
        else:
            _write_safetensors(checkpoint.state, hashed)
        told["sha256"] = hashed.sha256

    size = sum(tensor.nbytes for tensor in checkpoint.state.values())
    return Streamed(max(size, int(checkpoint.facts.get("bytes", 0))), write)


def _write_safetensors(state: Mapping[str, Tensor], file: Hashed) -> None:
    """Write tensors one by one in their order, which the library's own writer would change.

    Reference: https://github.com/huggingface/safetensors, "Format".
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end, keys = 0, _aligned(state)
    for key in keys:
        tensor, start = state[key], end
        end += tensor.nbytes
        offsets = [start, end]
        header[key] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for key in keys:
        raw = state[key].detach().contiguous().reshape(-1).view(torch.uint8)
        file.write(raw.numpy().data)


def _aligned(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names in their order, or those of wide numbers first if that misaligns some."""
    start = 0
    for tensor in state.values():
        if start % tensor.element_size():
            return sorted(state, key=lambda key: -state[key].element_size())
        start += tensor.nbytes
    return list(state)
