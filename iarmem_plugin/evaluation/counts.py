"""How many candidates were extracted: by arm and group, pooled, and paired with the original."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool

from iarmem_plugin.evaluation.statistics import mcnemar, wilson
from iarmem_plugin.interfaces.organism import reading_order

ORIGINAL = "original"  # the arm of the unmodified model
TWIN = "twin"  # the arm of a model that was trained alike without the canaries
HELD_OUT = "held-out"  # the group of pictures that the model never saw
GENERATED = "generated"  # the group of the model's own free generations
EXTRACTED, RECOGNISABLE = "extracted", "recognisable"  # the two outcomes
ANEW = "recalibrated_"  # begins the names of what counts at thresholds that an arm fixed itself


class PairedCounts(NamedTuple):
    """One arm against the original, candidate by candidate.

    Attributes:
        arm: name of the arm.
        before: candidates extracted from the original.
        after: candidates extracted from this arm.
        lost: candidates extracted from the original and no longer.
        gained: candidates not extracted from the original and now extracted.
        p: exact two-sided McNemar p-value.
    """

    arm: str
    before: int
    after: int
    lost: int
    gained: int
    p: float


def outcomes(extraction: xr.Dataset) -> tuple[str, ...]:
    """Return the outcomes that were judged: extracted, and recognisable where it was."""
    return tuple(name for name in (EXTRACTED, RECOGNISABLE) if name in extraction)


def groups(extraction: xr.Dataset) -> tuple[str, ...]:
    """Return the groups in reading order: by falling exposures, then by name, held-out ones last.

    Args:
        extraction: completions with the coordinates ``group`` and ``role``, dims (candidate).
    """
    names, roles = (extraction[name].values.astype(str).tolist() for name in ("group", "role"))
    found = dict(zip(names, roles, strict=True))
    return tuple(sorted(found, key=lambda name: reading_order(name, found[name])))


def canaries(extraction: xr.Dataset) -> xr.DataArray:
    """Tell which candidates are canaries; without any, all but held-out and generated ones.

    Returns:
        bool, dims (candidate).
    """
    return xr.DataArray(tested(extraction["role"].values.astype(str)), dims="candidate")


def tested(roles: np.ndarray) -> Bool[np.ndarray, " candidate"]:
    """Tell of which candidates' roles `canaries` are."""
    canary = roles == "canary"
    return canary if canary.any() else ~np.isin(roles, (HELD_OUT, GENERATED))


def canary_word(extraction: xr.Dataset) -> str:
    """Say what `canaries` picked, in words fit for a sentence."""
    if having_role(extraction, "canary").any():
        return "canaries"
    generated = " or generated" if having_role(extraction, GENERATED).any() else ""
    return f"candidates that were not held out{generated}"


def having_role(extraction: xr.Dataset, role: str) -> xr.DataArray:
    """Tell which candidates have a role.

    Returns:
        bool, dims (candidate).
    """
    return xr.DataArray(extraction["role"].values == role, dims="candidate")


def count_extracted(
    extraction: xr.Dataset, among: xr.DataArray | None = None, *, outcome: str = EXTRACTED
) -> xr.Dataset:
    """Count the extracted candidates, or those of another outcome, with 95% Wilson intervals.

    Args:
        extraction: ``extracted`` with the dim (candidate), and (arm) where there are several arms;
            ``group`` and ``role`` with the dim (candidate).
        among: bool, with the dim (candidate): which candidates are counted together; by default
            those of each group, with the dim (group) in the order of `groups`.
        outcome: ``"extracted"`` or ``"recognisable"``, where that was judged.

    Returns:
        the dims of `extraction` and `among` but (candidate): ``extracted`` and ``candidates``
        (int), ``low`` and ``high``, the ends of the interval in [0, 1].

    Raises:
        InputError: `among` has no candidates.
    """
    extracted = _counted(extraction, outcome)
    mask = _by_group(extraction) if among is None else among
    count = (extracted & mask).sum("candidate")
    candidates = mask.sum("candidate").broadcast_like(count)
    low, high = xr.apply_ufunc(
        np.vectorize(lambda k, n: _interval(int(k), int(n)), otypes=[float, float]),
        count,
        candidates,
        output_core_dims=[[], []],
    )
    return xr.Dataset({"extracted": count, "candidates": candidates, "low": low, "high": high})


@lru_cache(maxsize=10_000)  # hundreds of arms share a few counts
def _interval(count: int, candidates: int) -> tuple[float, float]:
    return wilson(count, candidates)


def count_anew(extraction: xr.Dataset, *, outcome: str = EXTRACTED) -> xr.Dataset | None:
    """Count an outcome by group in the arms that fixed a threshold anew, at this threshold.

    Args:
        extraction: with what `mitigate` adds where it is given a recalibration.
        outcome: one of `outcomes`.

    Returns:
        as `count_extracted`, of these arms alone, dims (arm, group), and with dims (arm):
        ``threshold``, and the ends of its 95% interval, ``threshold_low`` and ``threshold_high``,
        NaN where they are not known; None where no arm fixed one.
    """
    if f"{ANEW}threshold" not in extraction:
        return None
    mine = extraction.sel(outcome=outcome, drop=True)
    mine = mine.isel(arm=np.flatnonzero(mine[f"{ANEW}threshold"].notnull()))
    return count_extracted(mine, outcome=f"{ANEW}{outcome}").assign(
        threshold=mine[f"{ANEW}threshold"],
        threshold_low=mine[f"{ANEW}low"],
        threshold_high=mine[f"{ANEW}high"],
    )


def pair_with_original(
    extraction: xr.Dataset, *, outcome: str = EXTRACTED
) -> tuple[PairedCounts, ...]:
    """Compare every arm with the original on the same canaries, by the exact McNemar test."""
    extracted = _counted(extraction, outcome).isel(candidate=canaries(extraction).values)
    before = extracted.sel(arm=ORIGINAL).values
    pairs = []
    for name in extracted["arm"].values:
        if name == ORIGINAL:
            continue
        after = extracted.sel(arm=name).values
        lost, gained, p = mcnemar(before, after)
        counts = (int(before.sum()), int(after.sum()), int(lost), int(gained))
        pairs.append(PairedCounts(str(name), *counts, float(p)))
    return tuple(pairs)


def _by_group(extraction: xr.Dataset) -> xr.DataArray:
    names = groups(extraction)
    members = np.stack([extraction["group"].values.astype(str) == name for name in names])
    return xr.DataArray(members, dims=("group", "candidate"), coords={"group": list(names)})


def _counted(extraction: xr.Dataset, outcome: str) -> xr.DataArray:
    # without the coordinate `group`, which would clash with the dimension of that name
    extracted = extraction[outcome].reset_coords(drop=True)
    return extracted.drop_vars("candidate", errors="ignore").astype(bool)
