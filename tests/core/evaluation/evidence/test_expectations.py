from __future__ import annotations

import numpy as np
import pytest

from iarmem_plugin import Expectation, equal_fraction, equal_quality
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.curves import Curve

ENDS = np.array([0.0, 1.0])


def at_equal_quality(value, sets=19, change=0.5):
    curves = [Curve(ENDS, ENDS, np.array([[1.0] * 8, [0.6] * 8]))] * sets
    return equal_quality(np.full(8, value), np.array([change, change]), curves, "fewer")


PRIMARY = Expectation("agreement", "random", "fewer")


@pytest.mark.parametrize(
    ("value", "change", "kept", "sentence"),
    [
        (0.7, 0.5, True, "kept: p = 0.05 ≤ 0.05, effect -0.1"),
        (0.9, 0.5, False, "broken: p = 1 > 0.05, effect +0.1"),
        (0.1, 1.5, None, "not comparable"),
    ],
)
def test_an_expectation_is_kept_broken_or_not_comparable(value, change, kept, sentence):
    judgement = PRIMARY.judged(at_equal_quality(value, change=change))
    assert (judgement.kept, str(judgement)) == (kept, sentence)


def test_one_of_a_family_is_judged_by_its_adjusted_p():
    found = at_equal_quality(0.7)
    assert PRIMARY.judged(found, p=0.1).word == "broken"
    assert PRIMARY.judged(found, p=3 * (1 / 60)).word == "kept"


def test_random_sets_are_ranked_and_another_arm_is_paired():
    found = equal_fraction(np.zeros(8), np.full((1, 8), 0.5), "fewer")
    assert Expectation("loss", "random", "fewer", "equal fraction").p_of(found) == 0.5
    other = Expectation("loss", "lowest UnitMem", "fewer", "equal fraction")
    assert other.p_of(found) == 2**-8  # all eight signs
    assert other.judged(found).kept


@pytest.mark.parametrize(
    ("expectation", "sentence"),
    [
        (PRIMARY, "leaves less of the completed tokens right than random neurons at equal ΔNLL"),
        (
            Expectation("extracted", "lowest", "more", "equal fraction"),
            "leaves more candidates extracted than 'lowest' at equal fraction",
        ),
        (
            Expectation("loss", "random-matched", "more"),
            "leaves the candidates' loss higher than random neurons that are as active at equal "
            "ΔNLL",
        ),
    ],
)
def test_an_expectation_is_a_sentence(expectation, sentence):
    assert str(expectation) == sentence


def test_what_was_compared_otherwise_is_not_judged():
    found = at_equal_quality(0.7)
    with pytest.raises(InputError, match='"more" at equal quality was expected'):
        Expectation("agreement", "random", "more").judged(found)
    with pytest.raises(InputError, match='"fewer" at equal fraction was expected'):
        Expectation("agreement", "random", "fewer", "equal fraction").judged(found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"outcome": "fid"}, "outcome of an expectation is 'fid'; expected \"agreement\" or"),
        ({"direction": "less"}, "direction of an expectation is 'less'"),
        ({"at": "equal loss"}, 'expected "equal quality" or "equal fraction"'),
        ({"against": " "}, "against of an expectation is ' '"),
    ],
)
def test_what_cannot_be_expected_is_refused(changed, message):
    given = {"outcome": "agreement", "against": "random", "direction": "fewer"} | changed
    plain = object.__new__(Expectation)  # past the types, as a plan's table is read
    for name, value in ({"at": "equal quality"} | given).items():
        object.__setattr__(plain, name, value)
    with pytest.raises(InputError, match=message):
        plain.__post_init__()
