"""Changes to the weights of selected neurons, shipped as a default plugin."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Intervention, NeuronWeights
from iarmem_plugin.plugins.hookspecs import hookimpl


class ScaleWeights(Intervention):
    """Multiply the rows of ``fc1.weight`` by a factor; biases stay.

    This is not the same as scaling the activation, because of bias and GELU.

    Args:
        factor: number that the weights are multiplied by.

    Raises:
        InputError: the factor is not a finite number.

    Reference: arXiv 2509.00488, section 3.3 (factor 0.5).
    """

    name: ClassVar[str] = "scale-weights"

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = _finite(factor)

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with scaled rows."""
        return replace(neurons, fc1_weight=neurons.fc1_weight * self.factor)


class ScaleWeightsAndBiases(ScaleWeights):
    """Multiply the rows of ``fc1.weight`` and the elements of ``fc1.bias`` by a factor.

    Args:
        factor: number that the weights and biases are multiplied by.

    Raises:
        InputError: the factor is not a finite number.

    Reference: arXiv 2509.00488, appendix A (factors 0.1, 0.25, 0.5, 0.75).
    """

    name: ClassVar[str] = "scale-weights-and-biases"

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with scaled rows and biases."""
        return replace(super().edit(neurons), fc1_bias=neurons.fc1_bias * self.factor)


class ZeroWeights(ScaleWeights):
    """Set the rows of ``fc1.weight`` to zero and keep the biases.

    The neuron then has the constant value GELU(bias): it no longer depends on the image, but it
    is not removed (see `Zero`).

    Reference: arXiv 2509.00488, appendix A.
    """

    name: ClassVar[str] = "zero-weights"

    def __init__(self) -> None:
        super().__init__(0.0)


class Zero(ScaleWeightsAndBiases):
    """Set the rows of ``fc1.weight`` and the biases to zero: ablation, since GELU(0) = 0."""

    name: ClassVar[str] = "zero"

    def __init__(self) -> None:
        super().__init__(0.0)


def _finite(factor: float) -> float:
    if not math.isfinite(factor):
        raise InputError(f"the factor must be a finite number, got {factor}")
    return float(factor)


@hookimpl
def provide_interventions() -> Iterable[type[Intervention]]:
    """Return the interventions of the paper."""
    return (ScaleWeights, ScaleWeightsAndBiases, ZeroWeights, Zero)
