"""Run this package's VAR transformer with its multi-scale VQVAE."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_adapters.class_conditional import Driver, require_classes
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import ForwardInputs, Sampling

from .generation import complete
from .tokenizer import MultiScaleVQVAE
from .transformer import VARTransformer


class VARDriver(Driver):
    """A `VARTransformer` with its `MultiScaleVQVAE`.

    Raises:
        InputError: the two are of other classes, or have different scales.
    """

    network: VARTransformer
    tokenizer: MultiScaleVQVAE

    def __init__(self, network: nn.Module, tokenizer: nn.Module | None) -> None:
        classes = (VARTransformer, MultiScaleVQVAE)
        self.network, self.tokenizer = require_classes(network, tokenizer, classes)
        self.config = self.network.config
        scales, others = self.config.patch_nums, self.tokenizer.config.patch_nums
        if scales != others:
            raise InputError(
                f"the transformer has the scales {scales}, the tokenizer {others}: build both "
                "with the same patch_nums"
            )
        self.side = self.tokenizer.config.image_side
        self.num_tokens = self.config.tokens

    @property
    def classes(self) -> tuple[nn.Embedding, int]:
        """Return the class embeddings."""
        return self.network.class_emb, 0

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model is a VAR transformer of this package."""
        return isinstance(model, VARTransformer)

    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens of all scales."""
        return self.tokenizer.encode(images * 2 - 1)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens of all scales into RGB images in [0, 1]."""
        return (self.tokenizer.decode(tokens) + 1) / 2

    def inputs(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return labels and, for every position, the sum of the scales before it."""
        return ForwardInputs((labels, self.tokenizer.teacher_input(tokens)))

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of whole scales.

        Raises:
            InputError: a prefix that does not end where a scale ends, or sampling settings out
                of range.
        """
        return complete(self.network, self.tokenizer, prefix, labels, sampling)
