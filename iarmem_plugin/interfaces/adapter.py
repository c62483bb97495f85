"""What plugins provide: abstract classes without behaviour, and the plain data they exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.layout import ModelLayout, NeuronWeights
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

    from iarmem_plugin.data.augmentation import Augmentation
    from iarmem_plugin.data.organism import Organism


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen after the prefix.

    Attributes:
        guidance: strength of classifier-free guidance; 0 is off and costs no second pass.
        guidance_power: exponent of the guidance schedule, for families that have one.
        temperature: divides the logits; positive.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens whose probabilities reach top_p; 0 keeps all.
        greedy: take the likeliest token; then nothing is drawn at random.
        seed: seeds a generator of the call's own, or, as a tuple, one for each image, whose tokens
            then do not depend on the other images; None draws from the global generator.
    """

    guidance: float = 0.0
    guidance_power: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    greedy: bool = True
    seed: int | tuple[int, ...] | None = 0


@dataclass(frozen=True, slots=True)
class Variant:
    """One released or bundled model.

    Attributes:
        name: as the user types it, such as ``"var-d30"``.
        family: ``"var"`` or ``"rar"``.
        blocks: number of transformer blocks.
        neurons: neurons in each block.
        parameters: number of parameters of the transformer.
        resolution: side of the square images in pixels.
        views: the augmentation the model was trained with.
        sampling: sampling settings as published.
        prefix_tokens: tokens given to a completion when the attack is run on this model.
        num_classes: labels are 0 to num_classes - 1.
        files: names of the weight and the tokenizer file.
        repositories: on the Hugging Face hub, that of each file, where they are there.
        source: where the files are hosted; not fetched from by itself.
        licence: of the weights, or ``"not checked"``.
        organism: loads the bundled experiment, where the variant is an organism.
    """

    name: str
    family: str
    blocks: int
    neurons: int
    parameters: int
    resolution: int
    views: Augmentation
    sampling: Sampling
    prefix_tokens: int
    num_classes: int = 1000
    files: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    source: str = ""
    licence: str = "not checked"
    organism: Callable[[], Organism] | None = None


@dataclass(frozen=True, slots=True)
class ForwardInputs:
    """Arguments of the model's ``forward`` for one teacher-forced pass."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """Images with the tokens they were decoded from.

    Attributes:
        images: RGB in [0, 1].
        tokens: all tokens of each image, the given prefix included.
    """

    images: Float[Tensor, "image 3 height width"]
    tokens: Int[Tensor, "image token"]


@dataclass(frozen=True, slots=True)
class QualityValue:
    """One measured value with the whole label of its protocol.

    Attributes:
        label: tool, extractor, reference and sample counts, such as
            ``"FID (emoji classifier, reference training pictures once each n=1606, generated
            n=512)"``; two values may be compared only if their labels are equal.
        value: None where it could not be measured.
        n: number of generated images.
    """

    label: str
    value: float | None
    n: int


class Adapter(ABC):
    """The only place that knows a model family.

    Attributes:
        name: the family, such as ``"var"``.
        infers_sizes: `load` takes the family's name, too, and reads the sizes from the weights.
        recognises: what `matches` looks for, in a few words, for the refusal of other objects.
        variant: what is known about this model.
        layout: where its neurons are.
        network: the transformer; borrowed, never changed outside a context manager.
        tokenizer: the image tokenizer.
        files: what identifies each file that was loaded, by its role: ``name`` without folder,
            ``sha256``, ``bytes``; empty for a model object that came from elsewhere.
    """

    name: ClassVar[str]
    infers_sizes: ClassVar[bool] = False
    recognises: ClassVar[str] = ""
    variant: Variant
    layout: ModelLayout
    network: nn.Module
    tokenizer: nn.Module
    files: Mapping[str, Mapping[str, str | int]] = MappingProxyType({})

    @classmethod
    @abstractmethod
    def variants(cls) -> Mapping[str, Variant]:
        """Return the models of this family by name."""

    @classmethod
    @abstractmethod
    def load(
        cls,
        variant: str,
        *,
        weights: Path | None,
        tokenizer: Path | None,
        device: str,
        dtype: torch.dtype,
    ) -> Adapter:
        """Load a variant from files the user names; an organism needs none.

        Args:
            variant: a name of `variants`; where `infers_sizes`, the family's own name, too.
            weights: the transformer's file.
            tokenizer: the image tokenizer's file.
            device: as torch names it.
            dtype: precision of the transformer.
        """

    @classmethod
    @abstractmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model object is of this family, by its structure."""

    @classmethod
    @abstractmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> Adapter:
        """Adapt a model object the user already holds.

        Args:
            model: an object that `matches`, out of every wrapper.
            tokenizer: None where the user gave none.
        """

    def compile_tokenizer(self) -> None:
        """Compile the tokenizer in place; the transformer never, so that it can be traced.

        Raises:
            InputError: there is no compiler, or, by default, the family offers no compiling.
        """
        raise InputError(f"{self.name} has no tokenizer that can be compiled: load it without")

    def prepared(self) -> AbstractContextManager[None]:
        """Make the network's own ``forward`` fit for teacher forcing for a while.

        Flags, modes and random number generators that this or the passes inside change come back
        as they were, exception or not. It may be entered again inside itself. By default there is
        nothing to do.
        """
        return nullcontext()

    @abstractmethod
    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens."""

    @abstractmethod
    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""

    @abstractmethod
    def teacher_forced(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return the arguments of ``forward`` that make the model read ground-truth tokens."""

    @abstractmethod
    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a token prefix; an empty prefix is generation.

        Users call ``model.complete`` instead: it runs this method through the traced model, so
        that an edit made through nnsight takes effect.
        """


class Metric(ABC):
    """Scores neurons from activations; one instance is one run.

    Attributes:
        name: what users choose it by.
        blockwise: a block's scores depend on that block alone; a store is then read block by
            block, with a fresh instance for each.
    """

    name: ClassVar[str]
    blockwise: ClassVar[bool] = False

    @abstractmethod
    def update(self, activations: xr.DataArray) -> None:
        """Take a batch of finished images.

        Args:
            activations: dims (block, scale, neuron, image), float32; coordinates ``image``
                (global id) and ``label``.
        """

    @abstractmethod
    def state(self) -> xr.Dataset:
        """Return everything needed to resume or to merge: named arrays and attributes."""

    @abstractmethod
    def merge(self, state: xr.Dataset) -> None:
        """Add another run's state; any order of updates and merges gives the same result."""

    @abstractmethod
    def compute(self) -> xr.DataArray:
        """Return the scores.

        Returns:
            dims (block, scale, neuron), with the boolean coordinate ``valid``, and
            ``top_image`` where it is known.
        """


class Intervention(ABC):
    """A change to neurons that can be undone; parameters go to ``__init__``."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, float]:
        """Return the parameters by name, for the report."""

    @abstractmethod
    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return the changed weights of the selected neurons; the input is left as it was."""


class Selector(ABC):
    """Picks neurons; the pool and how scales are joined go to ``__init__``."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, str]:
        """Return the parameters by name, for the report."""

    @abstractmethod
    def select(self, scores: xr.Dataset, *, fraction: float, seed: int) -> xr.DataArray:
        """Pick a fraction of the neurons, never one that is not valid.

        Args:
            scores: variables ``score`` and, where known, ``mean_activation`` with dims
                (block, scale, neuron) and the coordinate ``valid``.
            fraction: share of all neurons to select, in (0, 1].
            seed: used by selectors that draw at random.

        Returns:
            bool, dims (block, neuron).
        """


class Similarity(ABC):
    """Closeness of completion and target; higher is closer.

    Attributes:
        threshold: a candidate is extracted if its similarity is strictly above.
        threshold_source: who calibrated it, on what.
    """

    name: ClassVar[str]
    threshold: float
    threshold_source: str

    @property
    def provenance(self) -> Mapping[str, str | float]:
        """Return everything beside the images that the values depend on."""
        return {
            "name": self.name,
            "threshold": self.threshold,
            "threshold_source": self.threshold_source,
        }

    @abstractmethod
    def compare(self, completion: Completion, target: Completion) -> Float[Tensor, " image"]:
        """Return one similarity for each image."""


class Quality(ABC):
    """Measures image quality; every value carries the label of its protocol.

    Attributes:
        minimum: fewest images that it can measure, on either side.
    """

    name: ClassVar[str]
    minimum: int

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, str | int | None]:
        """Return everything beside the images that the values depend on."""

    @abstractmethod
    def features(
        self, images: Iterable[Float[Tensor, "_ 3 _ _"]]
    ) -> Float[np.ndarray, "image feature"]:
        """Return what the measure sees of images; those of a reference are computed once.

        Args:
            images: batches, RGB in [0, 1].
        """

    @abstractmethod
    def compare(
        self,
        generated: Float[np.ndarray, "generated feature"],
        reference: Float[np.ndarray, "reference feature"],
        *,
        reference_name: str,
    ) -> list[QualityValue]:
        """Compare the features of generated images with those of a reference."""
