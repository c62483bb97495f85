"""Read random curves where they cost as much as an edit; for ``recompute_evidence.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

UNREACHED = 0.1  # share of the curves that may end before
Point = tuple[float, float, np.ndarray]  # fraction, ΔNLL, outcome of each candidate
Number = Any  # a number, or None where it is not known


def read(curve: Sequence[Point], change: float) -> np.ndarray | None:
    """Return what a curve leaves where it costs as much; None where it ends before."""
    if change <= 0:
        return curve[0][2]
    highest = np.maximum.accumulate([cost for _, cost, _ in curve])
    for place in range(1, len(curve)):
        if highest[place] >= change:
            share = (change - highest[place - 1]) / (highest[place] - highest[place - 1])
            left, right = curve[place - 1][2], curve[place][2]
            between: np.ndarray = left + share * (right - left)
            return between
    return None


def read_last(curve: Sequence[Point], change: float) -> float:
    """Return the mean that a curve leaves where it last costs as little."""
    cost = max(change, 0.0)
    place = max(number for number, point in enumerate(curve) if point[1] <= cost)
    left, value = curve[place][1], float(curve[place][2].mean())
    if place + 1 == len(curve):
        return value
    share = (cost - left) / (curve[place + 1][1] - left)
    return value + share * (float(curve[place + 1][2].mean()) - value)


def spans(curves: Sequence[Sequence[Point]], change: float) -> dict[str, Number]:
    """Count the curves read from the original, towards all neurons, and from a raised set."""
    made: dict[str, Number] = {"from_original": 0, "to_all": 0, "raised": 0}
    for curve in curves:
        costs = [cost for _, cost, _ in curve]
        after = next((n for n in range(len(curve)) if max(costs[: n + 1]) >= change), None)
        if after is not None:
            before = max(after - 1, 0)
            now = (after <= 1, curve[after][0] == 1, costs[before] < max(costs[: before + 1]))
            made = {name: (made[name] or 0) + one for name, one in zip(made, now, strict=True)}
    return made


def read_smooth(curves: Sequence[Sequence[Point]], change: float) -> list[float | None]:
    """Return the mean that each curve leaves there, along the bend that the curves share.

    Of curves of the same fractions, a smooth monotone line (PCHIP) through their mean, straight
    beyond its end, and on straight lines how far the curve is from it; a reading stays between the
    two points that it is read from.
    """
    groups: dict[tuple[float, ...], list[Sequence[Point]]] = {}
    for curve in curves:
        groups.setdefault(tuple(point[0] for point in curve), []).append(curve)
    found: list[float | None] = []
    for alike in groups.values():
        costs = np.array([[cost for _, cost, _ in one] for one in alike])
        left = np.array([[outcome.mean() for _, _, outcome in one] for one in alike])
        highest = np.maximum.accumulate(costs, axis=1)
        shared = shared_line(highest.mean(axis=0), left.mean(axis=0))
        apart, begin = left - shared(highest), len(found)
        for cost, off in zip(highest, apart, strict=True):
            points = [(0.0, float(at), np.array([one])) for at, one in zip(cost, off, strict=True)]
            away = read(points, change)
            at = float(shared(np.array([max(change, 0.0)]))[0])
            after = int(np.argmax(cost >= change))
            ends = sorted(left[len(found) - begin, [max(after - 1, 0), after]].tolist())
            found.append(None if away is None else min(max(at + float(away[0]), ends[0]), ends[1]))
    return found


def shared_line(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the line through the points at which x rises."""
    rises = np.diff(x, prepend=-1.0) > 0
    x, y = x[rises], y[rises]
    if len(x) < 2:
        return lambda at: np.full(at.shape, y[0])
    line = PchipInterpolator(x, y)
    return lambda at: np.where(
        at <= x[-1], line(np.minimum(at, x[-1])), y[-1] + line.derivative()(x[-1]) * (at - x[-1])
    )


def bracketing(curves: Sequence[list[Point]], change: float) -> list[list[Point]]:
    """Return the curves that have both fractions between which a cost lies on average.

    If more than a tenth of them end before it, those that go on to the next fraction.
    """
    by_fraction: dict[float, list[float]] = {}
    for curve in curves:
        for fraction, cost, _ in curve[1:]:
            by_fraction.setdefault(fraction, []).append(cost)
    fractions = sorted(by_fraction)
    mean = np.maximum.accumulate([np.mean(by_fraction[one]) for one in fractions])
    after = min(int((mean < change).sum()), len(fractions) - 1)
    needed, kept = set(fractions[max(after - 1, 0) : after + 1]), list(curves)
    for farther in fractions[after:]:
        wanted = needed | {farther}
        kept = [one for one in curves if wanted <= {point[0] for point in one}] or kept
        ended = [max(point[1] for point in one[1:]) < change for one in kept]
        if sum(ended) <= UNREACHED * len(kept):
            break
    return kept
