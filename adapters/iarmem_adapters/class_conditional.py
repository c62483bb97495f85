"""The half of an adapter that is the same in every class-conditional family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from jaxtyping import Float, Int

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import (
    Adapter,
    Checkpoint,
    Condition,
    ForwardInputs,
    Sampling,
    Variant,
)
from iarmem_plugin.interfaces.condition import NO_CLASS
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

    from iarmem_adapters.checkpoints.identify import Signature
    from iarmem_adapters.checkpoints.loading import Family

Network = TypeVar("Network")
Tokenizer = TypeVar("Tokenizer")


class Driver(ABC):
    """A transformer with its tokenizer, and how the two are run: ours, or the authors' objects.

    Attributes:
        network: the transformer.
        tokenizer: its image tokenizer.
        config: the transformer's sizes, `num_classes` among them.
        side: height and width of an image, in pixels.
        num_tokens: tokens of one image.

    Raises:
        InputError: the two are not of the family, or do not fit each other.
    """

    network: Any
    tokenizer: Any
    config: Any
    side: int
    num_tokens: int

    @abstractmethod
    def __init__(self, network: nn.Module, tokenizer: nn.Module | None) -> None: ...

    @classmethod
    @abstractmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model is a transformer that this class runs."""

    def prepared(self) -> AbstractContextManager[None]:
        """Make ``forward`` fit for teacher forcing for a while; see `Adapter`."""
        return nullcontext()

    @property
    @abstractmethod
    def classes(self) -> tuple[nn.Embedding, int]:
        """Return the module that embeds classes, and the index of the first class in it."""

    def adding(self, added: Float[Tensor, "image width"]) -> AbstractContextManager[None]:
        """Add a vector to the class embedding of each image for a while; see `Adapter`."""
        from iarmem_adapters.layers.adding import adding

        return adding(*self.classes, added)

    @abstractmethod
    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1], of the right size, into tokens."""

    @abstractmethod
    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""

    @abstractmethod
    def inputs(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return the arguments of ``forward`` for all tokens and labels; `num_classes` is none."""

    @abstractmethod
    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a token prefix, given classes that there are.

        Raises:
            InputError: a prefix that the family cannot complete, or sampling settings out of range.
        """


class ClassConditionalAdapter(Adapter):
    """A transformer that is told the class of each image, with its tokenizer.

    A family adds its name, what it recognises, and the abstract methods.

    Args:
        driver: what runs the two networks.
        variant: what is known about the model; by default what its sizes tell.
    """

    infers_sizes: ClassVar[bool] = True
    without_class: ClassVar[bool] = True

    def __init__(self, driver: Driver, variant: Variant | None = None) -> None:
        self.driver = driver
        self.network = driver.network
        self.tokenizer = driver.tokenizer
        self.config = driver.config
        self.layout = self.layout_of(self.config)
        self.variant = variant or self.own_variant(self.network, self.config, driver.side)

    @staticmethod
    @abstractmethod
    def layout_of(config: Any) -> ModelLayout:
        """Return where the neurons of a transformer of these sizes are."""

    @staticmethod
    @abstractmethod
    def own_variant(network: nn.Module, config: Any, side: int) -> Variant:
        """Describe a model that was not loaded by name."""

    @classmethod
    @abstractmethod
    def family(cls) -> Family:
        """Return how the family's networks are told by their weights, and built."""

    @classmethod
    @abstractmethod
    def drivers(cls) -> tuple[type[Driver], type[Driver]]:
        """Return what runs this package's networks, and what runs the authors' objects."""

    @classmethod
    def signatures(cls) -> Sequence[Signature]:
        """Return what tells the weights of the family's two networks."""
        family = cls.family()
        return family.transformer.signature, family.tokenizer.signature

    @classmethod
    def load(
        cls,
        variant: str,
        *,
        files: Mapping[str, Path],
        device: str,
        dtype: torch.dtype,
        sizes: tuple[Any, Any] | None = None,
    ) -> ClassConditionalAdapter:
        """Load a variant, or weights of any size, from files; a bundled organism needs none.

        Args:
            variant: name of a variant, or the family's own name for weights of any size.
            files: the transformer's file as ``"weights"``, the image tokenizer's as
                ``"tokenizer"``.
            device: device for both networks, in torch's naming.
            dtype: precision of the transformer; the tokenizer stays in float32.
            sizes: sizes that the transformer's and the tokenizer's weights must have; by default
                those of the variant or, for the family's name, whatever their shapes tell.

        Raises:
            InputError: a file that is not named, or named for an organism, or not there; or two
                networks that do not fit each other.
            WeightsError: a file that does not hold such weights.
        """
        from iarmem_adapters.checkpoints.loading import load_networks

        loaded = load_networks(
            cls.family(), variant, files, device=device, dtype=dtype, sizes=sizes
        )
        driver = cls.drivers()[0](loaded.transformer, loaded.tokenizer)
        adapter = cls(driver, cls.variants().get(variant))
        adapter.files = loaded.files
        return adapter

    @classmethod
    def checkpoint(cls, variant: str, weights: Path | None) -> Checkpoint:
        """Return a transformer's weights as their file holds them; see `Adapter`.

        Raises:
            InputError: there is no such file.
            WeightsError: it does not hold such weights.
        """
        from iarmem_adapters.checkpoints.loading import open_checkpoint

        return open_checkpoint(cls.family(), variant, weights, cls.layout_of)

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model is a transformer of the family, ours or the official one."""
        return any(driver.matches(model) for driver in cls.drivers())

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> ClassConditionalAdapter:
        """Adapt a transformer and a tokenizer of this package's classes, or the official ones.

        Args:
            model: the transformer.
            tokenizer: None where the user gave none, as for an official object that holds its own.

        Raises:
            InputError: they are neither, or do not fit each other.
        """
        ours, official = cls.drivers()
        if not ours.matches(model) and official.matches(model):
            return cls(official(model, tokenizer))
        return cls(ours(model, tokenizer))

    @property
    def condition_width(self) -> int:
        """Return the width of a class embedding."""
        return int(self.driver.classes[0].embedding_dim)

    def condition_embedding(
        self, added: Float[Tensor, "image width"]
    ) -> AbstractContextManager[None]:
        """Add a vector to the class embedding of each image for a while; see `Adapter`."""
        return self.driver.adding(added)

    def compile_tokenizer(self) -> None:
        """Compile the tokenizer's encoder and decoder in place.

        Raises:
            InputError: there is no compiler.
        """
        from iarmem_adapters.layers.compiling import compile_tokenizer

        compile_tokenizer(self.tokenizer)

    def prepared(self) -> AbstractContextManager[None]:
        """Make ``forward`` fit for teacher forcing for a while; see `Adapter`."""
        return self.driver.prepared()

    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens.

        Raises:
            InputError: the images are of another size than the model's.
        """
        side = self.variant.resolution
        if images.shape[2:] != (side, side):
            given = "x".join(str(length) for length in images.shape[2:])
            raise InputError(f"got images of {given} pixels, expected {side}x{side}: resize them")
        return self.driver.encode(images)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""
        return self.driver.decode(tokens)

    def teacher_forced(
        self, tokens: Int[Tensor, "image token"], condition: Condition
    ) -> ForwardInputs:
        """Return the arguments with which ``forward`` reads ground-truth tokens.

        The label -1 tells no class: the model is then given the index after its last class, with
        which it was trained where a class was dropped.

        Raises:
            InputError: a label outside the model's classes, or not all tokens of an image.
        """
        unlabelled = condition.label == NO_CLASS
        self._check_labels(condition.label[~unlabelled])
        expected = self.driver.num_tokens
        if tokens.shape[1] != expected:
            raise InputError(f"got {tokens.shape[1]} tokens an image, expected {expected}")
        labels = condition.label.masked_fill(unlabelled, self.config.num_classes)
        return self.driver.inputs(tokens, labels)

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        condition: Condition,
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a token prefix; an empty prefix is generation.

        Raises:
            InputError: a label outside the model's classes, a prefix that the family cannot
                complete, or sampling settings out of range.
        """
        self._check_labels(condition.label)
        return self.driver.complete(prefix, condition.label, sampling)

    def logits(
        self, output: Any, tokens: Int[Tensor, "image token"]
    ) -> Float[Tensor, "image token vocab"]:
        """Return the logits of every token: ``forward`` begins with those of the first one."""
        logits: Tensor = output
        return logits[:, : tokens.shape[1]]

    def _check_labels(self, labels: Tensor) -> None:
        classes = self.config.num_classes
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise InputError(
                f"labels reach from {int(labels.min())} to {int(labels.max())}; "
                f"the model has the classes 0 to {classes - 1}"
            )


def require_classes(
    network: object, tokenizer: object, expected: tuple[type[Network], type[Tokenizer]]
) -> tuple[Network, Tokenizer]:
    """Return a transformer and a tokenizer, known to be of this package's classes.

    Raises:
        InputError: one of the two is of another class.
    """
    if not isinstance(network, expected[0]) or not isinstance(tokenizer, expected[1]):
        given = f"{type(network).__name__} and {type(tokenizer).__name__}"
        wanted = f"a {expected[0].__name__} and a {expected[1].__name__}"
        raise InputError(f"got {given}, expected {wanted}")
    return network, tokenizer
