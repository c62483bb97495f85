"""Plain, Conv1D, gated, fused and bias-free MLPs: read, edited in both ways, and described."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin.errors import BypassedNeuronsError, InputError, WeightsError
from iarmem_plugin.interfaces import (
    MLP,
    AnyIntervention,
    Condition,
    NeuronWeights,
    Reads,
    Writes,
)
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleBiases, ScaleWeights, Zero
from iarmem_plugin.testing.tiny import TinyAdapter

from .conftest import GREEDY, assert_same_state, state_of
from .mlps import FUSED, GATED, KINDS, NEURONS, PREFIX, with_mlps

BACKENDS = ("trace", "weights")
CHOSEN = [3, 17, 40]


def three(block: int = 1) -> xr.DataArray:
    selected = np.zeros((3, NEURONS), bool)
    selected[block, CHOSEN] = True
    return xr.DataArray(selected, dims=("block", "neuron"))


def seen_by_hooks(adapter: TinyAdapter, run: Callable[[], object]) -> list[list[torch.Tensor]]:
    """Return what each block's outgoing map is given at each of its visits."""
    seen: list[list[torch.Tensor]] = [[] for _ in adapter.network.blocks]
    handles = []
    for block, found in enumerate(seen):
        path = adapter.layout.mlp.writes.path.format(block=block)
        module = adapter.network.get_submodule(path)
        handles.append(
            module.register_forward_pre_hook(lambda _m, given, f=found: f.append(given[0].clone()))
        )
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_captured_is_what_the_outgoing_map_reads(
    kind: str, tokens: torch.Tensor, condition: Condition
) -> None:
    adapter = with_mlps(kind)
    inputs = adapter.teacher_forced(tokens, condition)
    seen = seen_by_hooks(adapter, lambda: adapter.network(*inputs.args))
    model = ImageARModel(adapter)
    with model.borrowed():
        read = model.read_neurons(inputs)
    spans = ((0, 1), (1, 5), (5, 21))
    for block, (values,) in enumerate(seen):
        means = [values[:, a:b].abs().mean(1) for a, b in spans]
        assert torch.equal(read[:, block], torch.stack(means, 1))


class HalveColumns(ScaleWeights):
    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        return replace(neurons, writes=neurons.writes / 2)


class Everything(ScaleWeights):
    """Changes all that there is."""

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        biases = {name: one if one is None else one + 0.3 for name, one in neurons.biases.items()}
        return replace(super().edit(neurons), biases=biases, writes=neurons.writes / 2)


@torch.no_grad()
def edited_by_hand(kind: str, network: nn.Module, what: str) -> None:
    """Change three neurons of block 1 in plain torch, as ``what`` says."""
    ffn, chosen = network.blocks[1].ffn, torch.tensor(CHOSEN)
    maps = {
        "plain": ("fc1",),
        "bias-free": ("fc1",),
        "Conv1D": ("c_fc",),
        "gated": ("gate", "up"),
        "fused": ("gate_up",),
    }
    both = torch.cat((chosen, chosen + NEURONS)) if kind == "fused" else chosen
    out = {"plain": "fc2", "bias-free": "fc2", "Conv1D": "c_proj"}.get(kind, "down")
    weight = ffn.get_submodule(out).weight
    if what in ("columns", "everything"):
        (weight.T if kind == "Conv1D" else weight)[:, chosen] /= 2
    for module in (ffn.get_submodule(name) for name in maps[kind]):
        rows = module.weight.T if kind == "Conv1D" else module.weight
        if what in ("rows", "everything"):
            rows[both] *= 0.25
        if what == "everything" and module.bias is not None:
            module.bias[both] += 0.3


EDITS = {"rows": ScaleWeights(0.25), "columns": HalveColumns(), "everything": Everything(0.25)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_the_one_made_by_hand_and_leaves_nothing_behind(
    kind: str, what: str, backend: str, tokens: torch.Tensor, condition: Condition
) -> None:
    adapter = with_mlps(kind)
    model = ImageARModel(adapter)
    before, inputs = state_of(adapter), adapter.teacher_forced(tokens, condition)
    by_hand = with_mlps(kind)
    edited_by_hand(kind, by_hand.network, what)
    with torch.no_grad():
        original = model.logits(tokens, condition)
        expected = by_hand.network(*inputs.args)
        with intervene(model, three(), EDITS[what], backend=backend) as edited:
            torch.testing.assert_close(
                edited.logits(tokens, condition), expected, rtol=0, atol=1e-5
            )
            state = edited.state_dict()
    assert (expected - original).abs().max() > 1e-4
    assert_same_state(before, state_of(adapter))
    own = by_hand.network.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in own)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_chosen_neurons_of_that_block_change(
    kind: str, backend: str, tokens: torch.Tensor, condition: Condition
) -> None:
    adapter = with_mlps(kind)
    model, inputs = ImageARModel(adapter), adapter.teacher_forced(tokens, condition)
    with model.borrowed():
        plain = model.read_neurons(inputs)
        with intervene(model, three(), Zero(), backend=backend) as edited:
            changed = edited.read_neurons(inputs)
    others = torch.ones(NEURONS, dtype=torch.bool)
    others[CHOSEN] = False
    assert torch.equal(changed[:, 0], plain[:, 0])
    assert torch.equal(changed[:, 1][..., others], plain[:, 1][..., others])
    assert not changed[:, 1][..., CHOSEN].any()
    assert plain[:, 1][..., CHOSEN].all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_visit_of_a_completion_is_edited(
    kind: str, backend: str, condition: Condition
) -> None:
    adapter = with_mlps(kind)
    model, empty = ImageARModel(adapter), torch.empty(4, 0, dtype=torch.int64)
    with intervene(model, three(), Zero(), backend=backend) as edited:
        seen = seen_by_hooks(adapter, lambda: edited.complete(empty, condition, GREEDY))
    assert [values.shape[1] for values in seen[1]] == [1, 4, 16]
    assert not any(values[..., CHOSEN].any() for values in seen[1])
    assert all(values[..., CHOSEN].any() for values in seen[0])


def test_an_edit_of_columns_recomputes_no_row(tokens: torch.Tensor, condition: Condition) -> None:
    adapter = with_mlps("fused")
    model, inputs = ImageARModel(adapter), adapter.teacher_forced(tokens, condition)
    with model.borrowed():
        plain = model.read_neurons(inputs)
        with intervene(model, three(), HalveColumns()) as edited:
            assert torch.equal(edited.read_neurons(inputs)[:, 1], plain[:, 1])


@pytest.mark.parametrize("reads", [("gate",), ("up",)])
@pytest.mark.parametrize("kind", ["gated", "fused"])
def test_one_map_of_a_gated_mlp_can_be_scaled_alone(
    kind: str, reads: tuple[str, ...], tokens: torch.Tensor, condition: Condition
) -> None:
    found = []
    for backend in BACKENDS:
        model = ImageARModel(with_mlps(kind))
        with torch.no_grad(), model.borrowed():
            change = ScaleWeights(0.0, reads=reads)
            with intervene(model, three(), change, backend=backend) as edited:
                found.append(edited.logits(tokens, condition))
            original = model.logits(tokens, condition)
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)
    assert not torch.equal(found[0], original)


@pytest.mark.parametrize("backend", BACKENDS)
def test_biases_that_a_model_does_not_have_are_refused_by_name(backend: str) -> None:
    model = ImageARModel(with_mlps("gated"))
    said = r"'scale-biases' cannot be made: the map 'gate' into the neurons of block 1 has no bias"
    with pytest.raises(InputError, match=said):
        with intervene(model, three(), ScaleBiases(), backend=backend):
            pass


@pytest.mark.parametrize("intervention", [ScaleWeights(0.5)], ids=repr)
def test_reads_named_in_another_order_than_they_are_called_in_are_refused(
    intervention: AnyIntervention, tokens: torch.Tensor, condition: Condition
) -> None:
    turned = MLP(GATED.writes, dict(reversed(GATED.reads.items())))
    model = ImageARModel(with_mlps("gated", turned))
    said = "reads must be named in the order in which the block calls them, and are named up, gate"
    with intervene(model, three(), intervention) as edited, torch.no_grad():
        with pytest.raises(BypassedNeuronsError, match=said):
            edited.logits(tokens, condition)


WRONG = [
    (
        "Conv1D",
        MLP(Writes(f"{PREFIX}.c_proj", 0), {"fc1": Reads(f"{PREFIX}.c_fc")}),
        r"'blocks\.0\.ffn\.c_fc\.weight' has the shape \(32, 48\).*Conv1D needs features=1",
    ),
    (
        "Conv1D",
        MLP(Writes(f"{PREFIX}.c_proj"), {"fc1": Reads(f"{PREFIX}.c_fc", features=1)}),
        r"'blocks\.0\.ffn\.c_proj\.weight' has the shape \(48, 32\).*Conv1D needs features=0",
    ),
    (
        "plain",
        MLP(Writes(f"{PREFIX}.fc2"), {"fc1": Reads(f"{PREFIX}.fc1", features=1)}),
        r"'blocks\.0\.ffn\.fc1\.weight' .*Linear needs features=0",
    ),
    (
        "fused",
        MLP(FUSED.writes, {"fc1": Reads(f"{PREFIX}.gate_up")}),
        r"gate_up\.weight' has the shape \(96, 32\).*first=\[0\] and 48 neurons",
    ),
    (
        "fused",
        MLP(FUSED.writes, {n: Reads(f"{PREFIX}.gate_up", k) for n, k in {"a": 0, "b": 47}.items()}),
        r"gate_up\.weight' .*first=\[0, 47\]",
    ),
    (
        "fused",
        MLP(FUSED.writes, {"up": Reads(f"{PREFIX}.gate_up", 49)}),
        r"gate_up\.weight' .*first=\[49\]",
    ),
]


@pytest.mark.parametrize(("kind", "mlp", "said"), WRONG)
def test_a_layout_that_does_not_fit_the_maps_is_refused_when_the_model_is_wrapped(
    kind: str, mlp: MLP, said: str
) -> None:
    with pytest.raises(WeightsError, match=said):
        ImageARModel(with_mlps(kind, mlp))


def test_another_number_of_neurons_is_refused_in_the_block_that_has_it() -> None:
    adapter = with_mlps("plain")
    adapter.network.blocks[2].ffn = copy.deepcopy(adapter.network.blocks[2].ffn)
    adapter.network.blocks[2].ffn.fc2 = nn.Linear(47, 32)
    with pytest.raises(WeightsError, match=r"'blocks\.2\.ffn\.fc2\.weight' .*\(32, 47\).*48 neur"):
        ImageARModel(adapter)


@pytest.mark.parametrize(
    ("paths", "said"),
    [(("blocks.0.fc2", "{block}.a"), r"'blocks\.0\.fc2'.*same module"), (("", "{block}.a"), "''")],
)
def test_paths_without_a_block_are_refused(paths: tuple[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        MLP(Writes(paths[0]), {"fc1": Reads(paths[1])})


def test_an_mlp_without_reads_is_refused() -> None:
    with pytest.raises(InputError, match="no reads"):
        MLP(Writes("{block}.down"), {})


def test_the_site_of_an_input_says_so() -> None:
    assert str(GATED.site) == "blocks.{block}.ffn.down (input)"
