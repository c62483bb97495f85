"""Curves read along the bend that they share, since a straight line lies above a hollow curve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.evaluation.evidence.curves import read


def read_smooth(
    changes: Float64[np.ndarray, "curve point"],
    means: Float64[np.ndarray, "curve point"],
    change: float,
) -> Float64[np.ndarray, " curve"]:
    """Read the mean outcome of curves of the same fractions at one ΔNLL.

    A smooth monotone line (PCHIP) is drawn through the mean of the curves; each curve's distance
    from it is then read on straight lines, as `Curve.read` reads outcomes. So readings bend as the
    curves do on average, and are no noisier than straight ones. A reading stays between the two
    points of its curve that it is read from: where curves differ much in ΔNLL it would else fall
    below what any set leaves, even below 0.

    Args:
        changes: ΔNLL at each point, 0 at the first; the running maximum is what is read.
        means: mean outcome at each point.
        change: where they are read; up to 0 at the unmodified model.

    Returns:
        NaN where a curve does not reach the change.

    Reference:
        Fritsch and Butland 1984 (`scipy.interpolate.PchipInterpolator`).
    """
    highest = np.maximum.accumulate(changes, axis=1)
    shared = _line(highest.mean(axis=0), means.mean(axis=0))
    apart = read(highest, (means - shared(highest))[..., None], change)
    low, high = _ends(highest, means, change)
    return np.asarray(np.clip(shared(np.array(max(change, 0.0))) + apart[:, 0], low, high))


def _ends(
    highest: np.ndarray, means: np.ndarray, change: float
) -> tuple[Float64[np.ndarray, " curve"], Float64[np.ndarray, " curve"]]:
    """Return the lower and the higher of the two points between which each curve is read."""
    rows = np.arange(len(highest))
    after = (highest >= change).argmax(axis=1)  # the first that reaches
    ends = means[rows, np.maximum(after - 1, 0)], means[rows, after]
    return np.minimum(*ends), np.maximum(*ends)


def _line(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a monotone line through the points at which x rises, straight beyond the last."""
    from scipy.interpolate import PchipInterpolator

    rises = np.concatenate([[True], np.diff(x) > 0])
    known, end = (x[rises], y[rises]), x[rises][-1]
    if rises.sum() < 2:
        return lambda at: np.full(at.shape, y[0])
    inner = PchipInterpolator(*known)
    slope = inner(end, 1)
    return lambda at: np.asarray(inner(np.minimum(at, end)) + slope * np.maximum(at - end, 0))
