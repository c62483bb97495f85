"""What scores, picks and changes neurons."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import xarray as xr
from jaxtyping import Float

from iarmem_plugin.interfaces.plugin import Plugin
from iarmem_plugin.typing import Tensor


@dataclass(frozen=True, slots=True)
class NeuronWeights:
    """The weights of the selected neurons of one block, and nothing else.

    Attributes:
        fc1_weight: incoming weights, a row for each neuron.
        fc1_bias: bias of each neuron.
        fc2_weight: outgoing weights, a column for each neuron.
    """

    fc1_weight: Float[Tensor, "neuron input"]
    fc1_bias: Float[Tensor, " neuron"]
    fc2_weight: Float[Tensor, "output neuron"]


class Metric(Plugin):
    """Scores neurons from activations; options go to ``__init__``; one instance is one run.

    Attributes:
        blockwise: whether a block's scores depend on that block alone; a store is then read block
            by block, with a fresh instance for each.
        keeps_images: whether its memory grows with the images, as where it needs all values; a
            run without a store is then refused where these would not fit.
    """

    kind = "metric"
    blockwise: ClassVar[bool] = False
    keeps_images: bool = False

    @abstractmethod
    def update(self, activations: xr.DataArray) -> None:
        """Take a batch of finished images.

        Args:
            activations: activations of the images, float32, dims (block, scale, neuron, image);
                coordinates ``image`` (global id) and ``label``; read-only, since other metrics
                read the same.
        """

    @abstractmethod
    def state(self) -> xr.Dataset:
        """Return everything needed to resume or to merge: named arrays and attributes."""

    @abstractmethod
    def merge(self, state: xr.Dataset) -> None:
        """Add another run's state; any order of updates and merges gives the same result.

        Args:
            state: what the other run's `state` returned.
        """

    @abstractmethod
    def compute(self) -> xr.DataArray:
        """Return the scores.

        Returns:
            scores, dims (block, scale, neuron), with the boolean coordinate ``valid``, and
            ``top_image`` where it is known.
        """


class Intervention(Plugin):
    """A change to neurons that can be undone; options go to ``__init__``."""

    kind = "intervention"

    @abstractmethod
    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the changed weights of the selected neurons; the input is left as it was."""


class Selector(Plugin):
    """Picks neurons; options, such as the pool and how scales are joined, go to ``__init__``."""

    kind = "selector"

    @abstractmethod
    def select(self, scores: xr.Dataset, *, fraction: float, seed: int) -> xr.DataArray:
        """Pick a fraction of the neurons, never one that is not valid.

        Args:
            scores: variables ``score`` and, where known, ``mean_activation`` with dims
                (block, scale, neuron) and the coordinate ``valid``.
            fraction: share of all neurons to select, in (0, 1].
            seed: seed for selectors that draw at random.

        Returns:
            which neurons are selected, bool, dims (block, neuron).
        """
