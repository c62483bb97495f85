"""How many candidates were extracted: by arm and group, pooled, and paired with the original."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import xarray as xr

ORIGINAL = "original"
HELD_OUT = "held-out"
CANARY = "canary"


class Paired(NamedTuple):
    """One arm against the original, candidate by candidate.

    Attributes:
        arm: name of the arm.
        before: candidates extracted from the original.
        after: candidates extracted from this arm.
        lost: extracted from the original and no longer.
        gained: not extracted from the original and now extracted.
        p: exact two-sided McNemar p-value.
    """

    arm: str
    before: int
    after: int
    lost: int
    gained: int
    p: float


def groups(extraction: xr.Dataset) -> tuple[str, ...]:
    """Return the groups in reading order: canaries by falling repeats, others, held-out last.

    Args:
        extraction: with the coordinate ``group`` (candidate).
    """
    found = dict.fromkeys(str(name) for name in extraction["group"].values)
    return tuple(sorted(found, key=_reading_order))


def canaries(extraction: xr.Dataset) -> xr.DataArray:
    """Tell which candidates are canaries; without any, all that are not held out.

    Returns:
        bool, dims (candidate).
    """
    names = [str(name) for name in extraction["group"].values]
    mask = np.array([name.startswith(CANARY) for name in names], dtype=bool)
    if not mask.any():
        mask = np.array([name != HELD_OUT for name in names], dtype=bool)
    return xr.DataArray(mask, dims=("candidate",))


def canary_word(extraction: xr.Dataset) -> str:
    """Say what `canaries` picked, in words fit for a sentence."""
    named = any(name.startswith(CANARY) for name in groups(extraction))
    return "canaries" if named else "candidates that were not held out"


def tally(extraction: xr.Dataset) -> xr.Dataset:
    """Count the extracted candidates of every arm and group.

    Args:
        extraction: ``extracted`` with dims (arm, candidate), and ``group`` (candidate).

    Returns:
        dims (arm, group): ``extracted`` and ``candidates`` (int), ``low`` and ``high``, the ends
        of the 95% Wilson interval in [0, 1].
    """
    names = groups(extraction)
    members = np.stack([extraction["group"].values.astype(str) == name for name in names])
    mask = xr.DataArray(members, dims=("group", "candidate"), coords={"group": list(names)})
    return _with_interval(_extracted(extraction), mask)


def tally_canaries(extraction: xr.Dataset) -> xr.Dataset:
    """Count as `tally` does, over all `canaries` together.

    Returns:
        dims (arm): ``extracted``, ``candidates``, ``low``, ``high``.
    """
    return _with_interval(_extracted(extraction), canaries(extraction))


def pair_with_original(extraction: xr.Dataset) -> tuple[Paired, ...]:
    """Compare every arm with the original on the same canaries, by the exact McNemar test."""
    from iarmem_plugin.evaluation.statistics import mcnemar

    extracted = _extracted(extraction).isel(candidate=canaries(extraction).values)
    before = extracted.sel(arm=ORIGINAL).values
    pairs = []
    for name in extracted["arm"].values:
        if name == ORIGINAL:
            continue
        after = extracted.sel(arm=name).values
        lost, gained, p = mcnemar(before, after)
        counts = (int(before.sum()), int(after.sum()), int(lost), int(gained))
        pairs.append(Paired(str(name), *counts, float(p)))
    return tuple(pairs)


def _extracted(extraction: xr.Dataset) -> xr.DataArray:
    # without the coordinate `group`, which would clash with the dimension of that name
    extracted = (
        extraction["extracted"].reset_coords(drop=True).drop_vars("candidate", errors="ignore")
    )
    return extracted.astype(bool).transpose("arm", "candidate")


def _with_interval(extracted: xr.DataArray, mask: xr.DataArray) -> xr.Dataset:
    from iarmem_plugin.evaluation.statistics import wilson

    count = (extracted & mask).sum("candidate")
    candidates = mask.sum("candidate").broadcast_like(count)
    low, high = xr.apply_ufunc(
        np.vectorize(lambda k, n: wilson(int(k), int(n)), otypes=[float, float]),
        count,
        candidates,
        output_core_dims=[[], []],
    )
    return xr.Dataset({"extracted": count, "candidates": candidates, "low": low, "high": high})


def _reading_order(group: str) -> tuple[int, int, str]:
    if group == HELD_OUT:
        return (2, 0, group)
    repeats = re.search(r"[x×](\d+)$", group)
    return (0, -int(repeats[1]), group) if repeats else (1, 0, group)
