"""What every scorer of neurons by images must do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces import ImageScorer
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter
from iarmem_plugin.testing.tiny_model import CLASSES, PIXELS

PICTURES = 6


class ImageScorerTests:
    """Subclass it and give the fixture `scorer`: an instance."""

    @pytest.fixture
    def scorer(self) -> ImageScorer:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `scorer`")

    @pytest.fixture
    def model(self) -> ImageARModel:
        """Return a small untrained model."""
        return ImageARModel(TinyAdapter.make())

    @pytest.fixture
    def images(self) -> Images:
        """Return pictures of noise, some of each class."""
        random = np.random.default_rng(0)
        noise = random.integers(0, 256, (2 * PICTURES, PIXELS + 1, PIXELS + 1, 3), np.uint8)
        labels = np.arange(2 * PICTURES) % CLASSES
        return Images.from_arrays(noise, labels)

    def scored(
        self, scorer: ImageScorer, model: ImageARModel, images: Images, *, swapped: bool = False
    ) -> np.ndarray:
        """Return the scores of one half of the pictures against the other."""
        halves = images.subset(range(PICTURES)), images.subset(range(PICTURES, 2 * PICTURES))
        candidates, reference = reversed(halves) if swapped else halves
        return scorer.score(model, candidates, reference)

    def test_its_parameters_fit_into_the_report(self, scorer: ImageScorer) -> None:
        """JSON values by name, and a name by which users choose it."""
        shown = dict(scorer.parameters)
        assert json.loads(json.dumps(shown)) == shown
        assert scorer.name

    def test_each_neuron_has_a_score(
        self, scorer: ImageScorer, model: ImageARModel, images: Images
    ) -> None:
        """A finite number, and the same when it is asked again."""
        found = self.scored(scorer, model, images)
        assert found.shape == (model.layout.num_blocks, model.layout.neurons_per_block)
        assert np.isfinite(found).all()
        assert len(np.unique(found)) > 1
        np.testing.assert_array_equal(self.scored(scorer, model, images), found)

    def test_the_model_is_left_as_it_was(
        self, scorer: ImageScorer, model: ImageARModel, images: Images
    ) -> None:
        """Weights, modes, flags, gradients and random numbers."""
        network = model.adapter.network.train()
        network.requires_grad_(False)
        weights = {name: one.clone() for name, one in network.state_dict().items()}
        state = torch.get_rng_state()
        self.scored(scorer, model, images)
        assert all(torch.equal(weights[name], one) for name, one in network.state_dict().items())
        assert all(part.training for part in network.modules())
        assert not any(one.requires_grad or one.grad is not None for one in network.parameters())
        assert torch.equal(torch.get_rng_state(), state)
