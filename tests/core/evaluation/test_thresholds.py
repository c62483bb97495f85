"""How sure a threshold is: the interval covers the quantile of all pictures, whatever its n."""

from __future__ import annotations

import numpy as np
import pytest

from iarmem_plugin.evaluation.statistics import Threshold, smallest_threshold


@pytest.mark.parametrize("rate", [0.01, 0.1])
@pytest.mark.parametrize("count", [20, 100, 300, 1000])
def test_the_interval_covers_the_quantile_of_all_values(count: int, rate: float) -> None:
    """Of 1 000 draws of uniform values, 95% or more; four standard errors below are allowed."""
    random = np.random.default_rng(count)
    drawn = (smallest_threshold("x", random.random(count), rate) for _ in range(1000))
    covered = [
        (one.low is None or one.low <= 1 - rate) and (one.high is None or 1 - rate <= one.high)
        for one in drawn
    ]
    assert np.mean(covered) >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / 1000)


def test_ends_are_values_counted_by_hand() -> None:
    # of 1000 values Binomial(1000, 0.01) lie above the quantile: 4 to 17 in 95% of all draws
    found = smallest_threshold("x", np.arange(1000.0), 0.01)
    assert found == Threshold(989, 982, 996)
    assert str(found) == "95% interval of the threshold: 982.000 to 996.000"


@pytest.mark.parametrize(
    ("values", "rate", "said"),
    [
        (np.arange(300.0), 0.01, "95% interval of the threshold: 292.000 or higher"),
        (np.arange(3.0), 0.9, "95% interval of the threshold: 2.000 or lower"),
        (np.arange(1.0), 0.5, "too few for a 95% interval of the threshold"),
    ],
)
def test_what_few_values_leave_open_is_said(values: np.ndarray, rate: float, said: str) -> None:
    assert str(smallest_threshold("x", values, rate)) == said
