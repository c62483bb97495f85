"""Edits in place: they act, and whatever interrupts them, the weights come back bit for bit."""

from __future__ import annotations

import gc
import signal
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils._python_dispatch import TorchDispatchMode

from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Condition, NeuronWeights, Sampling
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights, ScaleWeightsAndBiases, Zero
from iarmem_plugin.testing.tiny import TinyAdapter

HALVE = ScaleWeightsAndBiases(0.3)


def some(fraction: float, seed: int = 0) -> xr.DataArray:
    chosen = np.random.default_rng(seed).random((3, 128)) < fraction
    return xr.DataArray(chosen, dims=("block", "neuron"))


def weights(adapter: TinyAdapter) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in adapter.network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


class Interrupting(TorchDispatchMode):
    """Raises instead of the writes of these numbers, as Ctrl-C would in the middle."""

    def __init__(self, *numbers: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self.numbers, self.error, self.count = set(numbers), error, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_):
            self.count += 1
            if self.count in self.numbers:
                raise self.error
        return func(*args, **(kwargs or {}))


def edit_thrice(model: ImageARModel, mode: TorchDispatchMode | None = None) -> None:
    """Make three edits of which the first is left before the others."""
    with ExitStack() as stack:
        if mode is not None:
            stack.enter_context(mode)
        others = stack.enter_context(ExitStack())
        first = intervene(model, some(0.3), HALVE, backend="weights")
        with first:
            others.enter_context(intervene(model, some(0.6), HALVE, backend="weights"))
            others.enter_context(intervene(model, some(0.5, 1), Zero(), backend="weights"))


# three of each edit in each of three blocks: 3 made; 3 put back and 2 made anew; 2 put back
EVERY_WRITE = range(1, 9 * (3 + 3 + 2 + 2) + 1)


def test_three_edits_make_as_many_writes_as_are_interrupted_below() -> None:
    mode = Interrupting()
    edit_thrice(ImageARModel(TinyAdapter.make()), mode)
    assert mode.count == len(EVERY_WRITE)


@pytest.mark.parametrize(
    ("error", "numbers"),
    [(KeyboardInterrupt, EVERY_WRITE), (RuntimeError, range(5, 91, 9))],
    ids=["Ctrl-C", "an error"],
)
def test_an_interruption_at_any_write_leaves_no_weight_edited(
    adapter: TinyAdapter, error: type[BaseException], numbers: range
) -> None:
    model, before = ImageARModel(adapter), weights(adapter)
    for number in numbers:
        with pytest.raises(error):
            edit_thrice(model, Interrupting(number, error=error))
        assert same(before, weights(adapter)), number


@pytest.mark.parametrize("use", ["edit", "borrow", "complete", "state", "forget"])
def test_what_is_interrupted_again_is_finished_by_the_next_use(use: str) -> None:
    adapter = TinyAdapter.make()
    before, model = weights(adapter), ImageARModel(adapter)
    edit = intervene(model, some(0.5), HALVE, backend="weights")
    edit.__enter__()
    with Interrupting(5, 9), pytest.raises(KeyboardInterrupt):  # while it is put back, twice
        edit.__exit__(None, None, None)
    assert not same(before, weights(adapter))
    if use == "edit":
        with intervene(model, some(0.1), ScaleWeights(1.0), backend="weights"):
            assert same(before, weights(adapter))
    elif use == "borrow":
        with model.borrowed():
            pass
    elif use == "complete":
        model.complete(
            torch.empty(1, 0, dtype=torch.int64), Condition.of(torch.tensor([0])), Sampling()
        )
    elif use == "state":
        assert same(before, model.state_dict())
    else:  # as at the end of Python
        del model, edit
        gc.collect()
    assert same(before, weights(adapter))


def test_ctrl_c_while_weights_are_put_back_waits_for_the_last_one() -> None:
    class Pressing(Interrupting):
        def __torch_dispatch__(self, *args: Any, **kwargs: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return super().__torch_dispatch__(*args, **kwargs)

    adapter = TinyAdapter.make()
    before = weights(adapter)
    edit = intervene(ImageARModel(adapter), some(0.5), HALVE, backend="weights")
    edit.__enter__()
    # a test runner in the background may have been started without it
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Pressing() as mode, pytest.raises(KeyboardInterrupt):
            edit.__exit__(None, None, None)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert mode.count == 9
    assert same(before, weights(adapter))


def test_edits_through_two_wrappers_of_one_network_know_of_each_other() -> None:
    adapter = TinyAdapter.make()
    before = weights(adapter)
    first = intervene(ImageARModel(adapter), some(0.3), HALVE, backend="weights")
    second = intervene(ImageARModel(adapter), some(0.6), HALVE, backend="weights")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert same(before, weights(adapter))


def test_a_module_taken_out_meanwhile_gets_its_weights_back() -> None:
    adapter = TinyAdapter.make()
    ffn = adapter.network.blocks[1].ffn
    own, new = ffn.fc1, torch.nn.Linear(32, 128)
    before, untouched = own.weight.detach().clone(), new.weight.detach().clone()
    with intervene(ImageARModel(adapter), some(0.5), Zero(), backend="weights"):
        ffn.fc1 = new
    assert torch.equal(own.weight, before)
    assert torch.equal(new.weight, untouched)


def test_weights_that_two_blocks_share_come_back() -> None:
    adapter = TinyAdapter.make()
    blocks = adapter.network.blocks
    blocks[2].ffn.fc1.weight = blocks[0].ffn.fc1.weight
    before = weights(adapter)
    with intervene(ImageARModel(adapter), some(0.5), HALVE, backend="weights"):
        assert not same(before, weights(adapter))
    assert same(before, weights(adapter))


def test_an_edit_acts_under_autocast_which_keeps_casts_of_the_weights(
    adapter: TinyAdapter,
) -> None:
    model = ImageARModel(adapter)
    tokens = torch.zeros(2, 21, dtype=torch.int64)
    labels = torch.tensor([0, 1])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = model.logits(tokens, Condition.of(labels))
        with intervene(model, some(1.0), Zero(), backend="weights") as edited:
            assert not torch.equal(edited.logits(tokens, Condition.of(labels)), before)
        assert torch.equal(model.logits(tokens, Condition.of(labels)), before)


def test_weights_that_are_computed_at_every_pass_are_not_edited_in_vain(
    adapter: TinyAdapter,
) -> None:
    torch.nn.utils.parametrizations.weight_norm(adapter.network.blocks[1].ffn.fc1)
    before, model = weights(adapter), ImageARModel(adapter)
    with pytest.raises(InputError, match=r"'blocks\.1\.ffn\.fc1\.weight' is no parameter of its"):
        with intervene(model, some(0.5), Zero(), backend="weights"):
            pass
    assert same(before, weights(adapter))


def renamed(neurons: NeuronWeights) -> NeuronWeights:
    return replace(neurons, reads={"gate": neurons.fc1_weight})


@pytest.mark.parametrize("backend", ["trace", "weights"])
@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            lambda w: replace(w, reads={"fc1": w.fc1_weight * float("nan")}),
            "'odd' of .* returned reads 'fc1' with values that are not finite",
        ),
        (
            lambda w: replace(w, reads={"fc1": w.fc1_weight[:, :1]}),
            r"'odd' of .* returned reads 'fc1' of shape \(128, 1\) .*, expected \(128, 32\) and",
        ),
        (
            lambda w: replace(w, biases={"fc1": w.fc1_bias.double()}),
            r"'odd' of .* biases 'fc1' of shape \(128,\) and torch.float64, expected .*float32",
        ),
        (
            lambda w: replace(w, writes=w.writes[:1]),
            r"'odd' of .* writes of shape \(1, 128\) and torch.float32, expected \(32, 128\)",
        ),
        (lambda w: replace(w, biases={"fc1": None}), "'odd' of .* returned biases 'fc1' as None"),
        (renamed, r"'odd' of .* returned the reads \['gate'\], expected \['fc1'\]"),
        (lambda w: None, "'odd' of .* returned None, expected NeuronWeights"),
    ],
    ids=["not finite", "shape", "dtype", "writes", "no bias", "name", "type"],
)
def test_an_intervention_that_returns_what_is_no_weight_is_refused(
    adapter: TinyAdapter, backend: str, returned: Any, said: str
) -> None:
    class Odd(ScaleWeights):
        name = "odd"

        def edit(self, neurons):
            return returned(neurons)

    before, model = weights(adapter), ImageARModel(adapter)
    with pytest.raises(PluginError, match=said):
        with intervene(model, some(1.0), Odd(), backend=backend):
            pass
    assert same(before, weights(adapter))


@pytest.mark.parametrize("backend", ["trace", "weights"])
def test_an_intervention_that_writes_into_its_argument_leaves_the_model_alone(
    adapter: TinyAdapter, backend: str
) -> None:
    class Careless(ScaleWeights):
        def edit(self, neurons: NeuronWeights) -> NeuronWeights:
            neurons.fc1_weight.zero_()
            neurons.fc1_bias.zero_()
            neurons.writes.zero_()
            return neurons

    before, model = weights(adapter), ImageARModel(adapter)
    with intervene(model, some(0.5), Careless(), backend=backend) as edited:
        chosen = torch.from_numpy(some(0.5).values[1])
        state = edited.state_dict()
        assert not state["blocks.1.ffn.fc1.weight"][chosen].any()
        assert not state["blocks.1.ffn.fc2.weight"][:, chosen].any()
    assert same(before, weights(adapter))
