from __future__ import annotations

import math

import numpy as np
import pytest

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.statistics import control_p_value, mcnemar, wilson


@pytest.mark.parametrize(
    ("extracted", "low", "high"),
    # percent of 5000, as published beside the paper's counts, rounded to the digits given
    [(672, 12.5, 14.4), (110, 1.83, 2.64), (75, 1.20, 1.88), (26, 0.36, 0.76), (13, 0.15, 0.44)],
)
def test_wilson_gives_the_intervals_known_for_the_papers_counts(extracted, low, high):
    digits = 1 if low > 10 else 2
    assert tuple(round(100 * end, digits) for end in wilson(extracted, 5000)) == (low, high)


def test_wilson_equals_its_formula():
    z, k, n = 1.959963984540054, 11, 12  # z: the 97.5% quantile of the normal distribution
    share, shrunk = k / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrunk
    half = z / shrunk * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # 1e-12: float64 rounding of a dozen operations
    assert wilson(k, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize("extracted", [0, 12])
def test_wilson_stays_inside_the_unit_interval(extracted):
    low, high = wilson(extracted, 12)
    assert 0 <= low < high <= 1


def test_a_higher_confidence_widens_the_interval():
    assert wilson(5, 12, 0.99)[0] < wilson(5, 12, 0.95)[0]


@pytest.mark.parametrize(("extracted", "candidates"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(extracted, candidates):
    with pytest.raises(InputError, match=f"{extracted} of {candidates}"):
        wilson(extracted, candidates)


def test_wilson_refuses_a_confidence_in_percent():
    with pytest.raises(InputError, match="95"):
        wilson(1, 2, 95.0)


def paired(lost, gained, kept=3, never=4):
    before = [True] * (lost + kept) + [False] * (gained + never)
    after = [False] * lost + [True] * (kept + gained) + [False] * never
    return before, after


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    # 2 * sum_{i<=min} C(n, i) / 2**n by hand: 2/2**7; 2*(1+10+45+120)/2**10; 2*(1+5)/2**5
    [(7, 0, 2 / 128), (3, 7, 2 * 176 / 1024), (1, 4, 12 / 32), (5, 5, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_is_the_exact_two_sided_binomial_test(lost, gained, p_value):
    # 1e-12: float64 rounding
    assert mcnemar(*paired(lost, gained)) == pytest.approx((lost, gained, p_value), abs=1e-12)


def test_mcnemar_ignores_candidates_that_did_not_change():
    few, many = paired(6, 1, kept=0, never=0), paired(6, 1, kept=50, never=70)
    assert mcnemar(*few) == mcnemar(*many)


def test_mcnemar_takes_arrays():
    before, after = map(np.array, paired(2, 1))
    assert mcnemar(before, after)[:2] == (2, 1)


def test_mcnemar_refuses_different_candidates():
    with pytest.raises(InputError, match="same candidates"):
        mcnemar([True, False], [True])


@pytest.mark.parametrize(
    ("observed", "controls", "p_value"),
    [(3, [9, 10, 11, 10, 9], 1 / 6), (9, [9, 10, 11, 10, 9], 3 / 6), (12, [9, 10], 1.0)],
)
def test_random_controls_that_did_as_well_raise_the_p_value(observed, controls, p_value):
    assert control_p_value(observed, controls) == pytest.approx(p_value, abs=1e-15)


def test_a_p_value_needs_a_control():
    with pytest.raises(InputError, match="no random sets"):
        control_p_value(3, [])
