"""Bootstrap intervals of many means at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

RESAMPLES, SEED = 2000, 0
ENDS = (2.5, 97.5)  # percentiles
MANY = 2_000_000  # means that are held at once


def intervals(rows: Float64[np.ndarray, "row case"]) -> Float64[np.ndarray, "row 2"]:
    """Return the 95% interval of each row's mean.

    Percentiles of 2 000 bootstrap samples, seed 0; all rows are drawn with the same cases. They are
    those of ``scipy.stats.bootstrap(row, np.mean, method="percentile", rng=0)``, for all rows in
    one product.

    Returns:
        lower and upper end; NaN for fewer than two cases, and where a row has a NaN.
    """
    count, cases = rows.shape
    if cases < 2 or not count:
        return np.full((count, 2), np.nan)
    drawn = np.random.default_rng(SEED).integers(0, cases, (RESAMPLES, cases))
    shares = np.stack([np.bincount(one, minlength=cases) for one in drawn]) / cases
    parts = np.array_split(rows, -(-count * RESAMPLES // MANY))
    return np.concatenate([np.percentile(part @ shares.T, ENDS, axis=1).T for part in parts])
