"""Difference of means: which neurons are more active on the candidates than on other images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.checks import check_integer
from iarmem_plugin.interfaces import ImageScorer
from iarmem_plugin.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.models.tracing import ImageARModel


class DifferenceOfMeans(ImageScorer):
    """Score a neuron by its mean |activation| on candidates minus that on the reference.

    One teacher-forced pass a view, no gradients. Scales count alike.

    Args:
        views: augmented views of each image; 1 takes the centre view.
        batch_size: images in one pass; halved where memory does not suffice.

    Raises:
        InputError: numbers below 1.
    """

    name = "difference-of-means"

    def __init__(self, views: int = 1, batch_size: int = 32) -> None:
        check_integer("views", views, least=1)
        check_integer("batch_size", batch_size, least=1)
        self._views, self._batch_size = views, batch_size

    def score(
        self, model: ImageARModel, candidates: Images, reference: Images
    ) -> Float64[np.ndarray, "block neuron"]:
        """Return the difference of two means of |activation|."""
        found: np.ndarray = self._mean(model, candidates) - self._mean(model, reference)
        return found

    def _mean(self, model: ImageARModel, images: Images) -> Float64[np.ndarray, "block neuron"]:
        from iarmem_plugin.activations.capture import capture  # nnsight, needed here alone

        batches = capture(model, images, views=self._views, batch_size=self._batch_size)
        sums = [one.mean("scale", dtype=np.float64).sum("image").to_numpy() for one in batches]
        total: np.ndarray = np.sum(sums, axis=0)
        return total / len(images)


@hookimpl
def provide_scorers() -> list[type[ImageScorer]]:
    """Provide the difference of means."""
    return [DifferenceOfMeans]
