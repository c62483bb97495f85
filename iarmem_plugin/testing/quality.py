"""What every quality measure must do, and every measure of predictions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from iarmem_plugin.interfaces import LossQuality, Prediction, Quality, QualityValue

SIDE = 32
IMAGES, TOKENS, VOCABULARY = 12, 20, 16


class QualityTests:
    """Subclass it and give the fixture `quality`: an instance for which small pictures will do."""

    tolerance = 1e-4  # of a feature, in another batch

    @pytest.fixture
    def quality(self) -> Quality:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `quality`")

    @pytest.fixture
    def images(self, quality: Quality) -> Tensor:
        """Return as many pictures as the measure needs, and four more."""
        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(quality.minimum + 4, 3, 4, 4, generator=random)
        return torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")

    def test_it_has_a_name_and_a_minimum(self, quality: Quality) -> None:
        """Users choose it by name, and too few images are refused before the work."""
        assert isinstance(quality.name, str)
        assert quality.name
        assert quality.minimum >= 1

    def test_its_provenance_fits_into_the_report(self, quality: Quality) -> None:
        """JSON values by name."""
        shown = dict(quality.provenance)
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown

    def test_it_sees_every_image_once_in_order(self, quality: Quality, images: Tensor) -> None:
        """A row of finite numbers an image, in whatever batches they come."""
        whole = quality.features(iter([images]))
        parts = quality.features(iter(images.split(3)))
        assert whole.ndim == 2
        assert len(whole) == len(images)
        assert np.isfinite(whole).all()
        np.testing.assert_allclose(parts, whole, rtol=self.tolerance, atol=self.tolerance)

    def test_its_values_name_the_reference_and_the_numbers(
        self, quality: Quality, images: Tensor
    ) -> None:
        """Two values may be compared only where their labels are equal."""
        features = quality.features(iter([images]))
        values = quality.compare(features, features[1:], reference_name="pictures of mine")
        assert values
        for value in values:
            assert isinstance(value, QualityValue)
            assert "pictures of mine" in value.label
            assert value.n == len(images)
            assert value.value is None or np.isfinite(value.value)
            assert value.error is None or value.error >= 0

    def test_it_tells_other_pictures_from_the_same_ones(
        self, quality: Quality, images: Tensor
    ) -> None:
        """Noise in the place of pictures changes some value."""
        real = quality.features(iter([images]))
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
        same, other = (
            [one.value for one in quality.compare(made, real, reference_name="pictures")]
            for made in (real, quality.features(iter([noise])))
        )
        assert same != other

    def test_two_comparisons_are_identical(self, quality: Quality, images: Tensor) -> None:
        """Nothing is drawn at random without a seed, and what is given stays."""
        features = quality.features(iter([images]))
        before = features.copy()
        first, second = (
            quality.compare(features, features, reference_name="pictures") for _ in range(2)
        )
        assert first == second
        np.testing.assert_array_equal(features, before)


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
