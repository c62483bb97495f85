"""Tensor annotations that cost no import of torch and are still checked at run time.

A name imported only under ``TYPE_CHECKING`` would switch the shape checks off without a word,
and importing torch would cost a second in modules that merely describe it.
``Tensor`` is therefore torch's own class to a type checker, and at run time a class whose
instances are exactly torch's tensors.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
else:

    class _IsTorchTensor(type):
        def __instancecheck__(cls, value: object) -> bool:
            torch = sys.modules.get("torch")  # no tensor can exist before torch is loaded
            return torch is not None and isinstance(value, torch.Tensor)

    class Tensor(metaclass=_IsTorchTensor):
        """Stand-in for ``torch.Tensor`` in annotations."""


__all__ = ["Tensor"]
