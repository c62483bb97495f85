"""The wrapped model: reading, completing, and giving everything back."""

from __future__ import annotations

import gc

import pytest
import torch
from nnsight import save as nnsight_save
from torch.nn import functional as F

from iarmem_plugin.errors import BypassedNeuronsError, WeightsError
from iarmem_plugin.interfaces import Condition, ForwardInputs
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.testing.tiny import TinyAdapter
from iarmem_plugin.testing.tiny_model import TinyMLP

from .conftest import GREEDY, TOKENS, assert_same_state, state_of, whole_block

SCALES = ((0, 1), (1, 5), (5, 21))


def by_hooks(adapter: TinyAdapter, inputs: ForwardInputs) -> torch.Tensor:
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


def test_reads_what_torch_hooks_compute_bit_for_bit(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = adapter.teacher_forced(tokens, Condition.of(labels))
    expected = by_hooks(adapter, inputs)
    with wrapped(adapter) as model, model.borrowed():
        actual = model.read_neurons(inputs)
    assert actual.shape == (4, 3, 3, 128)
    assert torch.equal(actual, expected)


def test_two_reads_are_bit_equal(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, Condition.of(labels))
    with model.borrowed():
        assert torch.equal(model.read_neurons(inputs), model.read_neurons(inputs))


def test_neurons_are_read_inside_a_users_own_trace(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, Condition.of(labels))
    with torch.no_grad(), model.trace(*inputs.args):
        means = nnsight_save(model.neurons())
        logits = nnsight_save(model.output)
    with model.borrowed():
        assert torch.equal(means, model.read_neurons(inputs))
    assert logits.shape == (4, TOKENS, 16)


def test_wrapping_a_family_gives_both_spellings_of_the_mlp(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, Condition.of(labels))
    with torch.no_grad(), model.trace(*inputs.args):
        renamed = nnsight_save(model.blocks[1].mlp.act.output)
    with torch.no_grad(), model.trace(*inputs.args):
        native = nnsight_save(model.blocks[1].ffn.act.output)
    assert torch.equal(renamed, native)


def test_unwrapping_leaves_the_network_as_it_was(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    before = state_of(adapter)
    with wrapped(adapter) as model, model.borrowed():
        model.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))
    assert_same_state(before, state_of(adapter))
    assert "forward" not in adapter.network.blocks[0].ffn.__dict__


def test_an_exception_inside_leaves_the_network_as_it_was(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    adapter.network.train()
    adapter.network.blocks[1].eval()
    before = state_of(adapter)
    with pytest.raises(ZeroDivisionError), wrapped(adapter) as model, model.borrowed():
        torch.rand(3)
        model.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))
        raise ZeroDivisionError
    assert_same_state(before, state_of(adapter))


def test_a_wrapper_inside_a_wrapper_leaves_the_outer_one_alone(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    outer = ImageARModel(adapter)
    inputs = adapter.teacher_forced(tokens, Condition.of(labels))
    with wrapped(adapter) as inner, inner.borrowed():
        read = inner.read_neurons(inputs)
    with outer.borrowed():
        assert torch.equal(outer.read_neurons(inputs), read)


def test_a_fused_mlp_is_refused_by_name(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    for block in range(3):
        fuse(adapter, block)
    with wrapped(adapter) as model, model.borrowed():
        with pytest.raises(BypassedNeuronsError, match=r"blocks\.0\.ffn\.act.*fused"):
            model.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))


@pytest.mark.parametrize("advice", ["", "for VAR: fused_if_available=False"])
def test_the_refusal_of_a_fused_mlp_gives_the_advice_of_the_family_alone(
    adapter: TinyAdapter,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    advice: str,
) -> None:
    fuse(adapter, 0)
    monkeypatch.setattr(TinyAdapter, "fused_advice", advice)
    with wrapped(adapter) as model, model.borrowed():
        with pytest.raises(BypassedNeuronsError) as refused:
            model.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))
    said = f" ({advice})" if advice else ""
    assert str(refused.value).endswith(f"; build the model without fused kernels{said}")


def test_editing_a_fused_mlp_through_the_trace_is_refused(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    fuse(adapter, 1)
    with wrapped(adapter) as model, intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(BypassedNeuronsError, match=r"blocks\.1\.ffn\.fc1"):
            edited.logits(tokens, Condition.of(labels))


def test_an_edit_that_a_plain_trace_leaves_out_is_an_error(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    fuse(adapter, 1)
    inputs = adapter.teacher_forced(tokens, Condition.of(labels))
    with wrapped(adapter) as model, intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(BypassedNeuronsError, match=r"never called 'blocks\.1\.ffn\.fc1'"):
            with edited.trace(*inputs.args):
                nnsight_save(edited.output)


def test_an_edit_that_some_passes_leave_out_is_an_error(
    adapter: TinyAdapter,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where `forward` has a quicker way for one token with a cache."""
    own, passes = TinyMLP.forward, 0

    def forward(ffn: TinyMLP, x: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes <= 3:  # the first pass of three blocks
            return own(ffn, x)
        hidden = F.linear(x, ffn.fc1.weight, ffn.fc1.bias)
        return F.linear(F.gelu(hidden, approximate="tanh"), ffn.fc2.weight, ffn.fc2.bias)

    monkeypatch.setattr(TinyMLP, "forward", forward)
    with wrapped(adapter) as model, intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(BypassedNeuronsError, match=r"blocks\.1\.ffn\.fc1"):
            edited.complete(tokens[:, :0], Condition.of(labels), GREEDY)
    assert passes > 3


def fuse(adapter: TinyAdapter, block: int) -> None:
    ffn = adapter.network.blocks[block].ffn

    def fused(x: torch.Tensor) -> torch.Tensor:
        hidden = F.linear(x, ffn.fc1.weight, ffn.fc1.bias)
        return F.linear(F.gelu(hidden, approximate="tanh"), ffn.fc2.weight, ffn.fc2.bias)

    ffn.forward = fused


def test_a_layout_that_names_no_module_is_refused(adapter: TinyAdapter) -> None:
    del adapter.network.blocks[2].ffn.act
    with pytest.raises(WeightsError, match=r"blocks\.2\.ffn\.act"):
        ImageARModel(adapter)


def test_a_full_prefix_is_reproduced(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    assert torch.equal(model.complete(tokens, Condition.of(labels), GREEDY), tokens)


def test_reading_keeps_no_tensors_alive(
    model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    inputs = model.adapter.teacher_forced(tokens, Condition.of(labels))

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
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype
) -> None:
    with wrapped(adapter) as model, model.borrowed():
        inputs = adapter.teacher_forced(tokens, Condition.of(labels))
        exact = model.read_neurons(inputs)
        adapter.network.to(dtype)
        rough = model.read_neurons(inputs)
        completed = model.complete(tokens[:, :1], Condition.of(labels), GREEDY)
    assert rough.dtype == torch.float32  # sums stay in float32
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.02)  # bfloat16 has 8 bits
    assert completed.shape == tokens.shape
