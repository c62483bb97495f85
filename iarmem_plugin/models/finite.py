"""NaN and infinity among weights, found before they can change a number."""

from __future__ import annotations

import math

from torch import Tensor, nn

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown


def is_finite(tensor: Tensor, *, mask: bool = False) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity; one pass, and no memory of its own.

    Args:
        tensor: numbers of any type; those that are not floating-point are finite.
        mask: whether it may be a mask of attention, in which -inf hides.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
        return True
    low, high = (float(one) for one in tensor.detach().aminmax())  # NaN is passed on
    return math.isfinite(high) and (math.isfinite(low) or (mask and low == -math.inf))


def check_finite(module: nn.Module, what: str) -> None:
    """Refuse a module with NaN or infinity among its weights and buffers.

    Args:
        module: any module; a buffer may hold -inf, as masks do.
        what: name of the module in messages.

    Raises:
        InputError: the first weight that holds some is named.
    """
    wrong = [name for name, weight in module.named_parameters() if not is_finite(weight)]
    wrong += [name for name, one in module.named_buffers() if not is_finite(one, mask=True)]
    if wrong:
        more = f", and {len(wrong) - 1} more do" if len(wrong) > 1 else ""
        raise InputError(
            f"{what} cannot be used: its weight {shown(wrong[0], 80)!r} holds NaN or infinity"
            f"{more}; load sound weights, and in float32 where they come from float16"
        )
