"""Edits of neurons: both backends do the same, and give everything back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition, NeuronWeights
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import (
    ScaleWeights,
    ScaleWeightsAndBiases,
    Zero,
    ZeroWeights,
)
from iarmem_plugin.testing.tiny import TinyAdapter

from .conftest import GREEDY, assert_same_state, some_neurons, state_of, whole_block

BACKENDS = ("trace", "weights")
INTERVENTIONS = (
    ScaleWeights(0.5),
    ScaleWeights(2.5),
    ScaleWeightsAndBiases(0.3),
    ZeroWeights(),
    Zero(),
)


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=lambda i: f"{i.name}-{i.factor}")
def test_both_backends_agree(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor, intervention: ScaleWeights
) -> None:
    with torch.no_grad():
        original = model.logits(tokens, Condition.of(labels))
        results = {}
        for backend in BACKENDS:
            with intervene(model, some_neurons(), intervention, backend=backend) as edited:
                results[backend] = edited.logits(tokens, Condition.of(labels))
    exact = intervention.factor == 0  # then nothing is rounded differently
    tolerance = 0.0 if exact else 1e-5
    torch.testing.assert_close(results["trace"], results["weights"], rtol=0, atol=tolerance)
    assert (results["trace"] - original).abs().max() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_scaling_weights_by_hand_gives_the_same_logits(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    neurons = some_neurons()
    with wrapped(adapter) as model, torch.no_grad():
        with intervene(model, neurons, ScaleWeights(0.5), backend=backend) as edited:
            actual = edited.logits(tokens, Condition.of(labels))
    with torch.no_grad():
        for block, chosen in enumerate(neurons.values):
            adapter.network.blocks[block].ffn.fc1.weight[torch.from_numpy(chosen)] *= 0.5
        expected = adapter.network(*adapter.teacher_forced(tokens, Condition.of(labels)).args)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)  # float32 rounding


@pytest.mark.parametrize("backend", BACKENDS)
def test_scaling_weights_by_one_changes_nothing(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    with torch.no_grad():
        original = model.logits(tokens, Condition.of(labels))
        with intervene(model, some_neurons(), ScaleWeights(1.0), backend=backend) as edited:
            torch.testing.assert_close(
                edited.logits(tokens, Condition.of(labels)), original, rtol=0, atol=1e-6
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_completion_goes_through_the_edit(
    model: ImageARModel, labels: torch.Tensor, backend: str
) -> None:
    prefix = torch.empty(4, 0, dtype=torch.int64)
    original = model.complete(prefix, Condition.of(labels), GREEDY)
    with intervene(model, whole_block(0), Zero(), backend=backend) as edited:
        changed = edited.complete(prefix, Condition.of(labels), GREEDY)
        through_adapter = edited.adapter.complete(prefix, Condition.of(labels), GREEDY)
        tracer_target = edited.trace(
            prefix, Condition.of(labels), GREEDY, fn=edited.complete, trace=False
        )
    assert not torch.equal(changed, original)
    assert torch.equal(through_adapter, changed)
    assert torch.equal(tracer_target, changed)
    assert torch.equal(model.complete(prefix, Condition.of(labels), GREEDY), original)


@pytest.mark.parametrize("backend", BACKENDS)
def test_calling_an_edited_model_uses_the_edit(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    inputs = model.adapter.teacher_forced(tokens, Condition.of(labels))
    with torch.no_grad():
        original = model(*inputs.args)
        with intervene(model, whole_block(0), Zero(), backend=backend) as edited:
            assert not torch.equal(edited(*inputs.args), original)
            torch.testing.assert_close(
                edited(*inputs.args), edited.logits(tokens, Condition.of(labels)), rtol=0, atol=0
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("prefix", "visits"), [(0, 3), (1, 2), (5, 1), (21, 0)])
def test_every_visit_of_a_block_is_edited(
    adapter: TinyAdapter,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    backend: str,
    prefix: int,
    visits: int,
) -> None:
    seen: list[torch.Tensor] = []
    act = adapter.network.blocks[1].ffn.act
    handle = act.register_forward_hook(lambda _m, _i, output: seen.append(output.abs().max()))
    with wrapped(adapter) as model:
        with intervene(model, whole_block(1), Zero(), backend=backend) as edited:
            edited.complete(tokens[:, :prefix], Condition.of(labels), GREEDY)
    handle.remove()
    assert [float(value) for value in seen] == [0.0] * visits


@pytest.mark.parametrize("backend", BACKENDS)
def test_outgoing_weights_can_be_edited_too(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    class CutOutgoing(ScaleWeights):
        def edit(self, neurons: NeuronWeights) -> NeuronWeights:
            return replace(neurons, writes=neurons.writes * 0)

    with wrapped(adapter) as model, torch.no_grad():
        with intervene(model, whole_block(2), CutOutgoing(), backend=backend) as edited:
            actual = edited.logits(tokens, Condition.of(labels))
    with torch.no_grad():
        adapter.network.blocks[2].ffn.fc2.weight.zero_()
        expected = adapter.network(*adapter.teacher_forced(tokens, Condition.of(labels)).args)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)  # float32 rounding


@pytest.mark.parametrize("backend", BACKENDS)
def test_interventions_put_weights_back_exactly_after_an_exception(
    adapter: TinyAdapter, backend: str
) -> None:
    before = state_of(adapter)
    with pytest.raises(ZeroDivisionError), wrapped(adapter) as model:
        with intervene(model, some_neurons(), ScaleWeights(0.3), backend=backend):
            raise ZeroDivisionError
    assert_same_state(before, state_of(adapter))


def test_an_intervention_that_fails_half_way_leaves_the_weights_as_they_were(
    adapter: TinyAdapter,
) -> None:
    class FailsAtTheSecondBlock(ScaleWeights):
        calls = 0

        def edit(self, neurons: NeuronWeights) -> NeuronWeights:
            self.calls += 1
            if self.calls == 2:
                raise ZeroDivisionError
            return super().edit(neurons)

    before = state_of(adapter)
    with pytest.raises(ZeroDivisionError), wrapped(adapter) as model:
        with intervene(model, some_neurons(), FailsAtTheSecondBlock(), backend="weights"):
            pass
    assert_same_state(before, state_of(adapter))


@pytest.mark.parametrize("outer", BACKENDS)
@pytest.mark.parametrize("inner", BACKENDS)
def test_edits_compose(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor, outer: str, inner: str
) -> None:
    first, second = some_neurons(0.3), some_neurons(0.6)  # the second holds the first
    with torch.no_grad(), intervene(model, first, ScaleWeights(0.5), backend=outer) as once:
        if (outer, inner) == ("trace", "weights"):
            with pytest.raises(InputError, match="through the trace"):
                with intervene(once, second, ScaleWeights(0.5), backend=inner):
                    pass
            return
        with intervene(once, second, ScaleWeightsAndBiases(0.5), backend=inner) as twice:
            stacked = twice.logits(tokens, Condition.of(labels))
    with torch.no_grad():
        for block, (both, one) in enumerate(zip(first.values, second.values, strict=True)):
            fc1 = model._adapter.network.blocks[block].ffn.fc1
            fc1.weight[torch.from_numpy(one)] *= 0.5
            fc1.bias[torch.from_numpy(one)] *= 0.5
            fc1.weight[torch.from_numpy(both)] *= 0.5
        expected = model.logits(tokens, Condition.of(labels))
    torch.testing.assert_close(stacked, expected, rtol=0, atol=1e-5)  # float32 rounding


def test_an_inner_edit_of_nothing_keeps_the_outer_one(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    with torch.no_grad(), intervene(model, some_neurons(), Zero()) as outer:
        expected = outer.logits(tokens, Condition.of(labels))
        with intervene(outer, some_neurons(), ScaleWeights(1.0)) as inner:
            assert torch.equal(inner.logits(tokens, Condition.of(labels)), expected)


def test_outgoing_weights_compose_too(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    class HalveOutgoing(ScaleWeights):
        def edit(self, neurons: NeuronWeights) -> NeuronWeights:
            return replace(neurons, writes=neurons.writes / 2)

    halve = HalveOutgoing()
    with torch.no_grad():
        with intervene(model, whole_block(1), halve) as once:
            with intervene(once, whole_block(1), halve) as twice:
                actual = twice.logits(tokens, Condition.of(labels))
        model._adapter.network.blocks[1].ffn.fc2.weight *= 0.25
        expected = model.logits(tokens, Condition.of(labels))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)  # float32 rounding


def test_weights_come_back_exactly_in_whatever_order_edits_are_left(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    before = state_of(adapter)
    with wrapped(adapter) as model, torch.no_grad():
        first = intervene(model, some_neurons(0.3), ScaleWeights(0.3), backend="weights")
        second = intervene(model, some_neurons(0.6), ScaleWeights(0.7), backend="weights")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        left = model.logits(tokens, Condition.of(labels))
        second.__exit__(None, None, None)
        with intervene(model, some_neurons(0.6), ScaleWeights(0.7), backend="weights"):
            assert torch.equal(model.logits(tokens, Condition.of(labels)), left)
    assert_same_state(before, state_of(adapter))


def test_captured_activations_of_an_edited_copy_are_edited(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, Condition.of(labels))
    with intervene(model, whole_block(1), Zero()) as edited, edited.borrowed():
        read = edited.read_neurons(inputs)
    assert float(read[:, 1].abs().max()) == 0.0
    assert float(read[:, 0].abs().max()) > 0.0


def test_scaling_a_captured_neuron_changes_the_output(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    one = np.zeros((3, 128), bool)
    one[1, 17] = True
    neurons = xr.DataArray(one, dims=("block", "neuron"))
    with torch.no_grad():
        original = model.logits(tokens, Condition.of(labels))
        with intervene(model, neurons, ScaleWeights(20.0)) as edited:
            assert not torch.equal(edited.logits(tokens, Condition.of(labels)), original)


def test_no_neurons_is_no_edit(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    nothing = xr.DataArray(np.zeros((3, 128), bool), dims=("block", "neuron"))
    with torch.no_grad(), intervene(model, nothing, Zero()) as edited:
        assert torch.equal(
            edited.logits(tokens, Condition.of(labels)), model.logits(tokens, Condition.of(labels))
        )


def test_neurons_of_another_model_are_refused(model: ImageARModel) -> None:
    neurons = xr.DataArray(np.zeros((3, 64), bool), dims=("block", "neuron"))
    with pytest.raises(InputError, match=r"'neuron': 64.*'neuron': 128"):
        with intervene(model, neurons, Zero()):
            pass


def test_an_unknown_backend_is_refused(model: ImageARModel) -> None:
    with pytest.raises(InputError, match="there are: trace, weights"):
        with intervene(model, some_neurons(), Zero(), backend="hope"):
            pass
