from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.curves import Curve
from iarmem_plugin.evaluation.evidence.effects import paired_p
from iarmem_plugin.evaluation.evidence.equal import as_good, equal_fraction, equal_quality
from iarmem_plugin.evaluation.evidence.expectations import Expectation
from iarmem_plugin.evaluation.losses import mean_intervals

ENDS = np.array([0.0, 1.0])


def straight(last, change=0.1):
    """Return a curve of two candidates that falls from 1 to `last` where it costs `change`."""
    return Curve(ENDS, np.array([0.0, change]), np.array([[1.0, 1.0], [last, last]]))


def held(curves, outcome=(0.4, 0.6), change=(0.05, 0.05), direction="fewer"):
    return equal_quality(np.array(outcome), np.array(change), curves, direction)


def test_an_arm_is_held_against_readings_at_its_own_cost():
    found = held([straight(0.2), straight(0.6), straight(0.8)])  # read half way: 0.6, 0.8, 0.9
    assert (found.value, found.change, found.sets, found.candidates) == (0.5, 0.05, 3, 2)
    assert found.controls == pytest.approx(2.3 / 3)
    assert found.spread == pytest.approx(np.std([0.6, 0.8, 0.9], ddof=1))
    assert (found.control_low, found.control_high) == pytest.approx((0.6, 0.9))
    assert (found.as_good, found.p, found.p_smooth) == (0, 0.25, 0.25)
    assert (found.from_original, found.to_all, found.raised) == (3, 3, 0)
    assert found.effect == pytest.approx(0.5 - 2.3 / 3)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("fewer", 3), ("more", 3)],  # 0.4 and 0.5, or 0.5 and 0.6, and the one that is not reached
)
def test_ties_and_what_is_not_reached_are_as_good(direction, expected):
    readings = np.array([0.4, 0.1 + 0.2 + 0.2, 0.6, np.nan])
    assert as_good(0.5, readings, direction) == expected


def test_a_curve_that_does_not_reach_counts_as_as_good_and_in_no_mean():
    found = held([*[straight(0.8)] * 9, straight(0.9, change=0.01)])
    assert (found.unreached, found.as_good, found.p) == (1, 1, 2 / 11)
    assert found.controls == pytest.approx(0.9)
    assert found.comparable


def test_more_than_a_tenth_that_do_not_reach_are_not_comparable():
    assert not held([*[straight(0.8)] * 8, straight(0.9, change=0.01)]).comparable


def test_nothing_is_known_where_no_curve_reaches():
    found = held([straight(0.9, change=0.01)] * 4)
    assert (found.unreached, found.p, found.comparable) == (4, 1.0, False)
    unknown = (found.controls, found.spread, found.effect, found.effect_smooth, found.paired_p)
    assert all(map(math.isnan, unknown))


def test_an_arm_that_costs_nothing_is_held_against_the_unmodified_model():
    found = held([straight(0.2)] * 3, change=(-0.01, -0.02))
    assert (found.controls, found.p, found.unreached) == (1.0, 0.25, 0)


def test_p_is_given_at_both_ends_of_what_the_arm_costs():
    # costs 0.05 by mean, and 0 to 0.1 with two pictures: read at 1, and at 0.2 and 0.6
    found = held([straight(0.2), straight(0.6)], change=(0.0, 0.1))
    assert (found.change_low, found.change_high) == (0.0, 0.1)
    assert (found.p_low, found.p, found.p_high) == (1 / 3, 1 / 3, 2 / 3)


def test_the_interval_of_the_cost_is_that_of_the_report():
    change = np.random.default_rng(0).normal(0.05, 0.1, size=60)
    found = held([straight(0.2)] * 2, change=change)
    low, high = mean_intervals(np.stack([np.zeros(60), change]))
    # 1e-12: float64 sums in another order
    assert (found.change_low, found.change_high) == pytest.approx((low[1], high[1]), abs=1e-12)


def test_a_single_picture_or_candidate_has_no_interval():
    curves = [Curve(ENDS, ENDS, np.array([[1.0], [0.2]]))]
    found = held(curves, outcome=(0.5,), change=(0.5,))
    assert math.isnan(found.p_low)
    assert math.isnan(found.effect_high)
    assert found.paired_p == 0.5  # one candidate: both signs


def test_a_hollow_curve_is_read_lower_by_a_smooth_line():
    points = np.array([0.0, 0.1, 0.2, 0.3])
    hollow = Curve(points, points, np.exp(-10 * points)[:, None].repeat(2, axis=1))
    truth = math.exp(-1.5)
    found = held([hollow] * 19, outcome=(truth + 0.01,) * 2, change=(0.15, 0.15))
    assert found.controls > truth + 0.01
    assert found.effect < 0 < found.effect_smooth
    assert (found.p, found.p_smooth, found.judged_p) == (0.05, 1.0, 1.0)


def test_at_an_equal_fraction_the_sets_stand_as_they_are():
    controls = np.array([[0.2, 0.6], [0.8, 0.8], [0.5, 0.5]])
    found = equal_fraction(np.array([0.4, 0.6]), controls, "fewer")
    assert (found.as_good, found.p, found.judged_p) == (2, 0.75, 0.75)
    assert found.effect == pytest.approx(0.5 - 1.7 / 3)
    assert found.comparable


def test_the_effects_interval_holds_the_effect_and_grows_with_the_candidates_spread():
    rng = np.random.default_rng(0)
    near, far = (
        equal_fraction(rng.normal(0.4, size, 80), np.full((5, 80), 0.5), "fewer")
        for size in (0.1, 0.3)
    )
    assert near.effect_low < near.effect < near.effect_high
    # a mean's 95% interval has a width of 2 * 1.96 sd / sqrt(n); 15%: sd of 80 draws, and 2 000
    assert near.effect_high - near.effect_low == pytest.approx(3.92 * 0.1 / 80**0.5, rel=0.15)
    assert far.effect_high - far.effect_low == pytest.approx(3.92 * 0.3 / 80**0.5, rel=0.15)


def test_a_paired_p_of_yes_or_no_against_another_arm_is_mcnemars_one_sided():
    arm = np.array([0.0] * 7 + [1.0] * 2 + [1.0] * 5)
    other = np.array([[1.0] * 7 + [0.0] * 2 + [1.0] * 5])
    # nine changed, two for the worse: of 9 fair coins 2 or fewer, or 2 or more
    assert equal_fraction(arm, other, "fewer").paired_p == pytest.approx(binom.cdf(2, 9, 0.5))
    assert equal_fraction(arm, other, "more").paired_p == pytest.approx(binom.sf(1, 9, 0.5))


def test_an_arm_that_is_its_control_has_no_paired_difference():
    arm = np.array([0.1, 0.2, 0.3])
    assert equal_fraction(arm, np.tile(arm, (3, 1)), "fewer").paired_p == 1.0


def test_a_paired_p_holds_its_level_for_shares_where_wilcoxons_does_not():
    from scipy.stats import wilcoxon

    rng, kept, by_ranks = np.random.default_rng(0), 0, 0
    for _ in range(100):
        difference = (rng.random(100) < 0.1) - 0.1  # each candidate is extracted once in ten sets
        kept += paired_p(difference, "fewer", resamples=200) <= 0.05
        by_ranks += wilcoxon(difference, alternative="less").pvalue <= 0.05
    assert kept <= binom.ppf(0.9995, 100, 0.08)  # skew: up to 8% in place of 5%
    assert by_ranks > 95


def test_everything_is_the_same_again():
    rng = np.random.default_rng(0)
    outcome, change = rng.random(30), rng.normal(0.05, 0.1, 30)
    curves = [Curve(ENDS, ENDS, rng.random((2, 30))) for _ in range(3)]
    first, again, other = (
        equal_quality(outcome, change, curves, "fewer", seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("outcome", "change", "message"),
    [
        ((0.5,), (0.05,), "the arm has 1 candidates and its controls 2"),
        ((0.5, np.nan), (0.05,), "1 of them not finite"),
        ((0.5, 0.5), (), "0 values of change"),
    ],
)
def test_what_cannot_be_paired_is_refused(outcome, change, message):
    with pytest.raises(InputError, match=message):
        held([straight(0.2)], outcome, np.array(change, dtype=float))


def test_sets_are_needed():
    with pytest.raises(InputError, match="0 values of control"):
        equal_fraction(np.array([0.5]), np.empty((0, 1)), "fewer")


def test_curves_whose_cost_falls_again_are_read_where_they_last_cost_as_little():
    """A larger set that costs no more than the arm counts, although a smaller one cost more."""
    fractions, change = np.array([0.0, 0.1, 0.2, 0.4]), np.array([0.0, 0.3, 0.1, 0.5])
    left = np.array([0.9, 0.7, 0.3, 0.1])[:, None].repeat(4, 1)
    curves = [Curve(fractions, change, left)] * 9
    found = equal_quality(np.full(4, 0.5), np.full(5, 0.2), curves, "fewer")
    assert (found.as_good, found.p) == (0, 0.1)  # before it first costs more: 0.77 is left
    assert (found.as_good_last, found.p_last) == (9, 1.0)  # after 20%, between 0.3 and 0.1
    assert found.judged_p == 1.0


def test_an_arm_without_cost_is_held_against_sets_without_cost():
    fractions = np.array([0.0, 0.1, 0.2])
    left = np.array([0.9, 0.7, 0.3])[:, None].repeat(4, 1)
    free, costly = (Curve(fractions, np.array([0.0, 0.1, end]), left) for end in (-0.1, 0.2))
    found = equal_quality(np.full(4, 0.5), np.full(5, -0.01), [free] * 3 + [costly] * 6, "fewer")
    assert (found.as_good, found.p) == (0, 0.1)  # every curve is the unmodified model there
    assert (found.as_good_last, found.p_last) == (3, 0.4)
    assert found.effect == pytest.approx(-0.4)
    assert found.effect_last == pytest.approx(0.5 - (3 * 0.3 + 6 * 0.9) / 9)
    assert found.agrees


def test_an_effect_against_the_original_alone_is_no_effect():
    """Of sets that cost nothing, all hide more than an arm that costs nothing."""
    left = np.array([0.9, 0.7, 0.3])[:, None].repeat(4, 1)
    free = Curve(np.array([0.0, 0.1, 0.2]), np.array([0.0, 0.1, -0.1]), left)
    found = equal_quality(np.full(4, 0.5), np.full(5, -0.01), [free], "fewer")
    assert found.effect < 0 < found.effect_last
    assert not found.agrees
    other = Expectation("agreement", "another arm", "fewer")
    assert other.judged(found, p=0.001).kept is False


def test_where_cost_rises_the_last_is_the_first():
    curves = [straight(0.2), straight(0.4), straight(0.6)]
    found = equal_quality(np.full(2, 0.5), np.full(5, 0.05), curves, "fewer")
    assert (found.as_good_last, found.p_last) == (found.as_good, found.p)
