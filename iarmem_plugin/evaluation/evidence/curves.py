"""What a set of neurons costs and what it hides, fraction by fraction, read at any cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One nested set of neurons under one intervention: each fraction contains the smaller ones.

    Attributes:
        fractions: of neurons edited, rising from 0, the unmodified model, to at most 1.
        change: ΔNLL at each fraction, nats a token: the mean held-out loss minus that of the
            unmodified model; 0 at the first. What is read is its running maximum.
        outcome: of each candidate at each fraction, such as its agreement in [0, 1].

    Raises:
        InputError: shapes that do not match, fractions that do not rise from 0, a first change
            other than 0, no candidates, or values that are not finite.
    """

    fractions: Float64[np.ndarray, " point"]
    change: Float64[np.ndarray, " point"]
    outcome: Float64[np.ndarray, "point candidate"]

    def __post_init__(self) -> None:
        """Refuse what is no curve."""
        points, shape = len(self.fractions), self.outcome.shape
        if len(self.change) != points or len(shape) != 2 or shape[0] != points or not shape[1]:
            raise InputError(
                f"a curve has {points} fractions, {len(self.change)} changes and outcomes of shape "
                f"{shape}; expected a change for each fraction, and outcomes (point, candidate)"
            )
        rising = points > 0 and self.fractions[0] == 0 and (np.diff(self.fractions) > 0).all()
        if not rising or self.fractions[-1] > 1 or self.change[0] != 0:
            raise InputError(
                f"a curve has the fractions {self.fractions.tolist()} and begins with the change "
                f"{self.change[:1].tolist()}; expected fractions that rise from 0, the unmodified "
                "model, whose change is 0, to at most 1"
            )
        if not (np.isfinite(self.change).all() and np.isfinite(self.outcome).all()):
            raise InputError("a curve has changes or outcomes that are not finite numbers")

    def read(self, change: float) -> Float64[np.ndarray, " candidate"] | None:
        """Return what this curve's set hides where it costs as much as another edit.

        Args:
            change: ΔNLL of that edit, nats a token. Up to 0 the unmodified model is read; above
                it, the straight line between the first point whose running maximum reaches the
                change and the point before.

        Returns:
            the outcome of each candidate; None where no point reaches the change.

        Example:
            >>> ends = np.array([0.0, 1.0])
            >>> Curve(ends, ends, np.array([[0.9], [0.1]])).read(0.25).round(3).tolist()
            [0.7]
        """
        found: np.ndarray = read(self.change[None], self.outcome[None], change)[0]
        return None if np.isnan(found).any() else found


def stacked(
    curves: Sequence[Curve],
) -> list[tuple[Float64[np.ndarray, "curve point"], Float64[np.ndarray, "curve point candidate"]]]:
    """Return changes and outcomes of several curves, those of the same fractions together.

    Raises:
        InputError: without curves, or where they are not of the same number of candidates.
    """
    sizes = sorted({one.outcome.shape[1] for one in curves})
    if len(sizes) != 1:
        raise InputError(
            f"{len(curves)} curves are of {sizes} candidates; expected at least one curve, and "
            "all of the same candidates"
        )
    alike: dict[tuple[float, ...], list[Curve]] = {}
    for one in curves:
        alike.setdefault(tuple(one.fractions.tolist()), []).append(one)
    return [
        (np.stack([one.change for one in some]), np.stack([one.outcome for one in some]))
        for some in alike.values()
    ]


def spans(curves: Sequence[Curve], change: float) -> dict[str, int]:
    """Count curves by what they are read from, at one ΔNLL.

    Returns:
        ``from_original``: read between the unmodified model and their smallest set, or at the
        unmodified model; ``to_all``: read between a set and all neurons, which are one edit for
        every curve; ``raised``: read from a set that costs less than a smaller one or than the
        unmodified model, and is taken to cost as much as that.

    Example:
        >>> ends = np.array([0.0, 1.0])
        >>> spans([Curve(ends, ends, np.array([[0.9], [0.1]]))], 0.25)
        {'from_original': 1, 'to_all': 1, 'raised': 0}
    """
    found = {"from_original": 0, "to_all": 0, "raised": 0}
    for one in curves:
        highest = np.maximum.accumulate(one.change)
        after = int((highest < change).sum())  # the first point that reaches
        if after < len(highest):
            before = max(after - 1, 0)
            found["from_original"] += after <= 1
            found["to_all"] += int(one.fractions[after] == 1)
            found["raised"] += int(one.change[before] < highest[before])
    return found


def read_last(
    changes: Float64[np.ndarray, "curve point"],
    outcomes: Float64[np.ndarray, "curve point"],
    change: float,
) -> Float64[np.ndarray, " curve"]:
    """Read many curves where they last cost as little, at the largest such set.

    Where cost does not rise with the fraction, a larger set may cost no more than an arm, although
    a smaller one did: the running maximum does not see it. A ΔNLL below 0 is taken as 0, no cost.

    Args:
        changes: ΔNLL of each point, nats a token; 0 at the first.
        outcomes: mean outcome of each point.
        change: the arm's ΔNLL.

    Returns:
        on the straight line between the last point that costs as little and the point after it;
        the last point where no larger set was measured.
    """
    at, rows, points = max(change, 0.0), np.arange(len(changes)), changes.shape[1]
    last = points - 1 - (changes <= at)[:, ::-1].argmax(axis=1)  # the first point costs nothing
    after = np.minimum(last + 1, points - 1)
    left, right = changes[rows, last], changes[rows, after]
    share = np.divide(at - left, right - left, out=np.zeros(len(rows)), where=after > last)
    between = outcomes[rows, after] - outcomes[rows, last]
    return np.asarray(outcomes[rows, last] + share * between)


def read(
    changes: Float64[np.ndarray, "curve point"],
    outcomes: Float64[np.ndarray, "curve point candidate"],
    change: float,
) -> Float64[np.ndarray, "curve candidate"]:
    """Read many curves at one ΔNLL, as `Curve.read` reads one; NaN where one does not reach."""
    if change <= 0:
        return outcomes[:, 0]
    highest, rows = np.maximum.accumulate(changes, axis=1), np.arange(len(changes))
    reaching = highest >= change
    reached, after = reaching.any(axis=1), reaching.argmax(axis=1)  # the first that reaches
    before = np.maximum(after - 1, 0)
    left, right = highest[rows, before], highest[rows, after]
    share = np.divide(change - left, right - left, out=np.full(len(rows), np.nan), where=reached)
    between = outcomes[rows, after] - outcomes[rows, before]
    return np.asarray(outcomes[rows, before] + share[:, None] * between)
