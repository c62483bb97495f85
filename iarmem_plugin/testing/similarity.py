"""What every similarity measure must do."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from iarmem_plugin.interfaces import Completion, Similarity

IMAGES, SIDE, TOKENS = 6, 32, 16


class SimilarityTests:
    """Subclass it and give the fixture `similarity`: an instance."""

    tolerance = 1e-5  # of a value, in another batch

    @pytest.fixture
    def similarity(self) -> Similarity:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `similarity`")

    @pytest.fixture
    def target(self) -> Completion:
        """Return pictures as a decoder gives them, smooth and all different."""
        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(IMAGES, 3, 4, 4, generator=random)
        images = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
        return Completion(images, torch.randint(64, (IMAGES, TOKENS), generator=random))

    def test_it_has_a_name(self, similarity: Similarity) -> None:
        """Users choose it by name."""
        assert isinstance(similarity.name, str)
        assert similarity.name

    def test_its_threshold_says_where_it_comes_from(self, similarity: Similarity) -> None:
        """A count means nothing without both."""
        assert math.isfinite(similarity.threshold)
        assert similarity.threshold_source

    def test_its_provenance_fits_into_the_report(self, similarity: Similarity) -> None:
        """JSON values by name, the threshold among them."""
        shown = dict(similarity.provenance)
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown
        assert shown["threshold"] == similarity.threshold

    def test_it_gives_each_image_a_number(self, similarity: Similarity, target: Completion) -> None:
        """Floats that are finite, one an image, in their order."""
        values = similarity.compare(noisy(target, 0.3), target)
        assert values.shape == (IMAGES,)
        assert values.is_floating_point()
        assert values.isfinite().all()

    def test_the_same_image_is_extracted_and_closest(
        self, similarity: Similarity, target: Completion
    ) -> None:
        """Higher is closer, and a perfect completion is above the threshold."""
        same, other = (similarity.compare(one, target) for one in (target, turned(target)))
        assert (same > similarity.threshold).all()
        assert (same > other).all()

    def test_noise_takes_it_away(self, similarity: Similarity, target: Completion) -> None:
        """The more, the less alike on average."""
        same, near, far = (
            float(similarity.compare(noisy(target, amount), target).mean())
            for amount in (0.0, 0.1, 0.9)
        )
        assert same >= near > far

    def test_batching_does_not_matter(self, similarity: Similarity, target: Completion) -> None:
        """An image's value does not depend on those beside it."""
        completion = noisy(target, 0.3)
        whole = similarity.compare(completion, target)
        alone = [similarity.compare(at(completion, n), at(target, n)) for n in range(IMAGES)]
        torch.testing.assert_close(
            torch.cat(alone), whole, rtol=self.tolerance, atol=self.tolerance
        )

    def test_what_it_is_given_stays(self, similarity: Similarity, target: Completion) -> None:
        """The next measure sees the same pictures."""
        completion = noisy(target, 0.3)
        before = [one.clone() for one in (completion.images, target.images, target.tokens)]
        similarity.compare(completion, target)
        after = (completion.images, target.images, target.tokens)
        assert all(map(torch.equal, after, before))


def noisy(target: Completion, amount: float) -> Completion:
    """Mix pictures with noise, from none at 0 to nothing else at 1."""
    noise = torch.rand(target.images.shape, generator=torch.Generator().manual_seed(1))
    count = round(amount * target.tokens.shape[1])
    tokens = target.tokens.clone()
    tokens[:, :count] += 1
    return Completion(torch.lerp(target.images, noise, amount), tokens)


def turned(target: Completion) -> Completion:
    """Give each the picture of the next one."""
    return Completion(target.images.roll(1, 0), target.tokens.roll(1, 0))


def at(completion: Completion, number: int) -> Completion:
    """Return one picture of some."""
    images: Tensor = completion.images[number : number + 1]
    return Completion(images, completion.tokens[number : number + 1])
