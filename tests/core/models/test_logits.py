"""Logits that are not finite: refused by image and position, however tokens are chosen."""

from __future__ import annotations

import pytest
import torch

from iarmem_plugin.errors import NonFiniteLogitsError, NonFiniteSimilarityError
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.sampling import (
    LogitsWatch,
    check_likelihood,
    check_logits,
    choose,
    seeded_generator,
)
from iarmem_plugin.models.tracing import ImageARModel

GREEDY, OWN, GLOBAL = Sampling(), Sampling(greedy=False, seed=(1, 2, 3)), Sampling(greedy=False)


def steps(image: int, place: int, value: float) -> list[torch.Tensor]:
    """Return the logits of two steps, of 2 and of 3 places, with one bad value in the second."""
    logits = [torch.randn(3, places, 7) for places in (2, 3)]
    logits[1][image, place, 4] = value
    return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [GREEDY, OWN, GLOBAL], ids=["greedy", "own", "global"])
def test_a_value_that_is_not_finite_is_found_with_image_and_position(
    value: float, sampling: Sampling
) -> None:
    watch = LogitsWatch(sampling, 5)
    with pytest.raises(NonFiniteLogitsError, match=r"1 of 3 .* from token position 8 on") as found:
        for logits in steps(2, 1, value):
            watch.see(logits)
        watch.check()
    assert (found.value.rows, found.value.position) == ((2,), 8)


def test_torchs_own_draws_are_checked_before_they_fail() -> None:
    watch = LogitsWatch(GLOBAL, 0)
    first, second = steps(0, 0, float("nan"))
    watch.see(first)
    with pytest.raises(NonFiniteLogitsError, match="position 2"):
        watch.see(second)


@pytest.mark.parametrize("sampling", [GREEDY, OWN, GLOBAL], ids=["greedy", "own", "global"])
def test_a_part_of_the_vocabulary_may_be_masked_but_not_all_of_it(sampling: Sampling) -> None:
    logits = torch.randn(3, 2, 7)
    logits[:, :, 4:] = -torch.inf
    check_logits(logits)
    assert int(choose(logits, sampling, seeded_generator(sampling, logits.device)).max()) < 4
    logits[1, 1] = -torch.inf
    with pytest.raises(NonFiniteLogitsError, match=r"1 of 3 .* from token position 1 on"):
        check_logits(logits)


def test_a_true_token_that_is_masked_has_no_likelihood_which_is_a_number_too() -> None:
    check_likelihood(torch.tensor([[-0.5, -torch.inf]]))
    with pytest.raises(NonFiniteLogitsError, match=r"1 of 2 .* from token position 1 on"):
        check_likelihood(torch.tensor([[-0.5, -1.0], [-0.5, torch.nan]]))


def test_large_logits_in_half_precision_are_finite() -> None:
    logits = torch.full((1, 1, 4096), 1000.0, dtype=torch.float16)  # their sum is beyond float16
    check_logits(logits)
    watch = LogitsWatch(GREEDY, 0)
    watch.see(logits)
    watch.check()


def test_nothing_chosen_is_nothing_wrong() -> None:
    LogitsWatch(GREEDY, 21).check()


@pytest.mark.parametrize("sampling", [GREEDY, OWN, GLOBAL], ids=["greedy", "own", "global"])
@pytest.mark.parametrize(("prefix", "position"), [(1, 1), (5, 5)])
def test_a_head_of_nan_completes_nothing(
    model: ImageARModel, tokens: torch.Tensor, sampling: Sampling, prefix: int, position: int
) -> None:
    with torch.no_grad():
        model._adapter.network.head.weight[3] = float("nan")
    with pytest.raises(NonFiniteSimilarityError, match=f"3 of 3 .* position {position} on"):
        model.complete(tokens[:3, :prefix], Condition.of(torch.tensor([0, 1, 2])), sampling)


def test_an_overflow_in_half_precision_is_refused(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    model._adapter.network.to(torch.float16)
    with torch.no_grad():
        model._adapter.network.head.weight.mul_(1e5)
    with pytest.raises(NonFiniteLogitsError, match="wider dtype than float16"):
        model.complete(tokens[:, :5], Condition.of(labels), GREEDY)
