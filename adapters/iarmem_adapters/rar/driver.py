"""Run this package's RAR transformer with its MaskGIT-VQGAN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_adapters.class_conditional import Driver, require_classes
from iarmem_adapters.official import attributes_set
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import ForwardInputs, Sampling

from .generation import complete
from .tokenizer import MaskGITVQGAN
from .transformer import RARTransformer


class RARDriver(Driver):
    """A `RARTransformer` with its `MaskGITVQGAN`.

    Raises:
        InputError: the two are of other classes or have different codes, or the tokens fill no
            square.
    """

    network: RARTransformer
    tokenizer: MaskGITVQGAN

    def __init__(self, network: nn.Module, tokenizer: nn.Module | None) -> None:
        classes = (RARTransformer, MaskGITVQGAN)
        self.network, self.tokenizer = require_classes(network, tokenizer, classes)
        self.config = self.network.config
        codes, others = self.config.vocab_size, self.tokenizer.config.vocab_size
        if codes != others:
            raise InputError(
                f"the transformer has {codes} codes, the tokenizer {others}: "
                "build both with the same vocab_size"
            )
        self.num_tokens = self.config.num_tokens
        rows = math.isqrt(self.num_tokens)
        if rows**2 != self.num_tokens:
            raise InputError(
                f"the transformer's {self.num_tokens} tokens fill no square: give a square number"
            )
        self.side = rows * self.tokenizer.config.patch

    @property
    def classes(self) -> tuple[nn.Embedding, int]:
        """Return the embeddings, where classes stand behind the codes and the mask."""
        return self.network.embeddings, self.config.vocab_size + 1

    @contextmanager
    def adding(self, added: Float[Tensor, "image width"]) -> Iterator[None]:
        """Add a vector to the class embedding of each image, which then has modulations alone."""
        with attributes_set([(self.network, "apart", True)]), super().adding(added):
            yield

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model is a RAR transformer of this package."""
        return isinstance(model, RARTransformer)

    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens."""
        return self.tokenizer.encode(images)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""
        return self.tokenizer.decode(tokens)

    def inputs(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return labels and tokens; `forward` itself puts the labels behind the codes."""
        return ForwardInputs((labels, tokens))

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of any length.

        Raises:
            InputError: a prefix longer than an image, or sampling settings out of range.
        """
        return complete(self.network, prefix, labels, sampling)
