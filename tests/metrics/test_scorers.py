"""Scores by contrast, against what they say happens when weights are changed, and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from iarmem_metrics.difference_of_means import DifferenceOfMeans
from iarmem_metrics.gradient_weight import GradientWeight
from iarmem_metrics.weight_norm import WeightNorm
from iarmem_plugin.activations.capture import capture
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing import TinyAdapter
from iarmem_plugin.testing.tiny_model import CLASSES, PIXELS

NEURONS = ((0, 0), (1, 17), (2, 63))


@pytest.fixture(scope="module")
def images() -> Images:
    noise = np.random.default_rng(1).integers(0, 256, (10, PIXELS, PIXELS, 3), np.uint8)
    return Images.from_arrays(noise, np.arange(10) % CLASSES)


@pytest.fixture
def model() -> ImageARModel:
    return ImageARModel(TinyAdapter.make(seed=2))


def loss(model: ImageARModel, images: Images) -> float:
    """Return the mean NLL of the centre views, nats a token, in float64."""
    views = model.adapter.variant.views
    with model.borrowed():
        pixels = torch.stack([views.center(images.load(one)) for one in range(len(images))])
        tokens = model.tokenize(pixels)
        logits = model.logits(tokens, Condition.of_images(images)).double().log_softmax(2)
    return -logits.gather(2, tokens.unsqueeze(2)).mean().item()


def shrunk(
    model: ImageARModel, block: int, neuron: int, measure: Callable[[], float], step: float
) -> float:
    """Return the slope of a measure as one neuron's incoming weights shrink."""
    weight = model.adapter.network.get_submodule(f"blocks.{block}.ffn.fc1").weight
    before, found = weight.detach().clone(), []
    for factor in (1 - step, 1 + step):
        with torch.no_grad():
            weight[neuron] = before[neuron] * factor
        found.append(measure())
    with torch.no_grad():
        weight.copy_(before)
    return (found[0] - found[1]) / (2 * step)


def test_gradient_weight_is_the_slope_of_the_loss_as_a_neuron_shrinks(
    model: ImageARModel, images: Images
) -> None:
    model.adapter.network.double()
    candidates, reference = images.subset(range(4)), images.subset(range(4, 10))
    found = GradientWeight().score(model, candidates, reference)

    def contrast() -> float:
        return loss(model, candidates) - loss(model, reference)

    for block, neuron in NEURONS:
        expected = shrunk(model, block, neuron, contrast, 1e-3)
        assert found[block, neuron] == pytest.approx(expected, rel=1e-3, abs=1e-7)
        assert abs(expected) > 1e-6  # which a score of zeros would not be near


def test_gradient_weight_does_not_depend_on_the_batch(model: ImageARModel, images: Images) -> None:
    sides = images.subset(range(4)), images.subset(range(4, 10))
    whole, parts = (GradientWeight(size).score(model, *sides) for size in (16, 3))
    np.testing.assert_allclose(parts, whole, atol=1e-7)


def test_the_difference_of_means_is_that_of_two_captures(
    model: ImageARModel, images: Images
) -> None:
    sides = images.subset(range(4)), images.subset(range(4, 10))
    found = DifferenceOfMeans(views=2, batch_size=3).score(model, *sides)
    means = [next(capture(model, one, views=2)).mean(("scale", "image")) for one in sides]
    np.testing.assert_allclose(found, means[0] - means[1], atol=1e-6)


def test_the_weight_norm_is_that_of_the_incoming_rows(model: ImageARModel, images: Images) -> None:
    found = WeightNorm().score(model, images, images)
    for block, neuron in NEURONS:
        row = model.adapter.network.get_submodule(f"blocks.{block}.ffn.fc1").weight[neuron]
        assert found[block, neuron] == pytest.approx(row.norm().item(), rel=1e-6)


@pytest.mark.parametrize(("scorer", "option"), [(DifferenceOfMeans, "views"), (GradientWeight, "")])
def test_numbers_below_one_are_refused(scorer: type, option: str) -> None:
    with pytest.raises(InputError, match=f"{option or 'batch_size'} .*1 or more"):
        scorer(**{option or "batch_size": 0})
