"""Tokens drawn with a seed an image: inverse distribution function, alike in any batch."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.models.sampling import (
    NUMBERS_PER_DRAW,
    Draws,
    check_sampling,
    choose,
    seeded_generator,
    with_noise,
)

CPU = torch.device("cpu")


def test_the_token_is_the_first_whose_cumulated_probability_exceeds_the_number() -> None:
    numbers = torch.rand(20, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    probabilities = torch.tensor([0.25, 0.0, 0.5, 0.25]).expand(1, 20, 4)
    expected = [0 if number < 0.25 else 2 if number < 0.75 else 3 for number in numbers]
    assert Draws([7], CPU).choose(probabilities)[0].tolist() == expected


def test_tokens_are_drawn_with_their_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    drawn = Draws(range(20), CPU).choose(probabilities.expand(20, 500, 5))
    counted = torch.bincount(drawn.flatten(), minlength=5)
    assert counted[4] == 0
    assert stats.chisquare(counted[:4], 10_000 * probabilities[:4]).pvalue > 1e-3  # fixed seeds


def test_numbers_go_on_from_call_to_call_past_a_block() -> None:
    probabilities = torch.full((2, 1500, 9), 1 / 9)
    together = Draws([1, 2], CPU).choose(probabilities)
    parts = Draws([1, 2], CPU)
    sizes = (1, NUMBERS_PER_DRAW - 2, 3, 1500 - NUMBERS_PER_DRAW - 2)
    apart = [parts.choose(probabilities[:, :size]) for size in sizes]
    assert torch.equal(torch.cat(apart, dim=1), together)


def test_an_image_draws_the_same_beside_any_others() -> None:
    probabilities = torch.softmax(torch.randn(3, 40, 9, generator=torch.manual_seed(0)), 2)
    together = Draws([5, 6, 7], CPU).choose(probabilities)
    assert torch.equal(Draws([6], CPU).choose(probabilities[1:2]), together[1:2])
    assert not torch.equal(together[0], together[1])


def test_only_the_tokens_that_top_k_leaves_are_drawn() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0]).expand(2, 200, 4)
    sampling = Sampling(greedy=False, top_k=2, seed=(1, 2))
    assert set(choose(logits, sampling, Draws((1, 2), CPU)).flatten().tolist()) == {1, 3}


def test_another_number_of_seeds_than_images_is_refused() -> None:
    with pytest.raises(InputError, match="2 seeds for 3 images"):
        Draws([1, 2], CPU).choose(torch.full((3, 1, 4), 0.25))


def noisy(std: float, seed: int | tuple[int, ...] | None, *, greedy: bool = True) -> Sampling:
    return Sampling(greedy=greedy, logit_noise=std, seed=seed)


def test_noise_on_logits_is_normal_with_the_deviation_that_is_asked_for() -> None:
    logits, sampling = torch.full((2, 500, 20), 3.0), noisy(2.0, (1, 2))
    noise = with_noise(logits, sampling, seeded_generator(sampling, CPU)) - logits
    assert stats.kstest(noise.flatten().numpy() / 2, "norm").pvalue > 0.01


@pytest.mark.parametrize("seed", [5, (5, 6)])
def test_the_likeliest_token_is_that_of_the_noisy_logits(seed: int | tuple[int, ...]) -> None:
    logits, sampling = torch.zeros(2, 30, 8), noisy(1.0, seed)
    made = [seeded_generator(sampling, CPU) for _ in range(2)]
    expected = with_noise(logits, sampling, made[0]).argmax(2)
    assert torch.equal(choose(logits, sampling, made[1]), expected)
    assert len(expected.unique()) > 1


def test_an_images_noise_does_not_depend_on_the_other_images() -> None:
    logits = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    together = with_noise(logits, noisy(1.0, (5, 6, 7)), Draws([5, 6, 7], CPU))
    assert torch.equal(with_noise(logits[1:2], noisy(1.0, (6,)), Draws([6], CPU)), together[1:2])
    assert not torch.equal(together[0] - logits[0], together[1] - logits[1])


def test_noise_leaves_the_numbers_that_tokens_are_drawn_by() -> None:
    probabilities = torch.full((1, 50, 4), 0.25)
    first, second = Draws([3], CPU), Draws([3], CPU)
    second.normal((1, 50, 4))
    assert torch.equal(first.choose(probabilities), second.choose(probabilities))


def test_a_masked_token_stays_masked_under_noise() -> None:
    logits = torch.tensor([[[0.0, -torch.inf, 1.0]]])
    assert with_noise(logits, noisy(5.0, 0), None)[0, 0, 1] == -torch.inf


def test_nothing_is_drawn_without_noise_and_noise_below_zero_is_refused() -> None:
    assert seeded_generator(Sampling(), CPU) is None
    assert [one.draws for one in (Sampling(), Sampling(greedy=False), noisy(0.5, 0))] == [
        False,
        True,
        True,
    ]
    with pytest.raises(InputError, match=r"logit_noise must be 0 or more, got -0\.5"):
        check_sampling(noisy(-0.5, 0))
