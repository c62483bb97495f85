from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.curves import Curve, read, spans, stacked
from iarmem_plugin.evaluation.evidence.smooth import read_smooth


def curve(change, outcome, fractions=None):
    points = np.array(
        np.linspace(0, 1, len(change)) if fractions is None else fractions, dtype=np.float64
    )
    values = np.array(outcome, dtype=np.float64).reshape(len(points), -1)
    return Curve(points, np.array(change, dtype=np.float64), values)


TWO = curve([0, 0.02, 0.06], [[0.9, 0.5], [0.5, 0.4], [0.1, 0.0]])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (0.01, [0.7, 0.45]),  # half way from the unmodified model
        (0.02, [0.5, 0.4]),  # a point itself
        (0.03, [0.4, 0.3]),  # a quarter of the way
        (0.06, [0.1, 0.0]),  # the last point
    ],
)
def test_a_curve_is_read_on_the_straight_line_between_its_points(change, expected):
    assert TWO.read(change) == pytest.approx(expected, abs=1e-12)  # float64 rounding


@pytest.mark.parametrize("change", [0.0, -0.5])
def test_a_change_that_is_no_damage_reads_the_unmodified_model(change):
    assert TWO.read(change).tolist() == [0.9, 0.5]


def test_a_curve_that_ends_before_is_not_read():
    assert TWO.read(0.0601) is None
    assert curve([0], [0.9]).read(0.001) is None


def test_no_damage_is_read_of_a_curve_that_never_does_any():
    assert curve([0, -0.1], [0.9, 0.5]).read(0.0).tolist() == [0.9]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (0.02, 0.7),  # reached on the way to the first point, 0.04
        (0.04, 0.5),  # the first point that reaches it, not the second, whose maximum is as high
        (0.05, 0.2),  # half way from the second point, 0.3 at the maximum so far, to 0.1 at 0.06
    ],
)
def test_what_is_read_is_the_running_maximum(change, expected):
    falling = curve([0, 0.04, 0.01, 0.06], [0.9, 0.5, 0.3, 0.1])
    assert falling.read(change) == pytest.approx([expected], abs=1e-12)


def test_curves_of_several_lengths_are_read_as_each_alone():
    some = [TWO, curve([0, 0.05], [[0.8, 0.6], [0.2, 0.1]]), curve([0, 0.01], [[1, 1], [0, 0]])]
    found = np.concatenate([read(*group, 0.03) for group in stacked(some)])
    expected = [[0.4, 0.3], [0.44, 0.3], [np.nan, np.nan]]
    assert found == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


def test_a_smooth_reading_of_one_curve_is_scipys_pchip():
    rng = np.random.default_rng(0)
    change, outcome = np.append(0, np.cumsum(rng.random(5) + 0.01)), rng.random(6)
    for at in np.linspace(0.01, change[-1], 7):
        expected = PchipInterpolator(change, outcome)(at).item()
        found = read_smooth(change[None], outcome[None], float(at))
        assert found == pytest.approx([expected], abs=1e-9)


def test_smooth_readings_are_straight_where_the_curves_are_on_average():
    rng = np.random.default_rng(0)
    change = np.array([0, 0.02, 0.06]) * np.array([[0.9], [1.0], [1.1]])
    outcome = 0.9 - 5 * change + rng.normal(size=(3, 1)) * np.array([0, 0.1, 0.1])
    outcome -= np.array([0, 1, 1]) * (outcome.mean(axis=0) - 0.9 + 5 * change.mean(axis=0))
    straight = read(change, outcome[..., None], 0.03)[:, 0]
    assert read_smooth(change, outcome, 0.03) == pytest.approx(straight, abs=1e-9)


def test_smooth_readings_follow_the_bend_that_curves_share():
    change = np.linspace(0, 0.4, 5) * np.array([[0.95], [1.0], [1.05]])
    outcome = np.exp(-5 * change) + np.array([[-0.1], [0.0], [0.1]]) * (change > 0)
    truth = np.exp(-5 * 0.25) + np.array([-0.1, 0.0, 0.1])
    straight = read(change, outcome[..., None], 0.25)[:, 0]
    assert np.abs(read_smooth(change, outcome, 0.25) - truth).max() < 0.003
    assert (straight - truth).min() > 0.006


@pytest.mark.parametrize("change", [-1.0, 0.0])
def test_a_smooth_reading_at_no_damage_is_the_unmodified_model(change):
    assert read_smooth(TWO.change[None], TWO.outcome[None, :, 0], change).tolist() == [0.9]


def test_a_smooth_reading_is_none_where_a_curve_does_not_reach():
    short, long = np.array([[0, 0.01], [0, 0.05]]), np.array([[0.9, 0.8], [0.9, 0.4]])
    assert np.isnan(read_smooth(short, long, 0.05)).tolist() == [True, False]
    assert np.isnan(read_smooth(np.zeros((1, 2)), long[:1], 0.01)).all()  # it never does damage


@pytest.mark.parametrize(
    ("change", "outcome", "fractions", "message"),
    [
        ([0, 0.1], [0.9, 0.5], [0.1, 0.2], "rise from 0"),
        ([0, 0.1], [0.9, 0.5], [0, 0], "rise from 0"),
        ([0, 0.1], [0.9, 0.5], [0, 10], "at most 1"),
        ([0.1, 0.2], [0.9, 0.5], [0, 0.1], "change is 0"),
        ([0, np.nan], [0.9, 0.5], [0, 0.1], "not finite"),
        ([0, 0.1], [0.9, np.inf], [0, 0.1], "not finite"),
        ([0, 0.1], [], [0, 0.1], r"outcomes of shape \(2, 0\)"),
    ],
)
def test_what_is_no_curve_is_refused(change, outcome, fractions, message):
    with pytest.raises(InputError, match=message):
        curve(change, outcome, fractions)


def test_curves_of_other_candidates_are_refused():
    with pytest.raises(InputError, match=r"2 curves are of \[1, 2\] candidates"):
        stacked([TWO, curve([0, 0.1], [0.9, 0.5])])
    with pytest.raises(InputError, match="0 curves"):
        stacked([])


@pytest.mark.parametrize(
    ("costs", "at", "expected"),
    [
        ([0, 0.1, 0.2], 0.05, (1, 0, 0)),  # from the unmodified model
        ([0, 0.1, 0.2], 0.0, (1, 0, 0)),  # at it
        ([0, 0.1, 0.2], 0.15, (0, 1, 0)),  # between a set and all neurons
        ([0, -0.1, 0.2], 0.15, (0, 1, 1)),  # a set that costs less than the unmodified model
        ([0, 0.1, 0.2], 0.3, (0, 0, 0)),  # not reached
    ],
)
def test_curves_are_counted_by_what_they_are_read_from(costs, at, expected):
    found = spans([curve(costs, [0.9, 0.5, 0.1])], at)
    assert tuple(found.values()) == expected
    assert tuple(found) == ("from_original", "to_all", "raised")


def test_a_smooth_reading_stays_between_the_points_that_it_is_read_from():
    costs = [[0, -0.02, 0.0, 0.17], [0, 0.05, 0.1, 0.17], [0, 0.06, 0.12, 0.17]]
    means = np.array([[0.4, 0.2, 0.12, 0.05]] * 3)
    found = read_smooth(np.array(costs), means, 0.11)
    assert found[0] == 0.05  # along the bend it would be below 0
    assert 0.05 < found[1] < 0.12
    assert 0.12 < found[2] < 0.2
