"""Curves read along a smooth monotone line, since a straight one lies above a hollow curve."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.evaluation.evidence.curves import bracket


def read_smooth(
    changes: Float64[np.ndarray, "curve point"],
    means: Float64[np.ndarray, "curve point"],
    change: float,
) -> Float64[np.ndarray, " curve"]:
    """Read the mean outcome of many curves at one ΔNLL, by PCHIP in place of straight lines.

    Where a curve's running maximum rises at every point, this is
    `scipy.interpolate.PchipInterpolator`, which takes one curve at a time; where it does not, the
    line is level at both points. Two points are joined by a straight line.

    Returns:
        the outcome, NaN where a curve does not reach the change.

    Reference:
        Fritsch and Butland 1984; Moler 2004, Numerical Computing with MATLAB, 3.4 (the ends).
    """
    if change <= 0:
        return means[:, 0]
    highest = np.maximum.accumulate(changes, axis=1)
    before, after, share = bracket(highest, change)
    rows, slopes = np.arange(len(means)), _slopes(highest, means)
    step = highest[rows, after] - highest[rows, before]
    t, rest = share, 1 - share
    return np.asarray(
        rest**2 * (1 + 2 * t) * means[rows, before]
        + t**2 * (1 + 2 * rest) * means[rows, after]
        + step * t * rest * (rest * slopes[rows, before] - t * slopes[rows, after])
    )


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slope at each point, dims (curve, point)."""
    step = np.diff(x, axis=1)
    rise = np.divide(np.diff(y, axis=1), step, out=np.zeros_like(step), where=step > 0)
    if step.shape[1] < 2:
        return np.repeat(rise, 2, axis=1)
    one, two, left, right = rise[:, :-1], rise[:, 1:], step[:, :-1], step[:, 1:]
    below = (2 * right + left) * two + (right + 2 * left) * one
    inner = np.divide(
        *(3 * (left + right) * one * two, below), out=np.zeros_like(one), where=one * two > 0
    )
    first = _end(step[:, 0], step[:, 1], rise[:, 0], rise[:, 1])
    last = _end(step[:, -1], step[:, -2], rise[:, -1], rise[:, -2])
    return np.column_stack([first, inner, last])


def _end(
    step: np.ndarray, inner: np.ndarray, rise: np.ndarray, next_rise: np.ndarray
) -> np.ndarray:
    """Return the slope at an end: of the parabola through three points, kept monotone."""
    both = step + inner
    parabola = (both + step) * rise - step * next_rise
    slope = np.divide(parabola, both, out=np.zeros_like(step), where=both > 0)
    bent = (rise * next_rise <= 0) & (np.abs(slope) > 3 * np.abs(rise))
    return np.where(slope * rise <= 0, 0, np.where(bent, 3 * rise, slope))
