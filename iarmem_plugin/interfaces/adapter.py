"""The model family that a plugin provides, and its variants."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Bool, Float, Shaped

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.checkpoint import Checkpoint
from iarmem_plugin.interfaces.condition import Condition
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.interfaces.plugin import Plugin
from iarmem_plugin.interfaces.sampling import Sampling
from iarmem_plugin.text import as_call
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

    from iarmem_plugin.data.augmentation import Augmentation
    from iarmem_plugin.interfaces.organism import Organism


@dataclass(frozen=True, slots=True)
class Variant:
    """One released or bundled model.

    Attributes:
        name: name that the user types, such as ``"var-d30"``.
        family: name of the family, such as ``"var"``.
        blocks: number of transformer blocks.
        neurons: number of neurons in each block.
        parameters: number of parameters of the transformer.
        resolution: side of the square images in pixels.
        views: augmentation the model was trained with.
        sampling: sampling settings as published.
        prefix_tokens: number of tokens given to a completion when the attack is run on this model.
        num_classes: number of classes; labels are 0 to num_classes - 1.
        files: name of each file by its role: ``"weights"`` (the transformer's), ``"tokenizer"``,
            and what else the family needs, such as ``"text encoder"``.
        repositories: repository of each file on the Hugging Face hub, where they are there, by
            role.
        sha256: SHA-256 of each file as it was released, by role, where it is known.
        source: place where the files are hosted; nothing is fetched from it unasked.
        licence: licence of the weights, or ``"not checked"``.
        organism: function that loads the bundled experiment, where the variant is an organism.
        twin_of: name of the organism that it was trained like, but without the canaries.
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
    files: Mapping[str, str] = field(default_factory=dict)
    repositories: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    licence: str = "not checked"
    organism: Callable[[], Organism] | None = None
    twin_of: str = ""

    @classmethod
    def of(
        cls,
        network: nn.Module,
        layout: ModelLayout,
        *,
        name: str,
        resolution: int,
        prefix_tokens: int,
        views: Augmentation | None = None,
        sampling: Sampling | None = None,
        **others: Any,
    ) -> Variant:
        """Describe a model by what its network and layout tell: blocks, neurons, parameters.

        Args:
            network: the transformer.
            layout: where its neurons are.
            name: name that the user types.
            resolution: side of the square images in pixels.
            prefix_tokens: number of tokens given to a completion by the attack.
            views: augmentation the model was trained with; by default random crops of a picture
                whose shorter side is an eighth longer.
            sampling: sampling settings as published; by default every token is drawn.
            others: further attributes by name.
        """
        from iarmem_plugin.data.augmentation import Views

        return cls(
            name=name,
            family=layout.family,
            blocks=layout.num_blocks,
            neurons=layout.neurons_per_block,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            resolution=resolution,
            views=views or Views(crop=resolution, resize=round(1.125 * resolution)),
            sampling=sampling or Sampling(greedy=False),
            prefix_tokens=prefix_tokens,
            **others,
        )


@dataclass(frozen=True, slots=True)
class ForwardInputs:
    """Arguments of the model's ``forward`` for one teacher-forced pass.

    Attributes:
        args: positional arguments.
        kwargs: arguments by name.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Adapter(Plugin):
    """The only place that knows a model family.

    Attributes:
        name: name of the family, such as ``"var"``.
        infers_sizes: whether `load` takes the family's name, too, and reads the sizes from the
            weights.
        recognises: what `matches` looks for, in a few words, for the refusal of other objects.
        module_aliases: second names under which a trace finds modules, by their own name, such as
            ``{"ffn": "mlp"}``.
        decoding: how `decode` makes a picture of tokens, in a few words, where a family has more
            than one way.
        conditions: what the model must be told of each image: ``"label"``, ``"text"`` (captions),
            ``"image"`` (global ids); empty for a model that is told nothing.
        without_class: whether `teacher_forced` takes the label -1, of an image of which no class is
            told; see `Condition.without_class`.
        fused_advice: how to build the model without fused kernels, in a few words, for the refusal
            of a model that has some.
        variant: facts about this model.
        layout: facts about its neurons: where they are, and the scales.
        network: transformer; borrowed, never changed outside a context manager.
        tokenizer: image tokenizer.
        files: facts that identify each file that was loaded, by its role: ``name`` without folder,
            ``sha256``, ``bytes``; empty for a model object that came from elsewhere.
    """

    kind = "adapter"
    infers_sizes: ClassVar[bool] = False
    recognises: ClassVar[str] = ""
    module_aliases: ClassVar[Mapping[str, str]] = MappingProxyType({})
    decoding: ClassVar[str] = ""
    conditions: ClassVar[frozenset[str]] = frozenset({"label"})
    without_class: ClassVar[bool] = False
    fused_advice: ClassVar[str] = ""
    variant: Variant
    layout: ModelLayout
    network: nn.Module
    tokenizer: nn.Module
    files: Mapping[str, Mapping[str, str | int]] = MappingProxyType({})

    def __repr__(self) -> str:
        """Return the class and the model's name."""
        variant = getattr(self, "variant", None)
        return as_call(self, {} if variant is None else {"variant": variant.name})

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Return the networks that are run, by role: their modes, hashes and weights are looked at.

        An adapter of more than the transformer and the image tokenizer adds the others, such as
        ``"text encoder"``.
        """
        return {"network": self.network, "tokenizer": self.tokenizer}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return nothing: the model's facts are in ``variant``, ``layout`` and ``files``."""
        return {}

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
        files: Mapping[str, Path],
        device: str,
        dtype: torch.dtype,
    ) -> Adapter:
        """Load a variant from files the user names; an organism needs none.

        Args:
            variant: name in `variants`; where `infers_sizes`, the family's own name, too.
            files: files by role: all that the variant's `files` name; of a family's own name,
                those that the user named.
            device: device as torch names it.
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
            model: object that `matches`, without any wrapper.
            tokenizer: image tokenizer; None where the user gave none.
        """

    @classmethod
    def checkpoint(cls, variant: str, weights: Path | None) -> Checkpoint:
        """Return a transformer's weights as their file holds them, so that they can be exported.

        Args:
            variant: name in `variants`; where `infers_sizes`, the family's own name, too.
            weights: the transformer's file; None for a model whose file is bundled.

        Raises:
            InputError: by default; an adapter without this method exports nothing.
        """
        raise InputError(
            f"{variant} cannot be exported: the adapter {cls.name!r} does not say how its weights "
            "lie in a file (Adapter.checkpoint)"
        )

    def compile_tokenizer(self) -> None:
        """Compile the tokenizer in place; the transformer never, so that it can be traced.

        Raises:
            InputError: there is no compiler, or, by default, the family's tokenizer cannot be
                compiled.
        """
        raise InputError(f"{self.name} has no tokenizer that can be compiled: load it without")

    @property
    def condition_width(self) -> int:
        """Return the width of what `condition_embedding` adds; by default 0: there is no place."""
        return 0

    def condition_embedding(
        self, added: Float[Tensor, "image width"]
    ) -> AbstractContextManager[None]:
        """Add a vector, for a while, to the embedding of what the model is told of each image.

        It acts on passes and completions of as many images, in their order, and lets gradients
        through; where a pass has rows for guidance behind these, they stay as they are.

        Args:
            added: float32, on the model's device.

        Raises:
            InputError: by default; `condition_width` is then 0.
        """
        raise InputError(f"models of {self.name!r} have no embedding of a class to add to")

    def prepared(self) -> AbstractContextManager[None]:
        """Make the network's own ``forward`` fit for teacher forcing for a while.

        Flags, modes and random number generators that this or the passes inside change come back
        as they were, exception or not. It may be entered again inside itself. By default there is
        nothing to do.
        """
        return nullcontext()

    @abstractmethod
    def tokenize(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Shaped[Tensor, "image token *rest"]:
        """Turn RGB images in [0, 1] into tokens: of any dtype, one row an image.

        Raises:
            InputError: the images are not of the model's size.
        """

    @abstractmethod
    def decode(
        self, tokens: Shaped[Tensor, "image token *rest"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""

    @abstractmethod
    def teacher_forced(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> ForwardInputs:
        """Return the arguments of ``forward`` that make the model read ground-truth tokens."""

    @abstractmethod
    def complete(
        self,
        prefix: Shaped[Tensor, "image prefix *rest"],
        condition: Condition,
        sampling: Sampling,
    ) -> Shaped[Tensor, "image token *rest"]:
        """Complete a token prefix; an empty prefix is generation.

        Users call ``model.complete`` instead: it runs this method through the traced model, so
        that an edit made through nnsight takes effect.

        Args:
            prefix: first tokens of each image.
            condition: what the model is told of each image.
            sampling: how the other tokens are chosen.

        Returns:
            all tokens of each image, the prefix included.
        """

    def logits(
        self, output: Any, tokens: Shaped[Tensor, "image token *rest"]
    ) -> Float[Tensor, "image token vocab"]:
        """Return the logits that predict each token, from what a teacher-forced pass returned.

        By default they are the output or its ``logits``, at the positions that predict tokens.
        A family whose ``forward`` leaves positions of its blocks out says here which are left.

        Args:
            output: what ``forward`` returned for the arguments of `teacher_forced`.
            tokens: ground-truth tokens of each image.
        """
        logits: Tensor = getattr(output, "logits", output)
        positions = self.layout.predicting
        if isinstance(positions, range) and positions.step == 1:
            return logits[:, positions.start : positions.stop]  # a view
        return logits[:, list(positions)]

    def predicted(
        self, output: Any, tokens: Shaped[Tensor, "image token *rest"]
    ) -> tuple[Bool[Tensor, "image token"], Float[Tensor, "image token"]]:
        """Return how well a teacher-forced pass predicted each token of an image.

        By default both come from `logits`. A family that predicts something else than one token
        of a vocabulary, such as bits, says here what a hit and a likelihood are.

        Args:
            output: what ``forward`` returned for the arguments of `teacher_forced`.
            tokens: ground-truth tokens of each image.

        Returns:
            whether the true token is the likeliest, and its log-likelihood, in float64.
        """
        from iarmem_plugin.interfaces.prediction import hits_and_likelihoods

        return hits_and_likelihoods(self.logits(output, tokens.clone()), tokens)
