"""Areas under the ROC curve, against all pairs and DeLong's sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.membership.areas import area, area_change, caught
from iarmem_plugin.evaluation.statistics import clopper_pearson

Z = 1.959963984540054


def kernel(member: float, other: float) -> float:
    return 0.5 if member == other else float(member > other)


def sides(*, seed: int = 0, members: int = 12, others: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """Signals with ties, since they are rounded."""
    random = np.random.default_rng(seed)
    return random.normal(0.7, 1, members).round(1), random.normal(0, 1, others).round(1)


def pairs(members: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.array([[kernel(one, other) for other in others] for one in members])


def variance(pairs: np.ndarray) -> float:
    """DeLong's: the variance of each side's placements, by its number of pictures."""
    parts = pairs.mean(1), pairs.mean(0)
    means = [sum((x - part.mean()) ** 2 for x in part) / (len(part) - 1) for part in parts]
    return sum(mean / len(part) for mean, part in zip(means, parts, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_an_area_is_the_share_of_pairs_and_its_interval_delongs(seed: int) -> None:
    members, others = sides(seed=seed)
    expected = pairs(members, others)
    found = area(members, others)
    error = math.sqrt(variance(expected))
    assert found.value == pytest.approx(expected.mean(), abs=1e-12)
    assert found.low == pytest.approx(max(0, expected.mean() - Z * error), abs=1e-12)
    assert found.high == pytest.approx(min(1, expected.mean() + Z * error), abs=1e-12)


def test_a_change_is_paired() -> None:
    before, after = sides(seed=1), sides(seed=2)
    apart = pairs(*after) - pairs(*before)
    found = area_change(before, after)
    error = math.sqrt(variance(apart))
    expected = [apart.mean() + sign * Z * error for sign in (0, -1, 1)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_an_interval_of_95_percent_covers_the_area_as_often() -> None:
    random, true = np.random.default_rng(0), 0.7602  # Φ(1 / √2), of normals one deviation apart
    drawn = [area(random.normal(1, 1, 60), random.normal(0, 1, 80)) for _ in range(400)]
    covered = np.mean([one.low <= true <= one.high for one in drawn])
    assert 0.92 < covered < 0.98


@pytest.mark.parametrize(
    ("members", "others", "value"),
    [
        ([3.0], [1.0, 2.0], 1.0),  # one picture
        ([1.0, 2.0], [1.5], 0.5),
        ([3.0, 4.0], [1.0, 2.0], 1.0),  # every pair alike: no variance
        ([1.0, 2.0], [3.0, 4.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0], 0.5),
    ],
)
def test_no_interval_is_made_up(members: list[float], others: list[float], value: float) -> None:
    found = area(np.array(members), np.array(others))
    assert found.value == value
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert str(found) == f"{value:.2f} (no interval)"


def test_an_interval_stays_between_0_and_1() -> None:
    found = area(np.array([1.0, 2, 3, 9]), np.array([0.0, 0, 0, 2.5]))
    assert found.high == 1
    assert 0 <= found.low < found.value
    assert str(found) == f"0.88 [{found.low:.2f}, 1.00]"


def test_true_positives_are_counted_above_what_one_in_a_hundred_others_passes() -> None:
    others = np.arange(300.0)  # three may lie above 296
    members = np.concatenate((np.full(40, 296.0), np.full(20, 296.5), np.zeros(240)))
    found = caught(members, others)
    assert found is not None
    assert (found.found, found.members) == (20, 300)
    # the exact interval, as quantiles of beta distributions
    ends = beta.ppf(0.025, 20, 281), beta.ppf(0.975, 21, 280)
    np.testing.assert_allclose((found.low, found.high), ends, rtol=1e-9)
    assert str(found) == "6.7% [4.1%, 10.1%]"


@pytest.mark.parametrize("fewer", [0, 1])
def test_too_few_pictures_tell_nothing_about_one_percent(fewer: int) -> None:
    both = [np.arange(300.0), np.arange(300.0)]
    both[fewer] = both[fewer][1:]
    assert caught(*both) is None


def test_an_exact_interval_of_nothing_ends_where_it_should() -> None:
    low, high = clopper_pearson(0, 20)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 20))


@pytest.mark.parametrize("broken", [[], [1.0, np.nan], [np.inf]])
def test_signals_that_are_none_are_refused(broken: list[float]) -> None:
    some = np.array([1.0, 2.0])
    with pytest.raises(InputError, match=rf"signals of {len(broken)} members were given"):
        area(np.array(broken), some)
    with pytest.raises(InputError, match=rf"signals of {len(broken)} others were given"):
        area(some, np.array(broken))


def test_a_change_of_other_pictures_is_refused() -> None:
    some, more = np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="of 2 and 3 pictures were given before, and of 3 and 3"):
        area_change((some, more), (more, more))
