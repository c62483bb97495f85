"""Weight norm: a control that needs no images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.interfaces import ImageScorer
from iarmem_plugin.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.models.tracing import ImageARModel


class WeightNorm(ImageScorer):
    """Score a neuron by the Euclidean norm of its incoming weights; images do not matter."""

    name = "weight-norm"
    needs_images = False

    def score(
        self, model: ImageARModel, candidates: Images, reference: Images
    ) -> Float64[np.ndarray, "block neuron"]:
        """Return the norms, of all maps into a neuron together."""
        from iarmem_plugin.neurons.editing import EditableWeights  # torch, needed here alone

        weights = EditableWeights(model.adapter.network, model.layout)
        rows = (weights.incoming(block) for block in range(model.layout.num_blocks))
        norms: np.ndarray = np.stack([one.double().norm(dim=1).cpu().numpy() for one in rows])
        return norms


@hookimpl
def provide_scorers() -> list[type[ImageScorer]]:
    """Provide the weight norm."""
    return [WeightNorm]
