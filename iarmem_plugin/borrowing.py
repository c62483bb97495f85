"""What is borrowed goes back: random generators as they were, and never half of anything."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from iarmem_plugin.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def generators_kept(device: torch.device | None = None) -> Iterator[None]:
    """Put random number generators back, exception or not: Python's, numpy's and torch's.

    A library that is not loaded yet has no generator that anybody could have seeded.

    Args:
        device: device whose generator is put back, too, beside the CPU's.
    """
    state, numpy, torch = random.getstate(), sys.modules.get("numpy"), sys.modules.get("torch")
    drawn = numpy and numpy.random.get_state()
    on_cpu = torch and torch.get_rng_state()
    on_gpu = torch and device and device.type == "cuda" and torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(drawn)
        if torch:
            torch.set_rng_state(on_cpu)
        if torch and isinstance(on_gpu, torch.Tensor):
            torch.cuda.set_rng_state(on_gpu, device)


_USERS: WeakKeyDictionary[nn.Module, list[int]] = WeakKeyDictionary()
_USERS_LOCK = threading.Lock()


@contextmanager
def by_one_thread(module: nn.Module) -> Iterator[None]:
    """Keep other threads from a module for a while: passes of two at once would mix their values.

    Raises:
        InputError: another thread uses it.
    """
    me = threading.get_ident()
    with _USERS_LOCK:
        users = _USERS.setdefault(module, [])
        if any(one != me for one in users):
            raise InputError(
                "the model is in use by another thread, whose numbers would be mixed with these; "
                "use it in one thread after the other, or give each a model of its own"
            )
        users.append(me)
    try:
        yield
    finally:
        with _USERS_LOCK:
            users.remove(me)


@contextmanager
def evaluating(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode for a while; all modes come back, exception or not."""
    parts = list(parts)
    modes = [(module, module.training) for part in parts for module in part.modules()]
    try:
        for part in parts:
            part.eval()
        yield
    finally:
        with uninterrupted():
            for module, training in modes:
                module.training = training


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is done; they then act as they would have.

    Python delivers signals to its main thread alone, so elsewhere there is nothing to do.
    """
    handlers = {number: signal.getsignal(number) for number in _HELD}
    if threading.current_thread() is not threading.main_thread() or None in handlers.values():
        yield  # a handler that Python does not know cannot be put back
        return
    arrived: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        arrived.append(number)

    try:
        for number in _HELD:
            signal.signal(number, note)
        yield
    finally:
        for held, handler in handlers.items():
            signal.signal(held, handler)
        for one in dict.fromkeys(arrived):
            signal.raise_signal(one)
