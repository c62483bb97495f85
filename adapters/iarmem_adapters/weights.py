"""Read weight files without executing them, and fill networks with them strictly."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from iarmem_plugin.errors import InputError, WeightsError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without executing anything it contains.

    Raises:
        InputError: there is no such file.
        WeightsError: the file holds something else.
    """
    if not path.is_file():
        raise InputError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_archive(path)
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(f"{path} is not a readable weight file: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a flat state dict of tensors")
    return state


def _check_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(16)
        raise WeightsError(
            f"{path} is not a readable weight file: torch.save writes a whole zip archive, and "
            f"this file starts with {start!r}; fetch it again, in case a page was saved in its "
            "place or the download broke off"
        )


def fill_weights(module: nn.Module, path: Path, what: str) -> None:
    """Give a network, made on the meta device, the weights of a file, in float32.

    Args:
        module: every entry of its state dict must be in the file, and no other.
        path: see `read_weights`.
        what: names the network in messages.

    Raises:
        InputError: there is no such file.
        WeightsError: the file holds something else, or entries that do not fit.
    """
    state = read_weights(path)
    _compare(module.state_dict(), state, path, what)
    for key, tensor in state.items():
        if tensor.is_floating_point():
            state[key] = tensor.float()
    module.load_state_dict(state, strict=True, assign=True)


def _compare(expected: dict[str, Tensor], state: dict[str, Tensor], path: Path, what: str) -> None:
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    differing = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    for kind, keys in (("lacks", missing), ("has unknown", extra), ("has other sizes:", differing)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise WeightsError(f"{path} is not {what}: it {kind} {', '.join(keys[:5])}{more}")
