from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm, ttest_1samp

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.power import (
    paired_power,
    rank_power,
    smallest_difference,
)


def within(share: float, expected: float, number: int) -> bool:
    """Tell whether a share of many trials lies in the 99.9% range of an expected one."""
    low, high = binom.ppf([0.0005, 0.9995], number, expected) / number
    return bool(low <= share <= high)


@pytest.mark.parametrize("sets", [19, 50, 99])
def test_without_a_difference_the_rank_shows_one_at_its_level(sets):
    level = int(0.05 * (sets + 1)) / (sets + 1)
    assert rank_power(0.0, sets) == pytest.approx(level, abs=1e-9)  # of the integral


def test_with_one_set_the_rank_is_a_normal_comparison():
    # at α = 0.5 one set must be worse: z - d < z', of variance 2
    assert rank_power(1.0, 1, alpha=0.5) == pytest.approx(norm.cdf(1 / 2**0.5), abs=1e-9)


def test_the_ranks_power_is_that_of_drawn_studies():
    rng = np.random.default_rng(0)
    arms, controls = rng.normal(size=4000) - 2.0, rng.normal(size=(4000, 99))
    kept = ((controls <= arms[:, None]).sum(axis=1) <= 4).mean()
    assert within(kept, rank_power(2.0, 99), 4000)


def test_curves_that_do_not_reach_cost_power_until_none_is_left():
    powers = [rank_power(2.5, 99, unreached=unreached) for unreached in (0, 2, 4, 5)]
    assert powers == sorted(powers, reverse=True)
    assert powers[-1] == 0 < powers[-2]


def test_the_paired_power_is_that_of_drawn_studies():
    drawn = np.random.default_rng(0).normal(0.12, 0.5, size=(4000, 100))
    kept = (ttest_1samp(drawn, 0, axis=1, alternative="greater").pvalue <= 0.05).mean()
    assert within(kept, paired_power(0.12, 100), 4000)


def test_the_smallest_difference_has_the_power_it_is_printed_with():
    found = smallest_difference(144, 99, spread=0.02, tests=5, power=0.9)
    assert rank_power(found.ranked, 99, tests=5) == pytest.approx(0.9, abs=1e-6)
    assert paired_power(found.paired, 144, alpha=0.01) == pytest.approx(0.9, abs=1e-6)


def test_many_candidates_show_what_the_normal_distribution_says():
    # (z(0.95) + z(0.8)) * 0.5 / sqrt(n), to which t comes close
    expected = (norm.ppf(0.95) + norm.ppf(0.8)) * 0.5 / 100
    assert smallest_difference(10_000, 99).paired == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("sets", "tests", "spread", "part"),
    [
        (99, 1, None, "At α = 0.05, with power 0.8, the rank among 99 random sets shows 2.54 "),
        (99, 5, None, "At α = 0.05 / 5, with"),
        (99, 1, 0.02, "(0.0509 at 0.02 each)"),
        (19, 2, 0.02, "shows no difference at all, p being 1/20 at best"),
        (99, 1, None, "over 144 candidates, given the random sets, shows a mean difference of 0.1"),
    ],
)
def test_it_is_printed_as_a_sentence(sets, tests, spread, part):
    assert part in str(smallest_difference(144, sets, tests=tests, spread=spread))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidates": 1}, "candidates is 1"),
        ({"sets": 0}, "sets is 0"),
        ({"tests": 0}, "tests is 0"),
        ({"alpha": 5.0}, "alpha is 5"),
        ({"power": 1.0}, "power is 1"),
        ({"spread": 0.0}, "spread is 0"),
        ({"deviation": float("nan")}, "deviation is nan"),
    ],
)
def test_impossible_numbers_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        smallest_difference(**({"candidates": 10, "sets": 99} | changed))
