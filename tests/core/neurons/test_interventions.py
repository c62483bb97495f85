"""What each intervention does to a neuron's weights, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Intervention, NeuronWeights
from iarmem_plugin.neurons.interventions import (
    ScaleWeights,
    ScaleWeightsAndBiases,
    Zero,
    ZeroWeights,
)


def neurons() -> NeuronWeights:
    return NeuronWeights(
        fc1_weight=torch.tensor([[2.0, -4.0], [6.0, 8.0]]),
        fc1_bias=torch.tensor([1.0, -3.0]),
        fc2_weight=torch.tensor([[5.0, 7.0]]),
    )


@pytest.mark.parametrize(
    ("intervention", "weight", "bias"),
    [
        (ScaleWeights(), [[1.0, -2.0], [3.0, 4.0]], [1.0, -3.0]),
        (ScaleWeights(2.0), [[4.0, -8.0], [12.0, 16.0]], [1.0, -3.0]),
        (ScaleWeightsAndBiases(0.5), [[1.0, -2.0], [3.0, 4.0]], [0.5, -1.5]),
        (ZeroWeights(), [[0.0, 0.0], [0.0, 0.0]], [1.0, -3.0]),
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


def test_parameters_name_the_factor_where_there_is_one() -> None:
    assert ScaleWeights(0.25).parameters == {"factor": 0.25}
    assert ZeroWeights().parameters == {}
    assert Zero().parameters == {}


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_factor_that_is_no_number_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match="finite number"):
        ScaleWeights(factor)


def test_interventions_are_shown_as_they_are_made() -> None:
    made = [ScaleWeights(0.25), ScaleWeightsAndBiases(), ZeroWeights(), Zero()]
    shown = ["ScaleWeights(factor=0.25)", "ScaleWeightsAndBiases(factor=0.5)"]
    assert list(map(repr, made)) == [*shown, "ZeroWeights()", "Zero()"]


def test_parameters_of_a_plugins_class_are_shown_on_one_line() -> None:
    class Odd(ScaleWeights):
        parameters = {"factor": 2.0, "note": "a\n\x1b[31m"}  # noqa: RUF012  # as plugins write it

    assert repr(Odd()) == "Odd(factor=2.0, note='a\\n\\x1b[31m')"
