"""Several wrappers of one network, and edits and reads that something has undone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nnsight import NNsight
from nnsight import save as nnsight_save
from torch import nn

from iarmem_plugin.errors import BypassedNeuronsError
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.testing.tiny import TinyAdapter

from .conftest import GREEDY, assert_same_state, state_of, whole_block


def zeroed(model: ImageARModel, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), intervene(model, whole_block(1), Zero()) as edited:
        return edited.logits(tokens, Condition.of(labels))


def test_unwrapping_one_wrapper_leaves_the_other_alone(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    before = state_of(adapter)
    first, second = ImageARModel(adapter), ImageARModel(adapter)
    expected = zeroed(second, tokens, labels)
    with second.borrowed():
        read = second.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))
    first.unwrap()
    assert torch.equal(zeroed(second, tokens, labels), expected)
    with second.borrowed():
        again = second.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))
    assert torch.equal(again, read)
    second.unwrap()
    assert_same_state(before, state_of(adapter))


def test_a_wrapper_that_is_forgotten_does_not_keep_the_shadows(adapter: TinyAdapter) -> None:
    before = state_of(adapter)
    first, second = ImageARModel(adapter), ImageARModel(adapter)
    del first
    second.unwrap()
    assert_same_state(before, state_of(adapter))


def test_unwrapping_leaves_someone_elses_nnsight_model_alone(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    model = ImageARModel(adapter)
    theirs = NNsight(adapter.network)
    inputs = adapter.teacher_forced(tokens, Condition.of(labels))
    model.unwrap()
    with torch.no_grad(), theirs.trace(*inputs.args):
        read = nnsight_save(theirs.blocks[1].ffn.act.output)
    assert read.shape == (4, 21, 128)


def test_a_forward_of_the_users_comes_back(adapter: TinyAdapter) -> None:
    act = adapter.network.blocks[0].ffn.act
    act.forward = own = torch.tanh
    with wrapped(adapter), wrapped(adapter):
        pass
    assert act.forward is own


def test_a_forward_set_after_wrapping_is_not_taken_away(adapter: TinyAdapter) -> None:
    model = ImageARModel(adapter)
    act = adapter.network.blocks[0].ffn.act
    act.forward = torch.tanh
    model.unwrap()
    assert act.forward is torch.tanh
    assert "__nnsight__" not in act.__dict__


def take_shadow(adapter: TinyAdapter) -> None:
    del adapter.network.blocks[1].ffn.fc1.forward


def overwrite(adapter: TinyAdapter) -> None:
    fc1 = adapter.network.blocks[1].ffn.fc1
    fc1.forward = lambda x: nn.functional.linear(x, fc1.weight, fc1.bias)


def overwrite_block(adapter: TinyAdapter) -> None:
    block = adapter.network.blocks[1]
    block.forward = lambda x: x + block.ffn(block.norm(x))


def replace(adapter: TinyAdapter) -> None:
    adapter.network.blocks[1].ffn.fc1 = nn.Linear(32, 128)


def replace_block(adapter: TinyAdapter) -> None:
    adapter.network.blocks[1] = TinyAdapter.make(seed=1).network.blocks[1]


UNDONE = [
    (take_shadow, r"'blocks\.1\.ffn\.fc1' is out of nnsight's sight"),
    (overwrite, r"'blocks\.1\.ffn\.fc1' is out of nnsight's sight"),
    (overwrite_block, r"'blocks\.1' is out of nnsight's sight"),
    (replace, r"'blocks\.1\.ffn\.fc1' was replaced"),
    (replace_block, r"'blocks\.1' was replaced"),
]


@pytest.mark.parametrize(("undo", "said"), UNDONE)
@pytest.mark.parametrize("call", ["logits", "complete", "trace"])
def test_an_edit_that_cannot_act_is_refused(
    adapter: TinyAdapter,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    undo: Callable[[TinyAdapter], None],
    said: str,
    call: str,
) -> None:
    model = ImageARModel(adapter)
    with torch.no_grad(), intervene(model, whole_block(1), Zero()) as edited:
        undo(adapter)
        with pytest.raises(BypassedNeuronsError, match=said):
            if call == "logits":
                edited.logits(tokens, Condition.of(labels))
            elif call == "complete":
                edited.complete(tokens[:, :1], Condition.of(labels), GREEDY)
            else:
                inputs = adapter.teacher_forced(tokens, Condition.of(labels))
                with edited.trace(*inputs.args):
                    nnsight_save(edited.head.output)


@pytest.mark.parametrize("undo", [lambda adapter: None, take_shadow, overwrite, overwrite_block])
def test_wrapping_again_is_the_cure(
    adapter: TinyAdapter,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    undo: Callable[[TinyAdapter], None],
) -> None:
    model = ImageARModel(adapter)
    expected = zeroed(model, tokens, labels)
    undo(adapter)
    again = ImageARModel(adapter)
    assert torch.equal(zeroed(again, tokens, labels), expected)
    assert torch.equal(zeroed(model, tokens, labels), expected)  # it is reached again, too


def test_reading_says_what_was_replaced(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    model = ImageARModel(adapter)
    adapter.network.blocks[2].ffn.act = nn.GELU(approximate="tanh")
    with model.borrowed(), pytest.raises(BypassedNeuronsError, match=r"blocks\.2\.ffn\.act.* repl"):
        model.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))


@pytest.mark.parametrize("call", ["read", "edit"])
def test_an_unwrapped_model_says_that_it_is_unwrapped(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor, call: str
) -> None:
    model, other = ImageARModel(adapter), ImageARModel(adapter)
    with torch.no_grad(), intervene(model, whole_block(1), Zero()) as edited:
        model.unwrap()
        with pytest.raises(BypassedNeuronsError, match="was unwrapped: wrap the network again"):
            if call == "edit":
                edited.complete(tokens[:, :1], Condition.of(labels), GREEDY)
            else:
                model.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))
    assert zeroed(other, tokens, labels).shape == (4, 21, 16)


def test_a_trace_of_another_nnsight_model_that_takes_the_neurons_is_named(
    adapter: TinyAdapter, labels: torch.Tensor
) -> None:
    theirs = NNsight(adapter.network)  # first, so nnsight serves it first
    model = ImageARModel(adapter)
    empty = torch.empty(4, 0, dtype=torch.int64)
    with intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(BypassedNeuronsError, match="a trace of another nnsight model"):
            with theirs.trace(empty, Condition.of(labels), GREEDY, fn=edited.complete):
                nnsight_save(theirs.head.output)


def test_a_network_that_goes_round_its_blocks_is_noticed(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    model = ImageARModel(adapter)
    inputs = adapter.teacher_forced(tokens, Condition.of(labels))
    with torch.no_grad(), intervene(model, whole_block(1), Zero()) as edited:
        kept = edited(*inputs.args)
        adapter.network.forward = lambda *_, **__: kept  # as a replayed graph does
        with pytest.raises(BypassedNeuronsError, match=r"never called 'blocks\.1\.ffn\.fc1'"):
            edited.logits(tokens, Condition.of(labels))


def test_reading_an_edited_model_notices_an_fc1_that_is_gone_round(
    adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor
) -> None:
    ffn = adapter.network.blocks[1].ffn
    ffn.forward = lambda x: ffn.fc2(ffn.act(nn.functional.linear(x, ffn.fc1.weight, ffn.fc1.bias)))
    model = ImageARModel(adapter)
    with intervene(model, whole_block(1), Zero()) as edited, edited.borrowed():
        with pytest.raises(BypassedNeuronsError, match=r"blocks\.1\.ffn\.fc1"):
            edited.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))
