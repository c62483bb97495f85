"""What scores, picks and changes neurons."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.plugin import Plugin
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images


@dataclass(frozen=True, slots=True)
class NeuronWeights:
    """The weights of the selected neurons of one block, and nothing else.

    Whatever the layer, neurons come first in what they read, and last in what they write.
    ``dataclasses.replace(neurons, reads={...})`` gives the same with other weights.

    Attributes:
        reads: incoming weights by the name of the map, a row for each neuron.
        biases: bias of each neuron by the name of the map; None where the map has none.
        writes: outgoing weights, a column for each neuron.
        block: number of the block.
        index: numbers of the neurons, ascending.
        mean: mean over images of each neuron's |activation|, from the scores; None where it is not
            known.
    """

    reads: Mapping[str, Float[Tensor, "neuron input"]]
    biases: Mapping[str, Float[Tensor, " neuron"] | None]
    writes: Float[Tensor, "output neuron"]
    block: int
    index: Int[Tensor, " neuron"]
    mean: Float[Tensor, " neuron"] | None = None

    @property
    def fc1_weight(self) -> Float[Tensor, "neuron input"]:
        """Return the incoming weights of an MLP that has one map into its neurons.

        Raises:
            InputError: it has several, as a gated one.
        """
        return self.reads[self._only("fc1_weight", "reads")]

    @property
    def fc1_bias(self) -> Float[Tensor, " neuron"]:
        """Return the biases of an MLP that has one map into its neurons.

        Raises:
            InputError: it has several, or the map has no bias.
        """
        name = self._only("fc1_bias", "biases")
        return self.bias(name)

    @property
    def fc2_weight(self) -> Float[Tensor, "output neuron"]:
        """Return the outgoing weights."""
        return self.writes

    def bias(self, name: str) -> Float[Tensor, " neuron"]:
        """Return the biases of one map.

        Raises:
            InputError: there is no such map, or it has no bias.
        """
        if name not in self.biases:
            raise InputError(f"no map named {name!r}; these neurons have {', '.join(self.biases)}")
        found = self.biases[name]
        if found is None:
            raise InputError(
                f"the map {name!r} into the neurons of block {self.block} has no bias; choose an "
                "intervention that changes weights alone"
            )
        return found

    def _only(self, asked: str, instead: str) -> str:
        if len(self.reads) != 1:
            raise InputError(
                f"there is no {asked} where neurons have the maps {', '.join(self.reads)}; take "
                f"them by name from {instead}"
            )
        return next(iter(self.reads))


@dataclass(frozen=True, slots=True)
class NeuronFacts:
    """Which neurons an `ActivationIntervention` is given the values of.

    Attributes:
        block: number of the block.
        index: numbers of the neurons, ascending.
        mean: mean over images of each neuron's |activation|, from the scores; None where it is not
            known.
    """

    block: int
    index: Int[Tensor, " chosen"]
    mean: Float[Tensor, " chosen"] | None = None

    def copy(self) -> NeuronFacts:
        """Return the same with memory of its own."""
        mean = None if self.mean is None else self.mean.clone()
        return NeuronFacts(self.block, self.index.clone(), mean)


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


class ImageScorer(Plugin):
    """Scores neurons by what tells candidates from other images; options go to ``__init__``.

    It runs the model itself, as often and with whatever gradients it needs, and leaves it as it
    was; see `contrast`.

    Attributes:
        needs_images: whether scores depend on the images, so that a candidate is to be tested with
            neurons that were chosen without it.
    """

    kind = "scorer"
    needs_images: ClassVar[bool] = True

    @abstractmethod
    def score(
        self, model: Any, candidates: Images, reference: Images
    ) -> Float[np.ndarray, "block neuron"]:
        """Return one score for each neuron; the highest are to be edited first.

        Args:
            model: the wrapped model, an `ImageARModel`.
            candidates: images that the model is to forget.
            reference: images that it is to predict as before.

        Returns:
            finite scores.
        """


class Intervention(Plugin):
    """A change to neurons that can be undone; options go to ``__init__``."""

    kind = "intervention"

    @abstractmethod
    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the changed weights of the selected neurons; the input is left as it was.

        Raises:
            InputError: these neurons lack what is to be changed, such as biases.
        """


class ActivationIntervention(Plugin):
    """A change to neurons' values, made at every visit of their block; weights stay.

    Attributes:
        needs_mean: whether it cannot do without the neurons' mean activation.
    """

    kind = "intervention"
    needs_mean: ClassVar[bool] = False

    @abstractmethod
    def apply(
        self, neuron: Float[Tensor, "image token chosen"], facts: NeuronFacts
    ) -> Float[Tensor, "image token chosen"]:
        """Return the changed values of the selected neurons of one block at one visit.

        Args:
            neuron: values that the MLP's outgoing map would read; a copy.
            facts: which neurons they are.

        Returns:
            values of the same shape, dtype and device.
        """


AnyIntervention: TypeAlias = Intervention | ActivationIntervention
"""What is done to neurons: to their weights, or to their values."""


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
