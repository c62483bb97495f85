"""Gradient × weight: which neurons' incoming weights hold the candidates' loss down."""

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


class GradientWeight(ImageScorer):
    """Score a neuron by how much more the candidates' loss rises than the reference's without it.

    To first order, scaling a neuron's incoming weights w by 1 - e changes the mean loss of some
    images by -e g.w, with g the loss's gradient. The score is -g.w on candidates minus -g.w on the
    reference; the loss is the teacher-forced NLL of the centre view, nats a token, and biases do
    not count. One forward and one backward pass a batch; memory for the gradient of every block's
    maps into its neurons.

    Args:
        batch_size: images in one pass; halved where memory does not suffice.

    Raises:
        InputError: a batch size below 1, a model edited through the trace, whose weights are not
            those that it computes with, or weights that are no parameters.

    Reference: Molchanov et al. 2017 (arXiv 1611.06440), equation 7, on weights and with its sign.
    """

    name = "gradient-weight"

    def __init__(self, batch_size: int = 16) -> None:
        check_integer("batch_size", batch_size, least=1)
        self._batch_size = batch_size

    def score(
        self, model: ImageARModel, candidates: Images, reference: Images
    ) -> Float64[np.ndarray, "block neuron"]:
        """Return the difference of two means of -g.w, nats a token."""
        found: np.ndarray = self._held_down(model, candidates) - self._held_down(model, reference)
        return found

    def _held_down(
        self, model: ImageARModel, images: Images
    ) -> Float64[np.ndarray, "block neuron"]:
        """Return by how much the images' mean loss rises, to first order, as a neuron shrinks."""
        from iarmem_plugin.activations.gradients import gradient_times_weight
        from iarmem_plugin.evaluation.losses import mean_losses  # torch, needed here alone
        from iarmem_plugin.models.batching import Batching

        views = model.adapter.variant.views

        def part(rows: slice) -> np.ndarray:
            with model.borrowed():
                return gradient_times_weight(
                    model, lambda: mean_losses(model, images, views, rows).sum()
                )

        sums = Batching(self._batch_size).over(len(images), part)
        total: np.ndarray = -np.sum(list(sums), axis=0)
        return total / len(images)


@hookimpl
def provide_scorers() -> list[type[ImageScorer]]:
    """Provide gradient × weight."""
    return [GradientWeight]
