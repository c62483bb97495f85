"""Edits of neurons' values: made at every visit, checked, and with no weights to show."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import ActivationIntervention, AnyIntervention, Condition
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import Clamp, MeanAblate, ScaleWeights, Zero
from iarmem_plugin.testing.tiny import TinyAdapter

from .conftest import GREEDY, assert_same_state, state_of
from .mlps import KINDS, NEURONS, with_mlps
from .test_mlps import CHOSEN, HalveColumns, three

MEANS = xr.DataArray(
    np.linspace(0, 1, 3 * NEURONS, dtype=np.float32).reshape(3, NEURONS), dims=("block", "neuron")
)


@pytest.fixture(params=KINDS)
def adapter(request: pytest.FixtureRequest) -> TinyAdapter:
    return with_mlps(request.param)


def through(adapter: TinyAdapter, run: Callable[[], object]) -> list[tuple[torch.Tensor, ...]]:
    """Return what block 1 would give its outgoing map, and what that map returns, by visit.

    A hook of torch stands outside of nnsight: it sees the input as it was before an edit.
    """
    found: list[tuple[torch.Tensor, ...]] = []
    module = adapter.network.get_submodule(adapter.layout.mlp.writes.path.format(block=1))
    with torch.no_grad():
        handle = module.register_forward_hook(lambda _m, given, out: found.append((given[0], out)))
        run()
        handle.remove()
    return found


EDITS = [
    (MeanAblate(), lambda values: torch.tensor(MEANS.values[1, CHOSEN]).expand_as(values)),
    (Clamp(-0.05, 0.1), lambda values: values.clamp(-0.05, 0.1)),
]


@pytest.mark.parametrize(("change", "expected"), EDITS, ids=["mean-ablate", "clamp"])
def test_values_are_changed_at_every_visit_of_a_completion(
    adapter: TinyAdapter,
    condition: Condition,
    change: AnyIntervention,
    expected: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    before, path = state_of(adapter), adapter.layout.mlp.writes.path.format(block=1)
    plain_map = copy.deepcopy(adapter.network.get_submodule(path))
    with wrapped(adapter) as model, intervene(model, three(), change, mean=MEANS) as edited:
        prefix = torch.zeros(4, 1, dtype=torch.int64)
        visits = through(adapter, lambda: edited.complete(prefix, condition, GREEDY))
    assert [given.shape[1] for given, _ in visits] == [4, 16]
    for given, returned in visits:
        wanted = given.clone()
        wanted[..., CHOSEN] = expected(given[..., CHOSEN])
        assert not torch.equal(wanted, given)
        with torch.no_grad():
            assert torch.equal(returned, plain_map(wanted))
    assert_same_state(before, state_of(adapter))


def test_what_is_captured_of_changed_values_is_changed(
    adapter: TinyAdapter, tokens: torch.Tensor, condition: Condition
) -> None:
    model, inputs = ImageARModel(adapter), adapter.teacher_forced(tokens, condition)
    with model.borrowed(), intervene(model, three(), Clamp(0.5, 0.5)) as edited:
        read, plain = edited.read_neurons(inputs), model.read_neurons(inputs)
    assert torch.equal(read[:, 1][..., CHOSEN], torch.full((4, 3, 3), 0.5))
    others = np.setdiff1d(np.arange(NEURONS), CHOSEN)
    assert torch.equal(read[:, 1][..., others], plain[:, 1][..., others])
    assert torch.equal(read[:, 0], plain[:, 0])


@pytest.mark.parametrize("first", ["values", "columns"])
def test_edits_of_values_and_of_columns_compose_in_either_order(
    adapter: TinyAdapter, tokens: torch.Tensor, condition: Condition, first: str
) -> None:
    changes = {"values": Clamp(0.5, 0.5), "columns": HalveColumns()}
    second = next(name for name in changes if name != first)
    path = adapter.layout.mlp.writes.path.format(block=1)
    halved = copy.deepcopy(adapter.network.get_submodule(path))
    with torch.no_grad():
        (halved.weight if "c_proj" in path else halved.weight.T)[CHOSEN] /= 2
    model = ImageARModel(adapter)
    with intervene(model, three(), changes[first]) as once:
        with intervene(once, three(), changes[second]) as twice:
            ((given, returned),) = through(adapter, lambda: twice.logits(tokens, condition))
    wanted = given.clone()
    wanted[..., CHOSEN] = 0.5
    with torch.no_grad():
        torch.testing.assert_close(returned, halved(wanted), rtol=0, atol=1e-6)  # a sum of two


def test_later_values_are_made_of_earlier_ones(
    adapter: TinyAdapter, tokens: torch.Tensor, condition: Condition
) -> None:
    model, inputs = ImageARModel(adapter), adapter.teacher_forced(tokens, condition)
    with model.borrowed(), intervene(model, three(), Clamp(0.5, 0.5)) as once:
        with intervene(once, three(), Doubled()) as twice:
            assert torch.equal(
                twice.read_neurons(inputs)[:, 1][..., CHOSEN], torch.full((4, 3, 3), 1.0)
            )


class Doubled(ActivationIntervention):
    name = "doubled"
    parameters = {}  # noqa: RUF012  # as plugins write it

    def apply(self, neuron, facts):
        return neuron.mul_(2)  # a copy, so nothing else is doubled


RETURNED = {
    "shape": (lambda v: v[:, :1], r"'odd' returned values of shape \(4, 1, 3\) .*\(4, 21, 3\)"),
    "dtype": (lambda v: v.double(), "'odd' returned values of .*float64, expected .*float32"),
    "not finite": (lambda v: v / 0, "'odd' returned values that are not finite, in block 1"),
    "type": (lambda v: None, "'odd' returned NoneType, expected a tensor"),
}


@pytest.mark.parametrize("what", RETURNED)
def test_what_is_no_value_is_refused_by_name(
    what: str, tokens: torch.Tensor, condition: Condition
) -> None:
    returned, said = RETURNED[what]

    class Odd(Doubled):
        name = "odd"

        def apply(self, neuron, facts):
            return returned(neuron)

    model = ImageARModel(with_mlps("gated"))
    with torch.no_grad(), intervene(model, three(), Odd()) as edited:
        with pytest.raises(PluginError, match=said):
            edited.logits(tokens, condition)


def test_values_are_not_edited_in_the_weights() -> None:
    model = ImageARModel(with_mlps("plain"))
    with pytest.raises(InputError, match="'clamp' changes values and no weights: use backend='tr"):
        with intervene(model, three(), Clamp(), backend="weights"):
            pass


@pytest.mark.parametrize(
    ("mean", "said"),
    [(None, "is not known"), (MEANS.where(MEANS > 0.5), "is not finite in block 1")],
    ids=["none", "NaN"],
)
def test_mean_ablation_without_means_is_refused_by_name(
    mean: xr.DataArray | None, said: str
) -> None:
    model = ImageARModel(with_mlps("plain"))
    with pytest.raises(InputError, match=rf"'mean-ablate' needs .*{said}: give mean=scores"):
        with intervene(model, three(), MeanAblate(), mean=mean):
            pass


def test_means_of_another_model_are_refused() -> None:
    model = ImageARModel(with_mlps("plain"))
    with pytest.raises(InputError, match=r"means of sizes .*'block': 2.*'block': 3"):
        with intervene(model, three(), MeanAblate(), mean=MEANS[:2]):
            pass


@pytest.mark.parametrize("name", ["state_dict", "save_pretrained", "load_state_dict"])
def test_a_model_with_edited_values_has_no_weights_to_show(name: str) -> None:
    model = ImageARModel(with_mlps("plain"))
    with intervene(model, three(), Zero()) as once, intervene(once, three(), Clamp()) as edited:
        with pytest.raises(InputError, match=r"'clamp' changes the values .*no weights to show"):
            getattr(edited, name)()
        assert once.state_dict()


def test_an_intervention_sees_the_mean_of_its_neurons_in_weights_too() -> None:
    seen = []

    class Looking(ScaleWeights):
        def edit(self, neurons):
            seen.append((neurons.block, neurons.index.tolist(), neurons.mean.tolist()))
            return super().edit(neurons)

    model = ImageARModel(with_mlps("plain"))
    for backend in ("trace", "weights"):
        with intervene(model, three(), Looking(), backend=backend, mean=MEANS):
            pass
    assert seen == [(1, CHOSEN, MEANS.values[1, CHOSEN].tolist())] * 2
