"""Dataset inference on simulated signals: what is there is found, and seldom what is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.membership.inference import (
    DatasetInference,
    _median_p,
    _weights,
    dataset_inference,
)


def drawn(random: np.random.Generator, pictures: int, shift: float = 0.0) -> np.ndarray:
    """Three signals, two of which say much the same, in units of their own."""
    common, own = random.normal(size=(pictures, 1)), random.normal(size=(pictures, 3))
    return (own + common * [1, 1, 0] + shift) * [1, 10, 0.1] + [-3, 5, 0]


def test_sets_without_a_difference_are_seldom_found() -> None:
    random = np.random.default_rng(0)
    made = [
        dataset_inference(drawn(random, 30), drawn(random, 40), seed=seed, draws=50)
        for seed in range(400)
    ]
    p = np.array([one.p for one in made if one is not None])
    assert np.mean([one is not None and one.smallest is not None for one in made]) <= 0.03
    # uniform where some weight is above 0, which of three signals without a difference most have
    assert abs(np.mean(p[p < 1] < 0.5) - 0.5) < 0.08
    assert abs(np.mean(p[p < 1] < 0.1) - 0.1) < 0.05
    assert 0.05 < np.mean(p == 1) < 0.5


def test_a_shifted_set_is_found_with_the_fewer_the_larger_the_shift() -> None:
    found = []
    for shift in (0.5, 1.0, 2.0):
        random = np.random.default_rng(1)
        one = dataset_inference(drawn(random, 200, shift), drawn(random, 200))
        assert one is not None
        assert one.smallest is not None
        found.append(one.smallest)
    assert found == sorted(found, reverse=True)
    assert 2 <= found[-1] < found[0] <= 100


def test_other_pictures_that_are_the_more_member_like_are_no_finding() -> None:
    random = np.random.default_rng(2)
    tested = random.normal(size=(40, 1)), random.normal(3, 1, (40, 1))
    p = _median_p(tested[0][:, 0], tested[1][:, 0], 5, random)
    assert p[-1] > 0.99


def test_the_p_of_all_is_welchs_and_of_a_subset_the_median() -> None:
    random = np.random.default_rng(3)
    members, others = random.normal(0.5, 2, 9), random.normal(0, 1, 14)
    options = {"equal_var": False, "alternative": "greater"}
    found = _median_p(members, others, 31, np.random.default_rng(4))
    assert found.shape == (8,)
    whole = ttest_ind(members, others, **options).pvalue
    assert found[-1] == pytest.approx(whole, rel=1e-9)
    orders = np.random.default_rng(4).permuted(np.tile(members, (31, 1)), axis=1)
    subsets = [ttest_ind(order[:4], others, **options).pvalue for order in orders]
    assert found[2] == pytest.approx(np.median(subsets), rel=1e-9)


def test_the_weights_are_those_of_linear_discriminant_analysis() -> None:
    random = np.random.default_rng(5)
    members, others = random.normal(0.7, 1, (50, 3)) * [1, 10, 0.1], random.normal(size=(80, 3))
    within = np.cov(members.T) * 49 + np.cov(others.T) * 79
    expected = np.linalg.solve(within, members.mean(0) - others.mean(0))
    assert (expected > 0).all()  # so that the bound does not matter
    found = _weights(members, others)
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-9)


def test_a_signal_that_is_smaller_for_members_counts_for_nothing() -> None:
    random = np.random.default_rng(6)
    members, others = random.normal(0, 1, (60, 2)), random.normal(0, 1, (60, 2))
    apart = _weights(members + np.array([2, -2]), others)
    assert apart[0] > 0
    assert apart[1] == 0
    found = dataset_inference(members - 3, others)
    assert found == DatasetInference(None, 1.0, 30, 30)


def test_units_of_signals_do_not_matter_and_neither_do_constant_ones() -> None:
    random = np.random.default_rng(6)
    members, others = drawn(random, 40, 1.0), drawn(random, 40)
    plain = dataset_inference(members, others, seed=3)
    again = dataset_inference(members * [2, 5, 100] + 7, others * [2, 5, 100] + 7, seed=3)
    wider = [np.column_stack((side, np.full(40, 0.1))) for side in (members, others)]
    assert plain is not None
    for found in (again, dataset_inference(*wider, seed=3)):
        assert found is not None
        assert found.smallest == plain.smallest
        assert found.p == pytest.approx(plain.p, rel=1e-6)


def test_signals_that_do_not_vary_show_nothing() -> None:
    same = np.ones((10, 2))
    found = dataset_inference(same, same)
    assert found == DatasetInference(None, 1.0, 5, 5)
    assert str(found) == "not reached with n=5 (p = 1)"


def test_a_seed_gives_the_same_again_and_another_another_half() -> None:
    random = np.random.default_rng(7)
    given = drawn(random, 21, 0.6), drawn(random, 30)
    one, again, other = (dataset_inference(*given, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one is not None
    assert other is not None
    assert one.p != other.p
    assert (one.members, one.others) == (11, 15)


def test_a_few_pictures_are_not_halved() -> None:
    assert dataset_inference(np.ones((3, 2)), np.ones((9, 2))) is None
    assert dataset_inference(np.ones((9, 2)), np.ones((3, 2))) is None


def test_what_cannot_be_tested_is_refused() -> None:
    sound = np.ones((5, 2))
    with pytest.raises(InputError, match="some of the signals are not finite"):
        dataset_inference(sound, np.full((5, 2), np.nan))
    with pytest.raises(InputError, match="draws is 0; expected an integer of 1 or more"):
        dataset_inference(sound, sound, draws=0)
