"""What every intervention must do."""

from __future__ import annotations

import json

import pytest
import torch

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import (
    ActivationIntervention,
    AnyIntervention,
    Intervention,
    NeuronFacts,
    NeuronWeights,
)

KINDS = ("plain", "gated")


class _Named:
    """What the report needs of both kinds."""

    @pytest.fixture
    def intervention(self) -> AnyIntervention:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `intervention`")

    def test_it_has_a_name(self, intervention: AnyIntervention) -> None:
        """Users choose it by name."""
        assert isinstance(intervention.name, str)
        assert intervention.name

    def test_its_parameters_fit_into_the_report(self, intervention: AnyIntervention) -> None:
        """Numbers and words by name."""
        shown = dict(intervention.parameters)
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown


class InterventionTests(_Named):
    """Subclass it and give the fixture `intervention`: an instance that edits weights.

    It is tried on an MLP with one map and biases, and on a gated one without biases; there it may
    refuse, by an `InputError` that says so, but not leave anything out.
    """

    @pytest.fixture(params=[(kind, count) for kind in KINDS for count in (0, 1, 4)], ids=str)
    def neurons(self, request: pytest.FixtureRequest) -> NeuronWeights:
        """Return the weights of no, one and several neurons."""
        kind, count = request.param
        return some_weights(kind, count)

    def test_shapes_and_dtypes_stay(
        self, intervention: Intervention, neurons: NeuronWeights
    ) -> None:
        """The edited weights fit where the others were."""
        edited = edited_or_refused(intervention, neurons)
        assert list(tensors(edited)) == list(tensors(neurons))
        for name, before in tensors(neurons).items():
            after = tensors(edited)[name]
            assert (after.shape, after.dtype) == (before.shape, before.dtype)

    def test_the_given_weights_are_left_as_they_were(
        self, intervention: Intervention, neurons: NeuronWeights
    ) -> None:
        """The model may be put back from them."""
        before = {name: tensor.clone() for name, tensor in tensors(neurons).items()}
        edited_or_refused(intervention, neurons)
        assert all(torch.equal(tensors(neurons)[name], one) for name, one in before.items())

    def test_the_same_weights_are_edited_alike(
        self, intervention: Intervention, neurons: NeuronWeights
    ) -> None:
        """Nothing is drawn at random without a seed."""
        first, second = (tensors(edited_or_refused(intervention, neurons)) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


class ActivationInterventionTests(_Named):
    """Subclass it and give the fixture `intervention`: an instance that edits values."""

    @pytest.fixture(params=[0, 1, 4])
    def facts(self, request: pytest.FixtureRequest) -> NeuronFacts:
        """Return no, one and several neurons with their means."""
        count = int(request.param)
        return NeuronFacts(1, 2 * torch.arange(count), torch.linspace(0.1, 0.9, count))

    @pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
    def values(self, request: pytest.FixtureRequest, facts: NeuronFacts) -> torch.Tensor:
        """Return the values of these neurons in two images of three tokens."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, 3, len(facts.index))
        return torch.randn(shape, generator=generator).to(request.param)

    def test_values_keep_their_shape_and_dtype_and_stay_finite(
        self, intervention: ActivationIntervention, values: torch.Tensor, facts: NeuronFacts
    ) -> None:
        """They are read where the others were."""
        changed = intervention.apply(values.clone(), facts)
        assert (changed.shape, changed.dtype) == (values.shape, values.dtype)
        assert bool(changed.isfinite().all())

    def test_the_same_values_are_changed_alike(
        self, intervention: ActivationIntervention, values: torch.Tensor, facts: NeuronFacts
    ) -> None:
        """Nothing is drawn at random without a seed."""
        first, second = (intervention.apply(values.clone(), facts) for _ in range(2))
        assert torch.equal(first, second)


def some_weights(kind: str, count: int) -> NeuronWeights:
    """Return random weights of neurons: of one map with biases, or of two without."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    names = ("fc1",) if kind == "plain" else ("gate", "up")
    return NeuronWeights(
        reads={name: drawn(count, 6) for name in names},
        biases={name: drawn(count) if kind == "plain" else None for name in names},
        writes=drawn(3, count),
        block=1,
        index=2 * torch.arange(count),
        mean=torch.linspace(0.1, 0.9, count),
    )


def edited_or_refused(intervention: Intervention, neurons: NeuronWeights) -> NeuronWeights:
    """Return the edited weights; the given ones where it refuses those without biases."""
    try:
        return intervention.edit(neurons)
    except InputError:
        if "fc1" in neurons.reads:
            raise
        return neurons


def tensors(neurons: NeuronWeights) -> dict[str, torch.Tensor]:
    """Return the weights by what they are."""
    biases = {f"bias {name}": one for name, one in neurons.biases.items() if one is not None}
    reads = {f"read {name}": one for name, one in neurons.reads.items()}
    return reads | biases | {"writes": neurons.writes}
