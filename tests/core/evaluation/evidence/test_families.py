from __future__ import annotations

import numpy as np
import pytest

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.families import (
    HolmLimit,
    holm,
    most_as_good,
    most_tests,
    sets_needed,
    smallest_p,
)


def test_holm_is_the_worked_example():
    # 0.005 * 4; 0.01 * 3; then 0.03 * 2 = 0.06, which 0.04 * 1 may not fall below
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(("given", "expected"), [([0.3], [0.3]), ([0.9, 0.8], [1, 1])])
def test_holm_leaves_one_alone_and_never_passes_1(given, expected):
    assert holm(given).tolist() == expected


@pytest.mark.parametrize("given", [[], [1.2], [-0.1], [np.nan]])
def test_holm_refuses_what_is_no_p(given):
    with pytest.raises(InputError, match="p-values are"):
        holm(given)


@pytest.mark.parametrize("tests", [1, 2, 3, 5, 7])
def test_a_family_needs_twenty_sets_a_test_but_one(tests):
    assert sets_needed(tests) == 20 * tests - 1
    assert tests * smallest_p(sets_needed(tests)) <= 0.05 + 1e-12  # rounding of 1 / 60
    assert most_tests(sets_needed(tests)) == tests
    assert most_tests(sets_needed(tests) - 1) == tests - 1


@pytest.mark.parametrize(
    ("sets", "tests", "expected"), [(99, 1, 4), (99, 5, 0), (99, 6, -1), (19, 1, 0), (59, 3, 0)]
)
def test_so_many_sets_may_be_as_good(sets, tests, expected):
    assert most_as_good(sets, tests=tests) == expected


@pytest.mark.parametrize(
    ("tests", "sets", "possible", "sentence"),
    [
        (
            *(5, 99, True),
            "a family of 5 hypotheses needs p ≤ 0.01 for the first to be kept (Holm); "
            "99 random sets give p = 1/100 at best.",
        ),
        (
            *(5, 19, False),
            "a family of 5 hypotheses needs p ≤ 0.01 for the first to be kept (Holm); "
            "19 random sets give p = 1/20 at best: none can be kept. "
            "R = 99 or more sets are needed, or 1 of them at most.",
        ),
        (
            *(1, 5, False),
            "one hypothesis needs p ≤ 0.05; 5 random sets give p = 1/6 at best: none can be kept. "
            "R = 19 or more sets are needed.",
        ),
    ],
)
def test_a_familys_limit_is_a_sentence(tests, sets, possible, sentence):
    limit = HolmLimit(tests, sets)
    assert (limit.possible, str(limit)) == (possible, sentence)


def test_impossible_families_are_refused():
    with pytest.raises(InputError, match="tests is 0"):
        HolmLimit(0, 99)
    with pytest.raises(InputError, match="alpha is 5"):
        sets_needed(1, 5.0)
