"""What every measure of predictions must do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from iarmem_plugin.interfaces import LossQuality, Prediction

IMAGES, TOKENS, VOCABULARY = 12, 20, 16


class LossQualityTests:
    """Subclass it and give the fixture `quality`: an instance of the measure."""

    tolerance = 1e-5  # of a loss, in another batch

    @pytest.fixture
    def quality(self) -> LossQuality:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `quality`")

    @pytest.fixture
    def prediction(self) -> Prediction:
        """Return logits that are twice too sure of tokens drawn from them."""
        random = torch.Generator().manual_seed(0)
        logits = torch.randn(IMAGES, TOKENS, VOCABULARY, generator=random) * 2
        drawn = torch.multinomial(logits.softmax(2).flatten(0, 1), 1, generator=random)
        return Prediction(logits * 2, drawn.view(IMAGES, TOKENS))

    def test_its_provenance_fits_into_the_report(self, quality: LossQuality) -> None:
        """JSON values by name, and a name by which users choose it."""
        shown = dict(quality.provenance)
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown
        assert quality.name

    def test_it_fits_a_temperature(self, quality: LossQuality, prediction: Prediction) -> None:
        """A number above 0, the same in whatever batches the images come."""
        whole = quality.fit(iter([prediction]))
        halves = zip(prediction.logits.split(5), prediction.tokens.split(5), strict=True)
        parts = quality.fit(Prediction(*half) for half in halves)
        assert whole > 0
        assert parts == pytest.approx(whole, rel=self.tolerance)

    def test_each_image_has_its_loss(self, quality: LossQuality, prediction: Prediction) -> None:
        """A finite number an image, whatever the others are; what is given stays."""
        logits = prediction.logits.clone()
        losses = quality.losses(prediction, 1.5)
        assert losses.shape == (IMAGES,)
        assert np.isfinite(losses).all()
        one = Prediction(prediction.logits[3:4], prediction.tokens[3:4])
        np.testing.assert_allclose(quality.losses(one, 1.5), losses[3:4], rtol=self.tolerance)
        assert torch.equal(prediction.logits, logits)

    def test_better_predictions_have_the_lower_loss(
        self, quality: LossQuality, prediction: Prediction
    ) -> None:
        """Than predictions of other tokens."""
        others = Prediction(prediction.logits, (prediction.tokens + 1) % VOCABULARY)
        assert quality.losses(prediction, 1.0).mean() < quality.losses(others, 1.0).mean()
