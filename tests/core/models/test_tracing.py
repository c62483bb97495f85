"""The wrapped model: reading, completing, editing, and giving everything back."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import save as nnsight_save
from torch.nn import functional as F

from iarmem_adapters.var.adapter import VARAdapter
from iarmem_plugin.errors import BypassedNeuronsError, InputError, WeightsError
from iarmem_plugin.interfaces import ForwardInputs, NeuronWeights, Sampling
from iarmem_plugin.models.tracing import ImageARModel, intervene, wrapped
from iarmem_plugin.neurons.interventions import (
    ScaleWeights,
    ScaleWeightsAndBiases,
    Zero,
    ZeroWeights,
)

GREEDY = Sampling()
TOKENS = 1 + 4 + 16
SCALES = ((0, 1), (1, 5), (5, 21))
BACKENDS = ("trace", "weights")
INTERVENTIONS = (
    ScaleWeights(0.5),
    ScaleWeights(2.5),
    ScaleWeightsAndBiases(0.3),
    ZeroWeights(),
    Zero(),
)


@pytest.fixture
def model(adapter: VARAdapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(16, (4, TOKENS), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 4, 2])


def some_neurons(fraction: float = 0.3) -> xr.DataArray:
    chosen = np.random.default_rng(0).random((3, 128)) < fraction
    return xr.DataArray(chosen, dims=("block", "neuron"))


def whole_block(block: int) -> xr.DataArray:
    chosen = np.zeros((3, 128), bool)
    chosen[block] = True
    return xr.DataArray(chosen, dims=("block", "neuron"))


def by_hooks(adapter: VARAdapter, inputs: ForwardInputs) -> torch.Tensor:
    """Compute the same means with plain torch hooks, on the never-wrapped network."""
    seen: list[torch.Tensor] = []

    def hook(_module: object, _inputs: object, output: torch.Tensor) -> None:
        parts = [output[:, first:last].abs().mean(1) for first, last in SCALES]
        seen.append(torch.stack(parts, 1))

    handles = [block.ffn.act.register_forward_hook(hook) for block in adapter.network.blocks]
    with torch.no_grad():
        adapter.network(*inputs.args)
    for handle in handles:
        handle.remove()
    return torch.stack(seen, 1)


def state_of(adapter: VARAdapter) -> dict[str, object]:
    """Everything that a borrowed model must come back with."""
    return {
        "weights": {k: v.clone() for k, v in adapter.network.state_dict().items()},
        "modes": [module.training for module in adapter.network.modules()],
        "requires_grad": [p.requires_grad for p in adapter.network.parameters()],
        "hooks": [len(module._forward_hooks) for module in adapter.network.modules()],
        "attributes": [sorted(module.__dict__) for module in adapter.network.modules()],
        "rng": torch.get_rng_state(),
        "grad": torch.is_grad_enabled(),
    }


def assert_same_state(before: dict[str, object], after: dict[str, object]) -> None:
    for name in ("weights", "rng"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    for name in ("modes", "requires_grad", "hooks", "attributes", "grad"):
        assert after[name] == before[name], name


def test_reads_what_torch_hooks_compute_bit_for_bit(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = adapter.teacher_forced(tokens, labels)
    expected = by_hooks(adapter, inputs)
    with wrapped(adapter) as model, model.borrowed():
        actual = model.read_neurons(inputs)
    assert actual.shape == (4, 3, 3, 128)
    assert torch.equal(actual, expected)


def test_two_reads_are_bit_equal(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, labels)
    with model.borrowed():
        assert torch.equal(model.read_neurons(inputs), model.read_neurons(inputs))


def test_neurons_are_read_inside_a_users_own_trace(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, labels)
    with torch.no_grad(), model.trace(*inputs.args):
        means = nnsight_save(model.neurons())
        logits = nnsight_save(model.output)
    with model.borrowed():
        assert torch.equal(means, model.read_neurons(inputs))
    assert logits.shape == (4, TOKENS, 16)


def test_wrapping_a_family_gives_both_spellings_of_the_mlp(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, labels)
    with torch.no_grad(), model.trace(*inputs.args):
        renamed = nnsight_save(model.blocks[1].mlp.act.output)
    with torch.no_grad(), model.trace(*inputs.args):
        native = nnsight_save(model.blocks[1].ffn.act.output)
    assert torch.equal(renamed, native)


def test_unwrapping_leaves_the_network_as_it_was(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    before = state_of(adapter)
    with wrapped(adapter) as model, model.borrowed():
        model.read_neurons(adapter.teacher_forced(tokens, labels))
    assert_same_state(before, state_of(adapter))
    assert "forward" not in adapter.network.blocks[0].ffn.__dict__


def test_an_exception_inside_leaves_the_network_as_it_was(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    adapter.network.train()
    adapter.network.blocks[1].eval()
    before = state_of(adapter)
    with pytest.raises(ZeroDivisionError), wrapped(adapter) as model, model.borrowed():
        torch.rand(3)
        model.read_neurons(adapter.teacher_forced(tokens, labels))
        raise ZeroDivisionError
    assert_same_state(before, state_of(adapter))


def test_a_wrapper_inside_a_wrapper_leaves_the_outer_one_alone(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    outer = ImageARModel(adapter)
    inputs = adapter.teacher_forced(tokens, labels)
    with wrapped(adapter) as inner, inner.borrowed():
        read = inner.read_neurons(inputs)
    with outer.borrowed():
        assert torch.equal(outer.read_neurons(inputs), read)


def test_a_fused_mlp_is_refused_by_name(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    for block in range(3):
        fuse(adapter, block)
    with wrapped(adapter) as model, model.borrowed():
        with pytest.raises(BypassedNeuronsError, match=r"blocks\.0\.ffn\.act.*fused"):
            model.read_neurons(adapter.teacher_forced(tokens, labels))


def test_editing_a_fused_mlp_through_the_trace_is_refused(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    fuse(adapter, 1)
    with wrapped(adapter) as model, intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(BypassedNeuronsError, match=r"blocks\.1\.ffn\.fc1"):
            edited.logits(tokens, labels)


def fuse(adapter: VARAdapter, block: int) -> None:
    ffn = adapter.network.blocks[block].ffn

    def fused(x: torch.Tensor) -> torch.Tensor:
        hidden = F.linear(x, ffn.fc1.weight, ffn.fc1.bias)
        return F.linear(F.gelu(hidden, approximate="tanh"), ffn.fc2.weight, ffn.fc2.bias)

    ffn.forward = fused


def test_a_layout_that_names_no_module_is_refused(adapter: VARAdapter) -> None:
    del adapter.network.blocks[2].ffn.act
    with pytest.raises(WeightsError, match=r"blocks\.2\.ffn\.act"):
        ImageARModel(adapter)


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=lambda i: f"{i.name}-{i.factor}")
def test_both_backends_agree(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor, intervention: ScaleWeights
) -> None:
    with torch.no_grad():
        original = model.logits(tokens, labels)
        results = {}
        for backend in BACKENDS:
            with intervene(model, some_neurons(), intervention, backend=backend) as edited:
                results[backend] = edited.logits(tokens, labels)
    exact = intervention.factor == 0  # then nothing is rounded differently
    tolerance = 0.0 if exact else 1e-5
    torch.testing.assert_close(results["trace"], results["weights"], rtol=0, atol=tolerance)
    assert (results["trace"] - original).abs().max() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_scaling_weights_by_hand_gives_the_same_logits(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    neurons = some_neurons()
    with wrapped(adapter) as model, torch.no_grad():
        with intervene(model, neurons, ScaleWeights(0.5), backend=backend) as edited:
            actual = edited.logits(tokens, labels)
    with torch.no_grad():
        for block, chosen in enumerate(neurons.values):
            adapter.network.blocks[block].ffn.fc1.weight[torch.from_numpy(chosen)] *= 0.5
        expected = adapter.network(*adapter.teacher_forced(tokens, labels).args)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)  # float32 rounding


@pytest.mark.parametrize("backend", BACKENDS)
def test_scaling_weights_by_one_changes_nothing(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    with torch.no_grad():
        original = model.logits(tokens, labels)
        with intervene(model, some_neurons(), ScaleWeights(1.0), backend=backend) as edited:
            torch.testing.assert_close(edited.logits(tokens, labels), original, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_completion_goes_through_the_edit(
    model: ImageARModel, labels: torch.Tensor, backend: str
) -> None:
    prefix = torch.empty(4, 0, dtype=torch.int64)
    original = model.complete(prefix, labels, GREEDY)
    with intervene(model, whole_block(0), Zero(), backend=backend) as edited:
        changed = edited.complete(prefix, labels, GREEDY)
        through_adapter = edited.adapter.complete(prefix, labels, GREEDY)
        tracer_target = edited.trace(prefix, labels, GREEDY, fn=edited.complete, trace=False)
    assert not torch.equal(changed, original)
    assert torch.equal(through_adapter, changed)
    assert torch.equal(tracer_target, changed)
    assert torch.equal(model.complete(prefix, labels, GREEDY), original)


@pytest.mark.parametrize("backend", BACKENDS)
def test_calling_an_edited_model_uses_the_edit(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    inputs = model.adapter.teacher_forced(tokens, labels)
    with torch.no_grad():
        original = model(*inputs.args)
        with intervene(model, whole_block(0), Zero(), backend=backend) as edited:
            assert not torch.equal(edited(*inputs.args), original)
            torch.testing.assert_close(
                edited(*inputs.args), edited.logits(tokens, labels), rtol=0, atol=0
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("prefix", "visits"), [(0, 3), (1, 3), (5, 2), (21, 0)])
def test_every_visit_of_a_block_is_edited(
    adapter: VARAdapter,
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
            edited.complete(tokens[:, :prefix], labels, GREEDY)
    handle.remove()
    assert [float(value) for value in seen] == [0.0] * visits


@pytest.mark.parametrize("backend", BACKENDS)
def test_outgoing_weights_can_be_edited_too(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor, backend: str
) -> None:
    class CutOutgoing(ScaleWeights):
        def edit(self, neurons: NeuronWeights) -> NeuronWeights:
            return NeuronWeights(neurons.fc1_weight, neurons.fc1_bias, neurons.fc2_weight * 0)

    with wrapped(adapter) as model, torch.no_grad():
        with intervene(model, whole_block(2), CutOutgoing(), backend=backend) as edited:
            actual = edited.logits(tokens, labels)
    with torch.no_grad():
        adapter.network.blocks[2].ffn.fc2.weight.zero_()
        expected = adapter.network(*adapter.teacher_forced(tokens, labels).args)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)  # float32 rounding


@pytest.mark.parametrize("backend", BACKENDS)
def test_interventions_put_weights_back_exactly_after_an_exception(
    adapter: VARAdapter, backend: str
) -> None:
    before = state_of(adapter)
    with pytest.raises(ZeroDivisionError), wrapped(adapter) as model:
        with intervene(model, some_neurons(), ScaleWeights(0.3), backend=backend):
            raise ZeroDivisionError
    assert_same_state(before, state_of(adapter))


def test_an_intervention_that_fails_half_way_leaves_the_weights_as_they_were(
    adapter: VARAdapter,
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
            stacked = twice.logits(tokens, labels)
    with torch.no_grad():
        for block, (both, one) in enumerate(zip(first.values, second.values, strict=True)):
            fc1 = model._adapter.network.blocks[block].ffn.fc1
            fc1.weight[torch.from_numpy(one)] *= 0.5
            fc1.bias[torch.from_numpy(one)] *= 0.5
            fc1.weight[torch.from_numpy(both)] *= 0.5
        expected = model.logits(tokens, labels)
    torch.testing.assert_close(stacked, expected, rtol=0, atol=1e-5)  # float32 rounding


def test_an_inner_edit_of_nothing_keeps_the_outer_one(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    with torch.no_grad(), intervene(model, some_neurons(), Zero()) as outer:
        expected = outer.logits(tokens, labels)
        with intervene(outer, some_neurons(), ScaleWeights(1.0)) as inner:
            assert torch.equal(inner.logits(tokens, labels), expected)


def test_outgoing_weights_compose_too(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    class HalveOutgoing(ScaleWeights):
        def edit(self, neurons: NeuronWeights) -> NeuronWeights:
            return NeuronWeights(neurons.fc1_weight, neurons.fc1_bias, neurons.fc2_weight / 2)

    halve = HalveOutgoing()
    with torch.no_grad():
        with intervene(model, whole_block(1), halve) as once:
            with intervene(once, whole_block(1), halve) as twice:
                actual = twice.logits(tokens, labels)
        model._adapter.network.blocks[1].ffn.fc2.weight *= 0.25
        expected = model.logits(tokens, labels)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)  # float32 rounding


def test_weights_come_back_exactly_in_whatever_order_edits_are_left(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    before = state_of(adapter)
    with wrapped(adapter) as model, torch.no_grad():
        first = intervene(model, some_neurons(0.3), ScaleWeights(0.3), backend="weights")
        second = intervene(model, some_neurons(0.6), ScaleWeights(0.7), backend="weights")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        left = model.logits(tokens, labels)
        second.__exit__(None, None, None)
        with intervene(model, some_neurons(0.6), ScaleWeights(0.7), backend="weights"):
            assert torch.equal(model.logits(tokens, labels), left)
    assert_same_state(before, state_of(adapter))


def test_captured_activations_of_an_edited_copy_are_edited(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, labels)
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
        original = model.logits(tokens, labels)
        with intervene(model, neurons, ScaleWeights(20.0)) as edited:
            assert not torch.equal(edited.logits(tokens, labels), original)


def test_no_neurons_is_no_edit(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    nothing = xr.DataArray(np.zeros((3, 128), bool), dims=("block", "neuron"))
    with torch.no_grad(), intervene(model, nothing, Zero()) as edited:
        assert torch.equal(edited.logits(tokens, labels), model.logits(tokens, labels))


def test_neurons_of_another_model_are_refused(model: ImageARModel) -> None:
    neurons = xr.DataArray(np.zeros((3, 64), bool), dims=("block", "neuron"))
    with pytest.raises(InputError, match=r"'neuron': 64.*'neuron': 128"):
        with intervene(model, neurons, Zero()):
            pass


def test_an_unknown_backend_is_refused(model: ImageARModel) -> None:
    with pytest.raises(InputError, match="there are: trace, weights"):
        with intervene(model, some_neurons(), Zero(), backend="hope"):
            pass


def test_a_full_prefix_is_reproduced(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    assert torch.equal(model.complete(tokens, labels, GREEDY), tokens)


def test_reading_keeps_no_tensors_alive(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, labels)

    def live() -> int:
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    with model.borrowed():
        model.read_neurons(inputs)
        gc.collect()
        gc.disable()
        try:
            before = live()
            for _ in range(20):
                model.read_neurons(inputs)
            assert live() == before
        finally:
            gc.enable()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_reads_and_completes_nearly_the_same(
    adapter: VARAdapter, tokens: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype
) -> None:
    with wrapped(adapter) as model, model.borrowed():
        inputs = adapter.teacher_forced(tokens, labels)
        exact = model.read_neurons(inputs)
        adapter.network.to(dtype)
        rough = model.read_neurons(inputs)
        completed = model.complete(tokens[:, :1], labels, GREEDY)
    assert rough.dtype == torch.float32  # sums stay in float32
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.02)  # bfloat16 has 8 bits
    assert completed.shape == tokens.shape
