"""Thresholds that hold for all budgets at once, and the budget that half of the pictures take."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.recovery.budgets import checked_budgets
from iarmem_plugin.evaluation.recovery.curves import (
    median_budget,
    recovered,
    thresholds,
    with_recovered,
)


def by(*first: int | None, budgets: int) -> np.ndarray:
    """Return which pictures are recovered by each budget, from the first that recovers each."""
    return np.array(
        [[one is not None and place >= one for one in first] for place in range(budgets)], bool
    ).reshape(budgets, len(first))


def test_thresholds_are_as_many_deviations_above_each_budgets_mean() -> None:
    """Of 0, 0, 0, 4 the mean is 1 and the deviation √3, so 4 is √3 deviations above."""
    values = np.array([[0.0, 0, 0, 4], [10.0, 10, 10, 14]])
    np.testing.assert_allclose(thresholds(values, 0.0), [4, 14])
    np.testing.assert_allclose(thresholds(values, 0.25), [0, 10], atol=1e-6)  # 4 may be above
    np.testing.assert_allclose(thresholds(values, 0.24), [4, 14])


def test_each_budget_raises_the_bar_of_the_others() -> None:
    """The picture that stands out at the second budget is a false alarm of the first's, too."""
    first, second = [0.0, 1, 2, 3], [0.0, 0, 100, 0]
    alone = thresholds(np.array([first]), 0.0)
    together = thresholds(np.array([first, second]), 0.0)
    assert together[0] > alone[0]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.25])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_no_more_than_the_stated_share_is_recovered_by_any_budget(rate: float, size: float) -> None:
    random = np.random.default_rng(0)
    for count in (1, 3, 20, 101):
        values = (random.standard_normal((4, count)).astype(np.float32) + 5).astype(float) * size
        values[1] = values[1].round()  # ties
        found = recovered(values, thresholds(values, rate))
        assert found[-1].sum() <= np.floor(rate * count + 1e-9)


def test_pictures_that_are_all_alike_are_not_recovered() -> None:
    values = np.full((2, 30), np.float32(0.3), float)
    assert not recovered(values, thresholds(values, 0.01)).any()


def test_what_a_smaller_budget_recovers_stays_recovered() -> None:
    values = np.array([[0.9, 0.1, 0.5], [0.2, 0.9, 0.5]])
    found = recovered(values, np.array([0.5, 0.6]))
    assert found.tolist() == [[True, False, False], [True, True, False]]


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="rate of false alarms"):
        thresholds(np.zeros((1, 3)), rate)


def test_thresholds_need_pictures() -> None:
    with pytest.raises(InputError, match="never seen"):
        thresholds(np.zeros((2, 0)), 0.01)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ((0, 0, 1, 2), 0),  # half by the first budget
        ((0, 1, 1, None), 5),
        ((0, 2, None, None), 40),  # half by the last
        ((0, None, None), None),  # fewer than half
        ((None, None), None),
        ((1,), 5),
        ((), None),
    ],
)
def test_the_median_budget_is_kaplan_and_meiers(
    first: tuple[int | None, ...], expected: int | None
) -> None:
    assert median_budget(by(*first, budgets=3), np.array([0, 5, 40])) == expected


def attempts(values: np.ndarray, calibrates: np.ndarray) -> xr.Dataset:
    """Return attempts of two triggers with two budgets each."""
    return xr.Dataset(
        dict.fromkeys(("similarity", "agreement"), (("attempt", "candidate"), values)),
        coords={
            "trigger": ("attempt", ["a", "a", "b", "b"]),
            "calibrates": ("candidate", calibrates),
        },
    )


def test_triggers_and_arms_have_thresholds_of_their_own() -> None:
    random = np.random.default_rng(1)
    values, calibrates = random.random((4, 30)), np.arange(30) >= 10
    two = xr.concat([attempts(values * size, calibrates) for size in (1, 7)], "arm")
    judged = with_recovered(two.assign_coords(arm=["original", "edited"]), rate=0.1)
    own = [thresholds(values[rows][:, calibrates], 0.1) for rows in (slice(0, 2), slice(2, 4))]
    for outcome in ("extracted", "recognisable"):
        limits = judged[f"{outcome}_threshold"].transpose("arm", "attempt").to_numpy()
        np.testing.assert_allclose(limits[0], np.concatenate(own))
        np.testing.assert_allclose(limits[1], 7 * np.concatenate(own))
        flags = judged[outcome].transpose("arm", "attempt", "candidate").to_numpy()
        assert np.array_equal(flags[0, :2], recovered(values[:2], own[0]))
        assert np.array_equal(flags[0], flags[1])
    assert judged.attrs["rate"] == 0.1


@pytest.mark.parametrize("budgets", [(), (1, 1), (5, 1), (-1, 2), (0, 1)])
def test_budgets_rise_from_the_least(budgets: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="budget"):
        checked_budgets(budgets, least=1)


def test_attempts_that_are_not_finite_are_refused() -> None:
    attempts = xr.Dataset(
        {
            "similarity": (("attempt", "candidate"), np.array([[0.1, np.nan]])),
            "agreement": (("attempt", "candidate"), np.array([[0.1, 0.2]])),
        },
        coords={
            "trigger": ("attempt", np.array(["one"])),
            "calibrates": ("candidate", np.array([True, False])),
        },
    )
    with pytest.raises(InputError, match="the similarity of some attempts is not finite"):
        with_recovered(attempts)
