"""Parts of a network that compute in full float32, under autocast and on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def keeps_precision(method: Method) -> Method:
    """Return the method in full float32, on the device of its first argument, a tensor."""

    @functools.wraps(method)
    def run(owner: object, *args: Any, **named: Any) -> Any:
        first = args[0] if args else next(iter(named.values()))
        with full_float32(first.device):
            return method(owner, *args, **named)

    return cast(Method, run)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switch autocast off for a while, and on a GPU TF32, which convolutions else round to.

    Tokens are choices between near codes: half precision would change a tenth of them, and TF32
    one in 250, in every seventh picture, and others in another batch.

    Args:
        device: device that computes.
    """
    switches = _tf32_switches() if device.type == "cuda" else []
    try:
        for owner, name, _ in switches:
            setattr(owner, name, "ieee" if name == "fp32_precision" else False)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for owner, name, before in switches:
            setattr(owner, name, before)


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """Return what says how convolutions and products round, by the names that were used last.

    Torch 2.9 has new names for it, and raises where the old are read after the new were set.
    """
    cudnn: Any = torch.backends.cudnn
    products: Any = torch.backends.cuda.matmul
    found: list[tuple[Any, str, Any]] = []
    for owner in (cudnn, products):
        try:
            found.append((owner, "allow_tf32", owner.allow_tf32))
        except RuntimeError:
            renamed = getattr(owner, "conv", owner)
            found.append((renamed, "fp32_precision", renamed.fp32_precision))
    return found
