"""Rounding of activations to fewer mantissa bits, so that they compress better."""

from __future__ import annotations

import numpy as np

from iarmem_plugin.errors import InputError

MANTISSA = 23  # bits of a float32


def check_keep_bits(keep_bits: int | None) -> None:
    """Refuse a number of bits that a float32 does not have.

    Raises:
        InputError: unless it is None or in 1..23.
    """
    if keep_bits is not None and not 1 <= keep_bits <= MANTISSA:
        raise InputError(f"keep_bits is {keep_bits}; a float32 has 1 to {MANTISSA} to keep")


def round_mantissa(values: np.ndarray, keep_bits: int | None) -> np.ndarray:
    """Round to the nearest value with few mantissa bits, ties to even.

    Args:
        values: float32 of any shape, finite.
        keep_bits: of the 23; 13 halve the disk and move UnitMem by 3e-5 at most. None changes
            nothing and copies nothing.

    Returns:
        float32, within 2**-(keep_bits + 1) of the given ones, relatively.

    >>> round_mantissa(np.array([1.0, 1.3, -1.3], np.float32), 2)
    array([ 1.  ,  1.25, -1.25], dtype=float32)
    """
    if keep_bits is None or keep_bits == MANTISSA:
        return values
    dropped = MANTISSA - keep_bits
    bits = np.ascontiguousarray(values).view(np.uint32)
    odd = (bits >> np.uint32(dropped)) & np.uint32(1)
    odd += np.uint32((1 << (dropped - 1)) - 1)
    odd += bits
    odd &= np.uint32(0xFFFFFFFF ^ ((1 << dropped) - 1))
    return odd.view(np.float32)
