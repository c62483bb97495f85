"""How many pictures are recovered by each budget, at a threshold of its own for each.

A picture is recovered by a budget if an attempt within it, or within a smaller one, lies above the
threshold of that budget. Thresholds are fixed on pictures never seen, with the same budgets and in
the same arm, all at once: so many standard deviations above the mean of these pictures that no
more than the stated share of them is recovered by any budget. Without that, each further budget
would raise false alarms.

Reference: the median is Kaplan and Meier's (1958).
"""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from iarmem_plugin.errors import InputError

OUTCOMES = {"extracted": "similarity", "recognisable": "agreement"}
"""What is counted, and what it is read from."""
SMALLEST = 1e-6  # a standard deviation, where all pictures have one value


def thresholds(
    values: Float[np.ndarray, "budget picture"], rate: float
) -> Float[np.ndarray, " budget"]:
    """Return the thresholds that keep false alarms, by any budget, within a share.

    Each is the mean of its budget plus z standard deviations; z is the smallest at which
    floor(rate * n) pictures are above a threshold.

    Args:
        values: of pictures never seen, finite.
        rate: the share, in [0, 1).

    Raises:
        InputError: no pictures, or another rate.

    Example:
        >>> thresholds(np.array([[0.0, 1.0, 2.0, 9.0], [0.0, 0.0, 0.0, 4.0]]), 0.25).round(3)
        array([2.  , 0.51])
    """
    if not values.size:
        raise InputError("no pictures to fix thresholds on; give some that were never seen")
    if not 0 <= rate < 1:
        raise InputError(f"the rate of false alarms is {rate}; expected 0 or more, and below 1")
    means, spread = values.mean(axis=1), np.maximum(values.std(axis=1), SMALLEST)
    apart = (values - means[:, None]) / spread[:, None]
    highest = np.sort(apart.max(axis=0))[::-1]
    place = math.floor(rate * values.shape[1] + 1e-9)
    limits: np.ndarray = means + (highest[place] + 1e-9) * spread  # rounding lifts none above
    return limits


def recovered(
    values: Float[np.ndarray, "budget picture"], limits: Float[np.ndarray, " budget"]
) -> Bool[np.ndarray, "budget picture"]:
    """Tell which pictures are recovered by each budget: at it, or at a smaller one."""
    above = values.astype(float) > limits[:, None]
    found: np.ndarray = np.logical_or.accumulate(above, axis=0)
    return found


def median_budget(by: Bool[np.ndarray, "budget picture"], budgets: np.ndarray) -> int | None:
    """Return the smallest budget by which half of the pictures are recovered; None: not reached.

    Kaplan and Meier's median, where what is not recovered is censored at the largest budget.

    Args:
        by: which pictures are recovered by each budget.
        budgets: the budgets, rising.
    """
    from scipy.stats import CensoredData, ecdf

    if not by.shape[1]:
        return None
    known = budgets[by[:, by[-1]].argmax(axis=0)] if by[-1].any() else np.array([], int)
    late = np.full(int((~by[-1]).sum()), budgets[-1])
    remaining = ecdf(CensoredData(uncensored=known, right=late)).sf
    reached = remaining.quantiles[remaining.probabilities <= 0.5 + 1e-12]  # half
    return int(reached[0]) if len(reached) else None


def with_recovered(attempts: xr.Dataset, *, rate: float = 0.01) -> xr.Dataset:
    """Say of each attempt whether the picture is recovered by its budget.

    Args:
        attempts: from `TriggerProtocol.attempted`, with or without a dim (arm).
        rate: share of pictures never seen that may be recovered by any budget of a trigger.

    Returns:
        the same with ``extracted`` and ``recognisable``, bool, and ``extracted_threshold`` and
        ``recognisable_threshold``, dims (attempt), of each arm.

    Raises:
        InputError: values that are not finite.
    """
    if "arm" in attempts.dims:
        every = (attempts.isel(arm=place, drop=True) for place in range(attempts.sizes["arm"]))
        return xr.concat([with_recovered(one, rate=rate) for one in every], attempts["arm"])
    calibrates = attempts["calibrates"].to_numpy().astype(bool)
    judged: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for outcome, read in OUTCOMES.items():
        values = attempts[read].transpose("attempt", "candidate").to_numpy().astype(float)
        if not np.isfinite(values).all():
            raise InputError(
                f"the {read} of some attempts is not finite, as where a trigger was not tried in "
                "every arm; judge arms with other triggers apart"
            )
        limits, flags = np.empty(len(values)), np.empty(values.shape, bool)
        for trigger in dict.fromkeys(attempts["trigger"].to_numpy().tolist()):
            rows = attempts["trigger"].to_numpy() == trigger
            limits[rows] = thresholds(values[rows][:, calibrates], rate)
            flags[rows] = recovered(values[rows], limits[rows])
        judged[outcome] = (("attempt", "candidate"), flags)
        judged[f"{outcome}_threshold"] = (("attempt",), limits)
    return attempts.assign(judged).assign_attrs(rate=rate)
