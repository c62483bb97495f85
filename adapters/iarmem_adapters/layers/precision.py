"""Parts of a network that keep their precision under autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def keeps_precision(method: Method) -> Method:
    """Return the method with autocast off inside, on the device of its first argument, a tensor.

    Tokens are choices between near codes: half precision would change a tenth of them.
    """

    @functools.wraps(method)
    def run(owner: object, *args: Any, **named: Any) -> Any:
        first = args[0] if args else next(iter(named.values()))
        with torch.autocast(first.device.type, enabled=False):
            return method(owner, *args, **named)

    return cast(Method, run)
