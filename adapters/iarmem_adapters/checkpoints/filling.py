"""Load weights into networks, strictly and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from iarmem_plugin.errors import WeightsError
from iarmem_plugin.models.sound import derived_advice, is_finite
from iarmem_plugin.text import shown

from .states import State

_DAMAGED = "the file is damaged, or its training went wrong"


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
    buffers = {name for name, _ in module.named_buffers()}
    ready: State = {}
    for key in list(state):
        given = state.pop(key)
        precision = dtype if given.is_floating_point() else given.dtype
        ready[key] = given.to(device, precision).contiguous()
        if not is_finite(ready[key], mask=key in buffers):
            small = is_finite(given, mask=key in buffers)
            raise WeightsError(
                f"{path} cannot be used as {what}: {shown(key, 80)} holds NaN or infinity"
                + (f" in {precision}: load it as float32 or bfloat16" if small else f": {_DAMAGED}")
            )
    module.load_state_dict(ready, strict=True, assign=True)


def check_entries(expected: State, state: State, path: Path, what: str) -> None:
    """Compare names, shapes and types of entries.

    Raises:
        WeightsError: the first that differ are named, up to five of those missing or unknown.
    """
    both = [key for key in expected if key in state]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in both
        if state[key].shape != expected[key].shape
    ]
    types = [f"{key} ({state[key].dtype})" for key in both if _other(state[key], expected[key])]
    absent = [key for key in both if state[key].is_meta or state[key].layout != torch.strided]
    unknown = [key for key in state if key not in expected]
    missing = [key for key in expected if key not in state]
    if missing or unknown:
        raise WeightsError(
            f"{path} is not {what}: it {differing_names(missing, unknown)}{derived_advice(unknown)}"
        )
    for problem, keys in (
        ("has other sizes:", shapes),
        ("has numbers of another type, as if it were quantised:", types),
        ("has no plain numbers, being sparse or without values, in", absent),
    ):
        if keys:
            raise WeightsError(f"{path} is not {what}: it {problem} {listed(keys)}")


def differing_names(
    missing: Sequence[str],
    unknown: Sequence[str],
    words: tuple[str, str] = ("lacks", "has unknown"),
) -> str:
    """Name the entries that are missing and those that are unknown, both where there are both."""
    most = 3 if missing and unknown else 5
    found = zip(words, (missing, unknown), strict=True)
    return " and ".join(f"{word} {listed(names, most)}" for word, names in found if names)


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name, 70) for name in names[:most]) + more


def _other(given: Tensor, expected: Tensor) -> bool:
    tiny = given.is_floating_point() and given.element_size() < 2  # float8
    return tiny or given.is_floating_point() != expected.is_floating_point()
