"""Changes to the weights or values of selected neurons, shipped as a default plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from jaxtyping import Float

from iarmem_plugin.checks import check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import (
    ActivationIntervention,
    AnyIntervention,
    Intervention,
    NeuronFacts,
    NeuronWeights,
)
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.text import shown
from iarmem_plugin.typing import Tensor


class _Scaling(Intervention):
    """Multiplies the weights or biases of some maps into the neurons by a factor.

    Args:
        factor: number that they are multiplied by.
        reads: names of the maps, such as ``("gate",)`` or ``"gate, up"`` in a gated MLP; None for
            all.

    Raises:
        InputError: the factor is not a finite number, or there are no names.
    """

    def __init__(self, factor: float = 0.5, reads: str | Sequence[str] | None = None) -> None:
        check_number("the factor", factor)
        self.factor = float(factor)
        given = [one.strip() for one in reads.split(",")] if isinstance(reads, str) else reads
        self.reads = None if given is None else tuple(given)
        if self.reads == ():
            raise InputError("reads is empty; name the maps to scale, or leave it out for all")

    @property
    def parameters(self) -> Mapping[str, float | str]:
        """Return the factor, and the names of the maps where they were given."""
        named = {} if self.reads is None else {"reads": ", ".join(self.reads)}
        return {"factor": self.factor, **named}

    def _scaled(
        self, neurons: NeuronWeights, *, weights: bool = False, biases: bool = False
    ) -> NeuronWeights:
        rows, shifts = dict(neurons.reads), dict(neurons.biases)
        for name in self._named(neurons):
            if weights:
                rows[name] = rows[name] * self.factor
            if biases:
                shifts[name] = neurons.bias(name) * self.factor
        return replace(neurons, reads=rows, biases=shifts)

    def _named(self, neurons: NeuronWeights) -> Sequence[str]:
        known = tuple(neurons.reads)
        if unknown := [name for name in self.reads or () if name not in known]:
            raise InputError(
                f"no map named {shown(unknown[0], 40)!r} into these "
                f"neurons; there are {', '.join(known)}"
            )
        return known if self.reads is None else self.reads


class ScaleWeights(_Scaling):
    """Multiply the incoming weights by a factor; biases stay.

    This is not the same as scaling the activation, because of bias and GELU. In a gated MLP a
    neuron is a product, so scaling all of its maps scales it by more than the factor.

    Args:
        factor: number that the weights are multiplied by.
        reads: names of the maps, such as ``("gate",)`` or ``"gate, up"`` in a gated MLP; None for
            all.

    Raises:
        InputError: the factor is not a finite number, or there are no names.

    Reference: arXiv 2509.00488, section 3.3 (factor 0.5).
    """

    name: ClassVar[str] = "scale-weights"

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with scaled rows.

        Raises:
            InputError: the neurons have no map of a name that was given.
        """
        return self._scaled(neurons, weights=True)


class ScaleBiases(_Scaling):
    """Multiply the biases by a factor; weights stay.

    Args:
        factor: number that the biases are multiplied by.
        reads: names of the maps, such as ``("gate",)`` or ``"gate, up"`` in a gated MLP; None for
            all.

    Raises:
        InputError: the factor is not a finite number, or there are no names.
    """

    name: ClassVar[str] = "scale-biases"

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with scaled biases.

        Raises:
            InputError: a map has no bias, or there is none of a name that was given.
        """
        return self._scaled(neurons, biases=True)


class ScaleWeightsAndBiases(_Scaling):
    """Multiply the incoming weights and the biases by a factor.

    Args:
        factor: number that the weights and biases are multiplied by.
        reads: names of the maps, such as ``("gate",)`` or ``"gate, up"`` in a gated MLP; None for
            all.

    Raises:
        InputError: the factor is not a finite number, or there are no names.

    Reference: arXiv 2509.00488, appendix A (factors 0.1, 0.25, 0.5, 0.75).
    """

    name: ClassVar[str] = "scale-weights-and-biases"

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with scaled rows and biases.

        Raises:
            InputError: a map has no bias, or there is none of a name that was given.
        """
        return self._scaled(neurons, weights=True, biases=True)


class _Zeroing(_Scaling):
    """Multiplies by 0, and so has no parameters."""

    def __init__(self) -> None:
        super().__init__(0.0)

    @property
    def parameters(self) -> Mapping[str, float | str]:
        """Return nothing: there are no parameters."""
        return {}


class ZeroWeights(_Zeroing):
    """Set the incoming weights to zero and keep the biases.

    The neuron then has a constant value, such as GELU(bias): it no longer depends on the image,
    but it is not removed (see `Zero`).

    Reference: arXiv 2509.00488, appendix A.
    """

    name: ClassVar[str] = "zero-weights"

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with rows of zeros."""
        return self._scaled(neurons, weights=True)


class Zero(_Zeroing):
    """Set the incoming weights and the biases to zero: ablation, since GELU(0) = SiLU(0) = 0.

    A map without biases has nothing more to be set, and its neurons are zero, too.
    """

    name: ClassVar[str] = "zero"

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with rows and biases of zeros."""
        biases = {
            name: None if bias is None else bias * self.factor
            for name, bias in neurons.biases.items()
        }
        return replace(self._scaled(neurons, weights=True), biases=biases)


class ScaleOutgoing(Intervention):
    """Multiply the outgoing weights by a factor: the neuron keeps its value, and says it less loud.

    Incoming weights and biases stay, so that this is the same as scaling the activation; with the
    factor 0 it is ablation in every MLP, with biases or without.

    Args:
        factor: number that the outgoing weights are multiplied by.

    Raises:
        InputError: the factor is not a finite number.
    """

    name: ClassVar[str] = "scale-outgoing"

    def __init__(self, factor: float = 0.5) -> None:
        check_number("the factor", factor)
        self.factor = float(factor)

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the weights with scaled columns."""
        return replace(neurons, writes=neurons.writes * self.factor)


class MeanAblate(ActivationIntervention):
    """Set the values of neurons to their mean activation over the images of the scores.

    Scores hold the mean of the *absolute* activation over a scale's tokens, as it is captured, so
    this is the mean of |activation|, averaged over the scales: a neuron that is often negative
    gets a positive value.
    """

    name: ClassVar[str] = "mean-ablate"
    needs_mean: ClassVar[bool] = True

    def apply(
        self, neuron: Float[Tensor, "image token chosen"], facts: NeuronFacts
    ) -> Float[Tensor, "image token chosen"]:
        """Return the mean at every token.

        Raises:
            InputError: it is not known.
        """
        if facts.mean is None:
            raise InputError(f"intervention {self.name!r} needs the neurons' mean activation")
        return facts.mean.to(neuron).expand_as(neuron)


class Clamp(ActivationIntervention):
    """Keep the values of neurons between two bounds; by default both are 0: ablation.

    Args:
        low: smallest value; None for no lower bound.
        high: largest value; None for no upper bound.

    Raises:
        InputError: there are no bounds, one is not a finite number, or they are the wrong way
            round.
    """

    name: ClassVar[str] = "clamp"

    def __init__(self, low: float | None = 0.0, high: float | None = 0.0) -> None:
        bounds = [one for one in (low, high) if one is not None]
        for one in bounds:
            check_number("a bound of clamp", one)
        if not bounds or bounds != sorted(bounds):
            raise InputError(
                f"clamp was given low={low} and high={high}; expected finite numbers, the lower "
                "one first, or None for at most one of them"
            )
        self.low, self.high = low, high

    @property
    def parameters(self) -> Mapping[str, float | str]:
        """Return the bounds that there are."""
        bounds = {"low": self.low, "high": self.high}
        return {name: float(bound) for name, bound in bounds.items() if bound is not None}

    def apply(
        self, neuron: Float[Tensor, "image token chosen"], facts: NeuronFacts
    ) -> Float[Tensor, "image token chosen"]:
        """Return the clamped values."""
        return neuron.clamp(self.low, self.high)


@hookimpl
def provide_interventions() -> Iterable[type[AnyIntervention]]:
    """Return the interventions of the paper, that of outgoing weights, and those of values."""
    weights = (ScaleWeights, ScaleWeightsAndBiases, ScaleBiases, ZeroWeights, Zero)
    return (*weights, ScaleOutgoing, MeanAblate, Clamp)
