"""Thresholds fixed anew on every edited model, beside those that all arms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.checks import check_kind, check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import ANEW, EXTRACTED, ORIGINAL, RECOGNISABLE, outcomes
from iarmem_plugin.evaluation.recognition import Recognition, agreement
from iarmem_plugin.evaluation.statistics import smallest_threshold

COMPLETED = ("similarity", "equal_tokens", "agreement")


@dataclass(frozen=True, slots=True, repr=False)
class Recalibration:
    """On what thresholds are fixed anew in each arm, beside those that all arms share.

    An edit that makes every completion alike, or none, moves the rate of false alarms; a threshold
    fixed on the edited model has the rate that the shared one has on the unmodified model.

    Attributes:
        candidates: pictures that the model was not trained on and that are not reported, such as
            those that fixed the shared thresholds.
        rate: share of them that may lie strictly above, in [0, 1).
        arms: names of the arms in which thresholds are fixed anew; None fixes them in all.

    Raises:
        InputError: there are no candidates, or a rate outside [0, 1).
    """

    candidates: Candidates
    rate: float = 0.01
    arms: frozenset[str] | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        check_kind("the candidates of a recalibration", self.candidates, Candidates, "Candidates")
        check_number("the rate of a recalibration", self.rate)
        if not 0 <= self.rate < 1 or not len(self.candidates):
            raise InputError(
                f"a recalibration was given {len(self.candidates)} candidates and the rate "
                f"{self.rate}; give at least one, and a rate in [0, 1)"
            )

    def __repr__(self) -> str:
        """Return the number of pictures in place of them."""
        return f"Recalibration({len(self.candidates)} pictures, rate={self.rate:g})"

    def covers(self, arm: str) -> bool:
        """Tell whether thresholds are fixed anew in an arm."""
        return self.arms is None or arm in self.arms


def completed_before(
    recognition: Recognition | None, again: Recalibration, made: Mapping[str, Any]
) -> xr.Dataset | None:
    """Return the completions that fixed the shared thresholds, where they are of these pictures.

    Args:
        recognition: holds them, where they fixed it.
        again: names the pictures.
        made: how they must have been made: attributes by name, ``prefix_tokens`` among them.

    Returns:
        as `Attack.recalibrated`; None where they are of other pictures, or made otherwise.
    """
    found = None if recognition is None else recognition.completions
    if found is None or any(found.attrs.get(name) != one for name, one in made.items()):
        return None
    prefix_tokens = made["prefix_tokens"]
    images = again.candidates.images
    same = (
        np.array_equal(found["image"], images.ids) and tuple(found["path"].values) == images.paths
    )
    completed = (found["equal_tokens"] - prefix_tokens).astype(np.float64)
    right = completed / (found.attrs["tokens"] - prefix_tokens)
    return found.assign(agreement=right.reset_coords(drop=True)) if same else None


def judged_anew(
    extraction: xr.Dataset, completions: Mapping[str, xr.Dataset], rate: float
) -> xr.Dataset:
    """Return an extraction with what counts at thresholds fixed anew.

    Args:
        extraction: joined, dims (arm, candidate, token); it may be left without new thresholds.
        completions: of pictures that are not reported, by the names of the arms that made them:
            ``similarity`` and ``agreement``, dims (candidate).
        rate: share of them that may lie strictly above, in [0, 1).

    Returns:
        the extraction with ``recalibrated_threshold``, and the ends of its 95% interval,
        ``recalibrated_low`` and ``recalibrated_high``, float64, dims (arm, outcome), NaN where an
        arm is left out or an end is not known; and ``recalibrated_extracted`` and, where that was
        judged, ``recalibrated_recognisable``, bool, dims (arm, candidate), False where an arm is
        left out.
    """
    if not completions:
        return extraction
    found, arms = outcomes(extraction), extraction["arm"].values.astype(str).tolist()
    limits = np.full((3, len(arms), len(found)), np.nan)
    for place, arm in enumerate(arms):
        for column, outcome in enumerate(found):
            if arm in completions:
                values = completions[arm][_measured(outcome)].to_numpy()
                limits[:, place, column] = smallest_threshold(outcome, values, rate)
    given = {
        f"{ANEW}{name}": (("arm", "outcome"), one)
        for name, one in zip(("threshold", "low", "high"), limits, strict=True)
    }
    fixed = extraction.assign(given).assign_coords(outcome=list(found))
    # float64: a threshold rounded to float32 would count differently when read from a file
    measured = {EXTRACTED: extraction["similarity"].astype(np.float64)}
    if RECOGNISABLE in found:
        measured[RECOGNISABLE] = agreement(extraction)
    return fixed.assign(
        {
            f"{ANEW}{outcome}": one.reset_coords(drop=True)
            > fixed[f"{ANEW}threshold"].sel(outcome=outcome, drop=True)
            for outcome, one in measured.items()
        }
    ).assign_attrs({f"{ANEW}images": _pictures(completions), f"{ANEW}rate": rate})


def kept_completions(
    fixed: xr.Dataset | None, completions: Mapping[str, xr.Dataset]
) -> xr.Dataset | None:
    """Return what thresholds were fixed on, in all arms: what ``calibration.nc`` holds.

    Args:
        fixed: completions by the unmodified model that fixed the shared thresholds; None where
            they were given.
        completions: by the names of the arms in which thresholds were fixed anew.

    Returns:
        `fixed` with ``recalibrated_similarity`` and ``recalibrated_equal_tokens``, dims
        (arm, recalibrated), and ``recalibrated_image`` and ``_path`` of the pictures; None where
        there is neither.
    """
    if not completions:
        return fixed
    names = xr.DataArray(list(completions), dims="arm", name="arm")
    both = xr.concat([one[list(COMPLETED[:2])] for one in completions.values()], names)
    both = both.drop_vars(["group", "role", "label"]).rename({"candidate": ANEW[:-1]})
    both = both.rename({name: f"{ANEW}{name}" for name in ("image", "path", *COMPLETED[:2])})
    return both if fixed is None else fixed.merge(both, combine_attrs="override")


def _measured(outcome: str) -> str:
    return "similarity" if outcome == EXTRACTED else "agreement"


def _pictures(completions: Mapping[str, xr.Dataset]) -> int:
    first = completions.get(ORIGINAL, next(iter(completions.values())))
    return first.sizes["candidate"]
