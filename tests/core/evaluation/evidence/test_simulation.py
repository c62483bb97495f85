"""1 000 simulated studies a test: the primary test rejects at its level, and at its power."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from iarmem_plugin import Expectation, equal_quality

from .studies import Study, rejected, shown_by

STUDIES = 1000
LEAST, MOST = binom.ppf([0.0005, 0.9995], STUDIES, 0.05) / STUDIES  # 0.029 and 0.075


NEAR_NORMAL = Study(hollow=False, steady=True, apart=0.04)  # as the printed power takes it
STRAIGHT, HOLLOW = Study(hollow=False), Study()


@cache
def outcomes(study: Study, seed: int = 0) -> np.ndarray:
    return study.tested(STUDIES, seed)


def shares(study: Study, seed: int = 0) -> tuple[float, float, float]:
    return rejected(outcomes(study, seed))


@pytest.mark.parametrize("study", [NEAR_NORMAL, STRAIGHT, HOLLOW], ids=["normal", "line", "hollow"])
def test_without_an_effect_the_primary_test_rejects_at_its_level(study):
    *_, judged = shares(study)
    assert LEAST <= judged <= MOST


def test_straight_lines_alone_would_reject_too_often_where_outcomes_are_hollow():
    straight, *_ = shares(HOLLOW)
    assert straight > 2 * 0.05


def test_the_printed_smallest_difference_is_shown_with_the_printed_power():
    better = shown_by(outcomes(NEAR_NORMAL))
    *_, judged = shares(replace(NEAR_NORMAL, better=better), seed=1)
    low, high = binom.ppf([0.0005, 0.9995], STUDIES, 0.8) / STUDIES
    assert low <= judged <= high


def test_curves_that_end_early_make_the_test_conservative():
    *_, judged = shares(replace(HOLLOW, arm=0.17))
    assert judged < LEAST


@pytest.mark.parametrize("seed", range(3))
def test_a_whole_study_has_the_p_values_of_the_simulated_one(seed):
    outcome, change, curves, expected = Study(candidates=20, pictures=30).whole(seed)
    found = equal_quality(outcome, change, curves, "fewer", resamples=50)
    assert (found.p, found.p_smooth, found.p_last) == expected
    assert Expectation("agreement", "random", "fewer").p_of(found) == max(expected)
    assert np.isfinite([found.effect_low, found.effect_high, found.p_low, found.p_high]).all()
