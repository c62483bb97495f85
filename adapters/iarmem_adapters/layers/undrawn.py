"""Networks whose weights are not drawn: names and shapes alone, on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

DRAWS = frozenset(
    {
        Tensor.normal_,
        Tensor.uniform_,
        init.normal_,
        init.uniform_,
        init.trunc_normal_,
        init.kaiming_uniform_,
        init.xavier_uniform_,
    }
)


class _Undrawn(TorchFunctionMode):
    """Leaves out what draws weights."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        given = named or {}
        if function in DRAWS:
            return arguments[0] if arguments else given["tensor"]
        return function(*arguments, **given)


@contextmanager
def undrawn() -> Iterator[None]:
    """Build networks on the meta device, without drawing their weights.

    A tensor there has no values to draw, and torch would import its compiler for it: 2 s.
    """
    with torch.device("meta"), _Undrawn():
        yield
