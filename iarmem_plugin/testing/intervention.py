"""What every intervention must do."""

from __future__ import annotations

import json

import pytest
import torch

from iarmem_plugin.interfaces import Intervention, NeuronWeights


class InterventionTests:
    """Subclass it and give the fixture `intervention`: an instance."""

    @pytest.fixture
    def intervention(self) -> Intervention:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `intervention`")

    @pytest.fixture(params=[0, 1, 4])
    def neurons(self, request: pytest.FixtureRequest) -> NeuronWeights:
        """Return the weights of no, one and several neurons."""
        generator = torch.Generator().manual_seed(0)
        count = int(request.param)
        return NeuronWeights(
            torch.randn(count, 6, generator=generator),
            torch.randn(count, generator=generator),
            torch.randn(3, count, generator=generator),
        )

    def test_it_has_a_name(self, intervention: Intervention) -> None:
        """Users choose it by name."""
        assert isinstance(intervention.name, str)
        assert intervention.name

    def test_its_parameters_fit_into_the_report(self, intervention: Intervention) -> None:
        """Numbers by name."""
        shown = dict(intervention.parameters)
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown

    def test_shapes_and_dtypes_stay(
        self, intervention: Intervention, neurons: NeuronWeights
    ) -> None:
        """The edited weights fit where the others were."""
        edited = intervention.edit(neurons)
        for before, after in zip(tensors(neurons), tensors(edited), strict=True):
            assert (after.shape, after.dtype) == (before.shape, before.dtype)

    def test_the_given_weights_are_left_as_they_were(
        self, intervention: Intervention, neurons: NeuronWeights
    ) -> None:
        """The model may be put back from them."""
        before = [tensor.clone() for tensor in tensors(neurons)]
        intervention.edit(neurons)
        assert all(map(torch.equal, tensors(neurons), before))

    def test_the_same_weights_are_edited_alike(
        self, intervention: Intervention, neurons: NeuronWeights
    ) -> None:
        """Nothing is drawn at random without a seed."""
        first, second = intervention.edit(neurons), intervention.edit(neurons)
        assert all(map(torch.equal, tensors(first), tensors(second)))


def tensors(neurons: NeuronWeights) -> list[torch.Tensor]:
    """Return the three weights in order."""
    return [neurons.fc1_weight, neurons.fc1_bias, neurons.fc2_weight]
