"""A paired difference over candidates: its interval, and whether it may be none."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float64

Direction = Literal["fewer", "more"]
TIE = 1e-9  # differences below it are none: means are rounded


def interval(
    difference: Float64[np.ndarray, " case"], *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return the 95% interval of a mean paired difference.

    Args:
        difference: of each candidate or picture, drawn with both of its values.
        seed: of the bootstrap.
        resamples: bootstrap samples; 0 for none.

    Returns:
        percentiles; NaN for fewer than two differences, without samples, or where they are not
        known.
    """
    from scipy.stats import bootstrap

    if len(difference) < 2 or not resamples or np.isnan(difference).any():
        return math.nan, math.nan
    found = bootstrap(
        (difference,), np.mean, method="percentile", n_resamples=resamples, rng=seed
    ).confidence_interval
    return float(found.low), float(found.high)


def paired_p(
    difference: Float64[np.ndarray, " case"],
    direction: Direction,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> float:
    """Return how often a mean paired difference as good comes of candidates without any.

    Each candidate's difference keeps its size, and its sign is drawn. All signs are tried where
    they are no more than `resamples`, else as many are drawn. Wilcoxon's ranks are not used: the
    difference of a share from its mean over random sets is never symmetric, and its median is
    below 0 wherever random sets seldom hide a candidate.

    Args:
        difference: of each candidate.
        direction: "fewer" where a negative difference is good, else "more".
        seed: of the signs.
        resamples: signs drawn; 0 for none.

    Returns:
        one-sided, in (0, 1]; NaN where differences are not known, or no signs are drawn. For
        differences of 0, 1 and -1 it is McNemar's exact test, one-sided.
    """
    from scipy.stats import permutation_test

    if not resamples or np.isnan(difference).any():
        return math.nan
    changed = difference[np.abs(difference) > TIE]  # a sign changes nothing of the others
    if not changed.size:
        return 1.0
    found = permutation_test(
        (np.append(changed, 0.0),),  # a single one is refused
        lambda one, axis: one.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        alternative="less" if direction == "fewer" else "greater",
        rng=seed,
    )
    return float(found.pvalue)
