"""How well a signal tells members from others: the area under the ROC curve, and a low rate."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.statistics import clopper_pearson, smallest_threshold

RATE = 0.01  # of false positives
ENOUGH = 300  # pictures a side, for a rate of 1%
Z = 1.959963984540054  # the normal quantile of a 95% interval


class Area(NamedTuple):
    """An area under the ROC curve, or a change of one, with its 95% interval.

    Attributes:
        value: chance that a member's signal is above another picture's, ties by half, in [0, 1]; or
            the change of that, in [-1, 1].
        low: lower end; NaN where no interval is known: a side has one picture, or nothing varies,
            as where every member is above every other picture.
        high: upper end; likewise.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return all three, or say that there is no interval."""
        ends = f"[{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f} {'(no interval)' if math.isnan(self.low) else ends}"


class Caught(NamedTuple):
    """How many members lie above what at most 1% of the others do.

    Attributes:
        found: members strictly above that threshold.
        members: members tried.
        low: lower end of the share's exact 95% interval, the threshold taken as given.
        high: upper end; likewise.
    """

    found: int
    members: int
    low: float
    high: float

    def __str__(self) -> str:
        """Return the share with its interval."""
        share = self.found / self.members
        return f"{share:.1%} [{self.low:.1%}, {self.high:.1%}]"


Sides = tuple[np.ndarray, np.ndarray]  # members and others


def area(members: Float64[np.ndarray, " member"], others: Float64[np.ndarray, " other"]) -> Area:
    """Return the area under the ROC curve with DeLong's 95% interval, clipped to [0, 1].

    Args:
        members: signals of members, at least one, finite.
        others: signals of pictures that are none, likewise.

    Raises:
        InputError: a side is empty, or has signals that are not finite.

    Reference:
        DeLong, DeLong and Clarke-Pearson 1988; placements by midranks: Sun and Xu 2014.

    >>> area(np.array([0.4, 0.8, 0.9]), np.array([0.1, 0.5, 0.2])).value
    0.8888888888888888
    """
    placed = _placements(members, others)
    return _with_interval(float(placed[0].mean()), placed, (0.0, 1.0))


def area_change(before: Sides, after: Sides) -> Area:
    """Return the change of the area on the same pictures, with DeLong's paired 95% interval.

    Args:
        before: signals of members and of others, by the unmodified model.
        after: signals of the same pictures, in the same order, by another.

    Raises:
        InputError: a side is empty, has another number of pictures, or signals that are not finite.

    Reference:
        DeLong, DeLong and Clarke-Pearson 1988 (correlated curves).
    """
    if [len(side) for side in before] != [len(side) for side in after]:
        raise InputError(
            f"signals of {len(before[0])} and {len(before[1])} pictures were given before, and of "
            f"{len(after[0])} and {len(after[1])} after; give those of the same pictures"
        )
    first, second = _placements(*before), _placements(*after)
    apart = (second[0] - first[0], second[1] - first[1])
    return _with_interval(float(apart[0].mean()), apart, (-1.0, 1.0))


def caught(
    members: Float64[np.ndarray, " member"], others: Float64[np.ndarray, " other"]
) -> Caught | None:
    """Return the true positives at 1% false ones; None where a side has fewer than 300 pictures.

    The threshold is the smallest one above which at most 1% of the others lie.

    Raises:
        InputError: signals are not finite.
    """
    if min(len(members), len(others)) < ENOUGH:
        return None
    _check(members, others)
    threshold = smallest_threshold("membership", others, RATE).value
    found = int(np.count_nonzero(members > threshold))
    return Caught(found, len(members), *clopper_pearson(found, len(members)))


def _placements(members: np.ndarray, others: np.ndarray) -> Sides:
    """Return of each member the share of others below it, of each other that of members above."""
    from scipy.stats import rankdata

    _check(members, others)
    ranks = rankdata(np.concatenate((members, others)))
    below = (ranks[: len(members)] - rankdata(members)) / len(others)
    above = 1 - (ranks[len(members) :] - rankdata(others)) / len(members)
    return below, above


def _with_interval(value: float, placed: Sides, bounds: tuple[float, float]) -> Area:
    if min(map(len, placed)) < 2:
        return Area(value, math.nan, math.nan)
    error = math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in placed))
    if error == 0:
        return Area(value, math.nan, math.nan)
    low, high = (value + sign * Z * error for sign in (-1, 1))
    return Area(value, max(low, bounds[0]), min(high, bounds[1]))


def _check(members: np.ndarray, others: np.ndarray) -> None:
    for side, name in ((members, "members"), (others, "others")):
        if len(side) == 0 or not np.isfinite(side).all():
            raise InputError(
                f"the signals of {len(side)} {name} were given, "
                f"{np.count_nonzero(~np.isfinite(side))} of them not finite; give the signals of "
                "at least one picture a side"
            )
