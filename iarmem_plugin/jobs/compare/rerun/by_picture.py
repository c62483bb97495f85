"""What differs between two reports of one plan in what was measured of each picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from iarmem_plugin.report.report import Report
from iarmem_plugin.text import shown

TOLERANCE = 1e-6
"""Numbers that differ by this or less are alike: other machines round differently."""
_BY_CANDIDATE = ("similarity", "equal_tokens", "agreement", "loss", "plain_loss")


@dataclass(frozen=True, slots=True)
class Difference:
    """Numbers of one kind that differ in an arm.

    Attributes:
        arm: name of the arm.
        what: the number that differs most, such as ``"extraction, canary 40, extracted"``.
        numbers: how many numbers of the kind differ.
        old: that number in the report; None where there is none.
        new: the same now.
        largest: their difference; None where one of them is missing.
    """

    arm: str
    what: str
    numbers: int
    old: float | None
    new: float | None
    largest: float | None


def candidates_differ(old: xr.Dataset, new: xr.Dataset) -> str | None:
    """Say in what the candidates differ; None where they are the same."""
    if old.sizes["candidate"] != new.sizes["candidate"]:
        return f"candidates: {old.sizes['candidate']} in the report, {new.sizes['candidate']} again"
    for name in ("image", "group"):
        if (old[name].to_numpy() != new[name].to_numpy()).any():
            return "candidates: as many, but others"
    return None


def of_candidates(name: str, old: xr.Dataset, new: xr.Dataset) -> Iterator[Difference]:
    """Yield what differs in an arm's completions and losses of the same candidates."""
    for what in _BY_CANDIDATE:
        if what not in old or what not in new:
            continue
        before, after = (one[what].sel(arm=name) for one in (old, new))
        if before.ndim != 1:
            continue
        places = [shown(str(path), 60) for path in old["path"].to_numpy()]
        yield from _apart(name, what, before, after, places)


def of_further(name: str, old: Report, new: Report) -> Iterator[Difference]:
    """Yield what differs in an arm's recovery, membership and depth, where a report has them."""
    for part in ("recovery", "membership", "depth"):
        before, after = (_of_arm(name, getattr(one, part)) for one in (old, new))
        if before is None and after is None:
            continue
        if before is None or after is None:
            side = "missing in the report" if before is None else "missing now"
            yield Difference(name, f"{part}: {side}", 1, None, None, None)
            continue
        if not _of_the_same(before, after):
            yield Difference(name, f"{part}: of other pictures or attempts", 1, None, None, None)
            continue
        for what in [one for one in before if one in after]:
            told = f"{part}, {what}"
            yield from _apart(name, told, before[what], after[what])


def _of_the_same(before: xr.Dataset, after: xr.Dataset) -> bool:
    """Tell whether both are of the same pictures, tried by the same triggers and budgets."""
    return dict(before.sizes) == dict(after.sizes) and all(
        np.array_equal(before[name], after[name])
        for name in ("image", "trigger", "budget")
        if name in before.coords
    )


def _of_arm(name: str, found: xr.Dataset | None) -> xr.Dataset | None:
    """Return the numbers of an arm; None where it was not measured."""
    if found is None or name not in found["arm"]:
        return None
    numbers = [one for one in found if "arm" in found[one].dims and found[one].dtype.kind in "biuf"]
    return found[numbers].sel(arm=name)


def _apart(
    name: str, what: str, before: xr.DataArray, after: xr.DataArray, places: list[str] | None = None
) -> Iterator[Difference]:
    """Yield at most one difference: how many values are apart, and the two furthest."""
    old, new = (one.to_numpy().astype(float) for one in (before, after))
    with np.errstate(invalid="ignore"):  # infinite thresholds of both are alike
        apart = np.nan_to_num(np.abs(old - new), nan=0.0, posinf=np.inf)
    apart[np.isnan(old) != np.isnan(new)] = np.inf
    if not (apart > TOLERANCE).any():
        return
    most = np.unravel_index(int(apart.argmax()), apart.shape)
    where = f" of {places[most[0]]}" if places else ""
    ends = (_finite(old[most]), _finite(new[most]), _finite(apart[most]))
    yield Difference(name, f"{what}{where}", int((apart > TOLERANCE).sum()), *ends)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
