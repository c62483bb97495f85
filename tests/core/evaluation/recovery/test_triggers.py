"""What the triggers that come with iarmem do, beyond what every trigger must."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F

from iarmem_plugin import LogitNoise, intervene
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import AnyTrigger, Condition, ModelTrigger, Sampling
from iarmem_plugin.jobs.triggers.completing import BestOfSamples, PrefixLadder
from iarmem_plugin.jobs.triggers.embedding import LearnedEmbedding
from iarmem_plugin.jobs.triggers.learning import learned
from iarmem_plugin.jobs.triggers.relearning import Relearn, Rounded
from iarmem_plugin.jobs.triggers.rounding import round_weights
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights
from iarmem_plugin.testing.edit import PREFIX, noise, shown
from iarmem_plugin.testing.tiny import TinyAdapter


@pytest.fixture
def model() -> ImageARModel:
    return ImageARModel(TinyAdapter.make())


def made(trigger: Any, model: Any, *, seed: int = 0) -> list[torch.Tensor]:
    with model.borrowed():
        return [one.tokens for one in trigger.attempts(model, *shown(), given=PREFIX, seed=seed)]


def likely(model: ImageARModel, tokens: torch.Tensor, told: Condition) -> torch.Tensor:
    """Return each picture's mean log-likelihood after the prefix."""
    with model.borrowed():
        return model.predicted(tokens, told)[1][:, PREFIX:].mean(1)


def test_a_budget_of_no_steps_is_the_plain_completion(model: ImageARModel) -> None:
    tokens, told = shown()
    plain = model.complete(tokens[:, :PREFIX], told, Sampling())
    assert torch.equal(made(LearnedEmbedding(budgets=(0, 1)), model)[0], plain)


@pytest.mark.parametrize("backend", ["trace", "weights"])
def test_a_learned_vector_makes_pictures_likelier_to_an_edited_model(
    model: ImageARModel, backend: Any
) -> None:
    """Each of them, and no weight asks for gradients afterwards that did not before."""
    neurons = xr.DataArray(np.zeros((3, 128), bool), dims=("block", "neuron"))
    neurons[:, ::3] = True
    tokens, told = shown()
    before = likely(model, tokens, told)
    with intervene(model, neurons, ScaleWeights(0.1), backend=backend) as edited:
        hidden = likely(edited, tokens, told)
        assert not torch.allclose(hidden, before)
        with edited.borrowed():
            steps = learned(edited, edited.adapter, tokens, told, given=PREFIX, lr=0.05)
            vectors = [vector for vector, _ in zip(steps, range(21), strict=False)][-1]
        with edited.adapter.condition_embedding(vectors):
            found = likely(edited, tokens, told)
    assert (found > hidden + 0.01).all()
    assert all(one.requires_grad for one in model.adapter.network.parameters())


def test_the_first_step_is_down_the_pictures_own_loss(model: ImageARModel) -> None:
    """Adam's first step is its size against the sign of the gradient, taken here by plain torch."""
    tokens, told = shown()
    with model.borrowed():
        steps = learned(model, model.adapter, tokens, told, given=PREFIX, lr=0.05)
        zeros, first = next(steps), next(steps)
    assert not zeros.any()
    network, inputs = model.adapter.network, model.adapter.teacher_forced(tokens, told)
    vectors = torch.zeros_like(zeros).requires_grad_()
    with model.adapter.condition_embedding(vectors):
        logits = network(*inputs.args)[:, PREFIX:]
    F.cross_entropy(logits.flatten(0, 1), tokens[:, PREFIX:].flatten()).backward()
    assert vectors.grad is not None
    torch.testing.assert_close(first, -0.05 * vectors.grad.sign(), rtol=1e-3, atol=1e-6)


def test_a_model_without_class_embedding_is_refused_in_words(
    model: ImageARModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyAdapter, "condition_width", 0)
    with pytest.raises(InputError, match=r"a model of 'tiny' has none .*; choose other triggers"):
        made(LearnedEmbedding(), model)


class Bare:
    """What completes like a model, and says no more."""


@pytest.mark.parametrize("trigger", [Relearn(), Rounded()])
def test_what_has_no_known_weights_is_refused_in_words(trigger: ModelTrigger) -> None:
    with pytest.raises(InputError, match=r"changes weights, and .* Bare, has none that are known"):
        next(trigger.models(Bare(), noise(trigger.needs), seed=0))


def test_every_trigger_is_tried_on_a_model_with_noise_on_its_logits(model: ImageARModel) -> None:
    """As in a comparison with such an arm: it has the weights and the class embedding below."""
    with LogitNoise(std=0.1).edited(model, noise(()), seed=0) as noisy:
        for trigger in (LearnedEmbedding((0, 2)), PrefixLadder((1, 5)), BestOfSamples((1, 2))):
            assert len(made(trigger, noisy)) == 2
        for one in (Relearn((0, 2), lr=0.1), Rounded(bits=2)):
            tokens, told = shown()
            with noisy.borrowed(), closing(one.models(noisy, noise(one.needs), seed=0)) as each:
                plain = noisy.logits(tokens, told)
                changed = [other.logits(tokens, told) for _, other in each][-1]
                assert not torch.allclose(changed, plain, atol=0.1)
                assert torch.equal(noisy.logits(tokens, told), plain)


def test_a_prefix_of_all_tokens_is_refused(model: ImageARModel) -> None:
    with pytest.raises(InputError, match="would give 21 of 21 tokens"):
        made(PrefixLadder(budgets=(1, 21)), model)


def test_a_longer_prefix_is_given(model: ImageARModel) -> None:
    tokens, told = shown()
    with model.borrowed():
        ladder = PrefixLadder(budgets=(0, 1, 5))
        found = list(ladder.attempts(model, tokens, told, given=1, seed=0))
    assert [(one.spent, one.given) for one in found] == [(0, 0), (1, 1), (5, 5)]
    for one in found:
        assert torch.equal(one.tokens, model.complete(tokens[:, : one.given], told, Sampling()))


def test_samples_differ_among_themselves_and_by_seed(model: ImageARModel) -> None:
    first, second = (made(BestOfSamples(budgets=(2,)), model, seed=seed) for seed in (0, 1))
    assert len(first) == 2
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], second[0])


def test_samples_of_a_low_temperature_are_the_greedy_completion(model: ImageARModel) -> None:
    tokens, told = shown()
    cold = made(BestOfSamples(budgets=(2,), temperature=1e-4), model)
    greedy = model.complete(tokens[:, :PREFIX], told, Sampling())
    assert all(torch.equal(one, greedy) for one in cold)


def test_relearning_changes_the_weights_and_puts_them_back(model: ImageARModel) -> None:
    network, trigger = model.adapter.network, Relearn(budgets=(0, 1, 3), lr=1e-2, batch_size=2)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    moved: list[float] = []
    with model.borrowed(), closing(trigger.models(model, noise(trigger.needs), seed=0)) as each:
        for _, changed in each:
            weight = changed.adapter.network.head.weight
            moved.append(float((weight - before["head.weight"]).abs().max()))
    assert moved[0] == 0 < moved[1] < moved[2]
    assert all(torch.equal(before[name], one) for name, one in network.state_dict().items())


def test_rounded_weights_are_off_by_half_a_step_at_most(model: ImageARModel) -> None:
    """A step is the row's largest magnitude over 127; vectors stay, and zeros are zeros."""
    network = model.adapter.network
    with torch.no_grad():
        network.head.weight[3] = 0
    before = {name: one.detach().clone() for name, one in network.named_parameters()}
    with model.borrowed(), closing(Rounded().models(model, noise(()), seed=0)) as each:
        for spent, _ in each:
            assert spent == 8
            for name, one in network.named_parameters():
                rows, rounded = before[name].flatten(1) if one.ndim > 1 else before[name], one
                if one.ndim < 2:
                    assert torch.equal(rows, rounded)
                    continue
                step = rows.abs().amax(1, keepdim=True) / 127
                assert ((rounded.flatten(1) - rows).abs() <= step * 0.5001).all(), name
                assert not torch.equal(rounded.flatten(1), rows), name
            assert not network.head.weight[3].any()
    assert all(torch.equal(before[name], one) for name, one in network.named_parameters())


def test_a_weight_of_two_bits_has_three_values() -> None:
    network = torch.nn.Linear(64, 2)
    round_weights(network, 2)
    for row in network.weight.detach():
        assert len(row.unique()) == 3
        assert float(row.unique()[1]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearnedEmbedding(budgets=(5, 1)), "budgets are"),
        (lambda: LearnedEmbedding(lr=0.0), "lr is 0.0"),
        (lambda: PrefixLadder(budgets=()), "budgets are"),
        (lambda: BestOfSamples(budgets=(0, 1)), "a budget"),
        (lambda: BestOfSamples(temperature=0.0), "temperature is 0.0"),
        (lambda: Relearn(lr=-1.0), "lr is -1.0"),
        (lambda: Relearn(batch_size=0), "batch_size"),
        (lambda: Rounded(bits=17), "expected 2 to 16"),
        (lambda: Rounded(bits=1), "bits"),
    ],
)
def test_options_that_make_no_trigger_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_passes_are_what_an_estimate_needs() -> None:
    every: dict[AnyTrigger, float] = {
        LearnedEmbedding(budgets=(0, 10)): 32,
        PrefixLadder(budgets=(0, 1, 5)): 3,
        BestOfSamples(budgets=(1, 8)): 8,
        Rounded(): 1,
    }
    assert {one.key: one.passes for one in every} == {one.key: n for one, n in every.items()}
