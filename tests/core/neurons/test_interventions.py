"""What each intervention does to a neuron's weights, worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Intervention, NeuronFacts, NeuronWeights
from iarmem_plugin.neurons.interventions import (
    Clamp,
    MeanAblate,
    ScaleBiases,
    ScaleOutgoing,
    ScaleWeights,
    ScaleWeightsAndBiases,
    Zero,
    ZeroWeights,
)


def neurons() -> NeuronWeights:
    return NeuronWeights(
        reads={"fc1": torch.tensor([[2.0, -4.0], [6.0, 8.0]])},
        biases={"fc1": torch.tensor([1.0, -3.0])},
        writes=torch.tensor([[5.0, 7.0]]),
        block=2,
        index=torch.tensor([3, 9]),
    )


def gated() -> NeuronWeights:
    """The same neurons with two maps, of which the first alone has a bias."""
    rows = {"gate": torch.tensor([[2.0, -4.0], [6.0, 8.0]]), "up": torch.tensor([[1.0, 3.0]] * 2)}
    biases = {"gate": torch.tensor([1.0, -3.0]), "up": None}
    return replace(neurons(), reads=rows, biases=biases)


@pytest.mark.parametrize(
    ("intervention", "weight", "bias"),
    [
        (ScaleWeights(), [[1.0, -2.0], [3.0, 4.0]], [1.0, -3.0]),
        (ScaleWeights(2.0), [[4.0, -8.0], [12.0, 16.0]], [1.0, -3.0]),
        (ScaleWeightsAndBiases(0.5), [[1.0, -2.0], [3.0, 4.0]], [0.5, -1.5]),
        (ZeroWeights(), [[0.0, 0.0], [0.0, 0.0]], [1.0, -3.0]),
        (ScaleBiases(3.0), [[2.0, -4.0], [6.0, 8.0]], [3.0, -9.0]),
        (Zero(), [[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]),
    ],
    ids=lambda value: value.name if isinstance(value, Intervention) else "",
)
def test_rows_and_biases_change_as_the_name_says(
    intervention: Intervention, weight: list[list[float]], bias: list[float]
) -> None:
    before = neurons()
    after = intervention.edit(before)
    assert after.fc1_weight.tolist() == weight
    assert after.fc1_bias.tolist() == bias
    assert after.fc2_weight.tolist() == [[5.0, 7.0]]
    assert before.fc1_weight.tolist() == neurons().fc1_weight.tolist()


@pytest.mark.parametrize(
    ("reads", "gate", "up"),
    [
        (None, [[1.0, -2.0], [3.0, 4.0]], [[0.5, 1.5]] * 2),
        (("gate",), [[1.0, -2.0], [3.0, 4.0]], [[1.0, 3.0]] * 2),
        ("up", [[2.0, -4.0], [6.0, 8.0]], [[0.5, 1.5]] * 2),
    ],
)
def test_scaling_says_which_maps_of_a_gated_mlp_it_scales(
    reads: tuple[str, ...] | str | None, gate: list[list[float]], up: list[list[float]]
) -> None:
    after = ScaleWeights(0.5, reads=reads).edit(gated())
    assert {name: rows.tolist() for name, rows in after.reads.items()} == {"gate": gate, "up": up}
    assert after.biases["gate"].tolist() == [1.0, -3.0]
    assert after.biases["up"] is None


def test_the_report_names_the_maps_where_they_were_given() -> None:
    assert ScaleWeights(0.5, reads=("gate", "up")).parameters == {
        "factor": 0.5,
        "reads": "gate, up",
    }


def test_a_map_that_is_not_there_is_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no map named 'fc1'.*there are gate, up"):
        ScaleWeights(0.5, reads=("fc1",)).edit(gated())
    with pytest.raises(InputError, match="reads is empty"):
        ScaleWeights(0.5, reads=())


@pytest.mark.parametrize("intervention", [ScaleBiases(), ScaleWeightsAndBiases()], ids=repr)
def test_biases_that_are_not_there_are_never_skipped(intervention: Intervention) -> None:
    with pytest.raises(InputError, match="the map 'up' into the neurons of block 2 has no bias"):
        intervention.edit(gated())
    scaled = type(intervention)(0.5, reads=("gate",)).edit(gated())
    assert scaled.biases["gate"].tolist() == [0.5, -1.5]


@pytest.mark.parametrize("made", [neurons, gated])
def test_scaling_what_goes_out_leaves_what_comes_in(made: Callable[[], NeuronWeights]) -> None:
    before, after = made(), ScaleOutgoing(0.25).edit(made())
    assert after.writes.tolist() == [[1.25, 1.75]]
    assert {name: rows.tolist() for name, rows in after.reads.items()} == {
        name: rows.tolist() for name, rows in before.reads.items()
    }
    assert str(after.biases) == str(before.biases)
    assert ScaleOutgoing(0.25).parameters == {"factor": 0.25}


def test_zero_is_zero_without_biases_too() -> None:
    after = Zero().edit(gated())
    assert [float(rows.abs().max()) for rows in after.reads.values()] == [0.0, 0.0]
    assert after.biases["gate"].tolist() == [0.0, 0.0]
    assert after.biases["up"] is None


@pytest.mark.parametrize("name", ["fc1_weight", "fc1_bias"])
def test_neurons_of_several_maps_have_no_one_map(name: str) -> None:
    with pytest.raises(InputError, match=f"no {name} where neurons have the maps gate, up"):
        getattr(gated(), name)


def test_a_bias_that_is_not_there_has_a_name() -> None:
    without = replace(neurons(), biases={"fc1": None})
    with pytest.raises(InputError, match="'fc1' into the neurons of block 2 has no bias"):
        without.fc1_bias  # noqa: B018  # that is the test
    with pytest.raises(InputError, match="no map named 'up'; these neurons have fc1"):
        without.bias("up")


VALUES = torch.tensor([[[-3.0, 0.5], [1.0, 4.0]]])  # an image of two tokens, two neurons


def test_mean_ablation_puts_the_mean_at_every_token() -> None:
    facts = NeuronFacts(0, torch.tensor([3, 9]), torch.tensor([0.25, 2.0]))
    assert MeanAblate().apply(VALUES, facts).tolist() == [[[0.25, 2.0], [0.25, 2.0]]]


@pytest.mark.parametrize(
    ("clamp", "expected"),
    [
        (Clamp(), [[[0.0, 0.0], [0.0, 0.0]]]),
        (Clamp(-1.0, 2.0), [[[-1.0, 0.5], [1.0, 2.0]]]),
        (Clamp(None, 0.75), [[[-3.0, 0.5], [0.75, 0.75]]]),
        (Clamp(0.75, None), [[[0.75, 0.75], [1.0, 4.0]]]),
    ],
    ids=repr,
)
def test_a_clamp_keeps_values_between_its_bounds(
    clamp: Clamp, expected: list[list[list[float]]]
) -> None:
    facts = NeuronFacts(0, torch.tensor([3, 9]))
    assert clamp.apply(VALUES.clone(), facts).tolist() == expected


def test_a_clamp_names_the_bounds_that_there_are() -> None:
    assert Clamp(-1.0, 2.5).parameters == {"low": -1.0, "high": 2.5}
    assert Clamp(None, 2.5).parameters == {"high": 2.5}


@pytest.mark.parametrize("bounds", [(None, None), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_bounds_that_bound_nothing_are_refused(bounds: tuple[float | None, float | None]) -> None:
    with pytest.raises(InputError, match=r"a finite number|finite numbers, the lower one first"):
        Clamp(*bounds)


def test_parameters_name_the_factor_where_there_is_one() -> None:
    assert ScaleWeights(0.25).parameters == {"factor": 0.25}
    assert ZeroWeights().parameters == {}
    assert Zero().parameters == {}


@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize("scaling", [ScaleWeights, ScaleOutgoing])
def test_a_factor_that_is_no_number_is_refused(
    scaling: Callable[[float], Intervention], factor: float
) -> None:
    with pytest.raises(InputError, match="finite number"):
        scaling(factor)


def test_interventions_are_shown_as_they_are_made() -> None:
    made = [ScaleWeights(0.25), ScaleWeightsAndBiases(), ZeroWeights(), Zero()]
    shown = ["ScaleWeights(factor=0.25)", "ScaleWeightsAndBiases(factor=0.5)"]
    assert list(map(repr, made)) == [*shown, "ZeroWeights()", "Zero()"]


def test_parameters_of_a_plugins_class_are_shown_on_one_line() -> None:
    class Odd(ScaleWeights):
        parameters = {"factor": 2.0, "note": "a\n\x1b[31m"}  # noqa: RUF012  # as plugins write it

    assert repr(Odd()) == "Odd(factor=2.0, note='a\\n\\x1b[31m')"
