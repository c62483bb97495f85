"""Load weights into networks, strictly and in bounded memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from iarmem_plugin.errors import WeightsError

from .files import State


def load_strictly(
    module: nn.Module,
    state: State,
    *,
    path: Path,
    what: str,
    device: str,
    dtype: torch.dtype,
) -> None:
    """Give a network, made on the meta device, weights of its own names and shapes.

    Tensors go straight to their final device and precision, one at a time. One that is there
    already is taken as it is: memory-mapped weights stay mapped.

    Args:
        module: network whose state dict has the entries of `state`, and no others.
        state: entries to load; emptied on the way.
        path: file of the weights, for messages.
        what: name of the network, for messages.
        device: device for all entries, in torch's naming.
        dtype: precision of all floating-point entries.

    Raises:
        WeightsError: the entries do not fit.
    """
    check_entries(module.state_dict(), state, path, what)
    ready: State = {}
    for key in list(state):
        tensor = state.pop(key)
        precision = dtype if tensor.is_floating_point() else tensor.dtype
        ready[key] = tensor.to(device, precision).contiguous()
    module.load_state_dict(ready, strict=True, assign=True)


def check_entries(expected: State, state: State, path: Path, what: str) -> None:
    """Compare names, shapes and types of entries.

    Raises:
        WeightsError: the first five that differ are named.
    """
    both = [key for key in expected if key in state]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in both
        if state[key].shape != expected[key].shape
    ]
    types = [f"{key} ({state[key].dtype})" for key in both if _other(state[key], expected[key])]
    absent = [key for key in both if state[key].is_meta or state[key].layout != torch.strided]
    for problem, keys in (
        ("lacks", [key for key in expected if key not in state]),
        ("has unknown", [key for key in state if key not in expected]),
        ("has other sizes:", shapes),
        ("has numbers of another type, as if it were quantised:", types),
        ("has no plain numbers, being sparse or without values, in", absent),
    ):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise WeightsError(f"{path} is not {what}: it {problem} {', '.join(keys[:5])}{more}")


def _other(given: Tensor, expected: Tensor) -> bool:
    tiny = given.is_floating_point() and given.element_size() < 2  # float8
    return tiny or given.is_floating_point() != expected.is_floating_point()
