"""RAR for iarmem: token by token, scored where the last token is predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from jaxtyping import Float, Int

from iarmem_plugin.data.augmentation import TenCrops
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Adapter, ForwardInputs, Sampling, Variant
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.typing import Tensor

from .variants import ATTACK_TOKENS, variants

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .tokenizer import MaskGITVQGAN
    from .transformer import RARConfig, RARTransformer


class RARAdapter(Adapter):
    """One RAR transformer with its MaskGIT-VQGAN.

    Reference: arXiv 2411.00776.
    """

    name: ClassVar[str] = "rar"
    infers_sizes: ClassVar[bool] = True
    recognises: ClassVar[str] = (
        "cls_token, target_aware_pos_embed, timesteps_embeddings, adaln_before_head, "
        "blocks with mlp.fc1 (RAR)"
    )
    config: RARConfig

    def __init__(self, network: RARTransformer, tokenizer: MaskGITVQGAN, variant: Variant) -> None:
        """Pair a transformer with its tokenizer.

        Raises:
            InputError: the two have different codes, or the tokens fill no square.
        """
        _check_pair(network, tokenizer)
        self.config = network.config
        self.network = network
        self.tokenizer = tokenizer
        self.variant = variant
        self.layout = layout(network)

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        """Return the released models."""
        return variants()

    @classmethod
    def load(
        cls,
        variant: str,
        *,
        weights: Path | None,
        tokenizer: Path | None,
        device: str,
        dtype: torch.dtype,
    ) -> RARAdapter:
        """Load a variant, or weights of any size, from files; a bundled organism needs none."""
        from .loading import load

        return load(variant, weights, tokenizer, device, dtype)

    def compile_tokenizer(self) -> None:
        """Compile the tokenizer's encoder and decoder in place."""
        from iarmem_adapters.layers.compiling import compile_tokenizer

        compile_tokenizer(self.tokenizer)

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model is a RAR transformer, ours or the official one."""
        from .official import is_official
        from .transformer import RARTransformer

        return isinstance(model, RARTransformer) or is_official(model)

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> RARAdapter:
        """Adapt a transformer and a tokenizer of this package's classes, or the official ones.

        Raises:
            InputError: they are neither, or do not fit each other.
        """
        from .official import OfficialRARAdapter, is_official
        from .tokenizer import MaskGITVQGAN
        from .transformer import RARTransformer

        if isinstance(model, RARTransformer) and isinstance(tokenizer, MaskGITVQGAN):
            _check_pair(model, tokenizer)
            return cls(model, tokenizer, own_variant(model, model.config, tokenizer.config.patch))
        if not isinstance(model, RARTransformer) and is_official(model):
            return OfficialRARAdapter(model, tokenizer)
        given = f"{type(model).__name__} and {type(tokenizer).__name__}"
        raise InputError(f"got {given}, expected a RARTransformer and a MaskGITVQGAN")

    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens.

        Raises:
            InputError: the images are of another size than the model's.
        """
        side = self.variant.resolution
        if images.shape[2:] != (side, side):
            given = "x".join(str(length) for length in images.shape[2:])
            raise InputError(f"got images of {given} pixels, expected {side}x{side}: resize them")
        return cast("MaskGITVQGAN", self.tokenizer).encode(images)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""
        return cast("MaskGITVQGAN", self.tokenizer).decode(tokens)

    def teacher_forced(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return labels and tokens; `forward` itself puts the labels behind the codes.

        Raises:
            InputError: a label outside the model's classes, or not all tokens of an image.
        """
        self._check_labels(labels)
        expected = self.config.num_tokens
        if tokens.shape[1] != expected:
            raise InputError(f"got {tokens.shape[1]} tokens an image, expected {expected}")
        return ForwardInputs((labels, tokens))

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of any length.

        Raises:
            InputError: a label outside the model's classes.
            ValueError: the prefix is longer than an image.
        """
        from .generation import complete

        self._check_labels(labels)
        return complete(cast("RARTransformer", self.network), prefix, labels, sampling)

    def _check_labels(self, labels: Tensor) -> None:
        classes = self.config.num_classes
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise InputError(
                f"labels reach from {int(labels.min())} to {int(labels.max())}; "
                f"the model has the classes 0 to {classes - 1}"
            )


def layout(network: RARTransformer) -> ModelLayout:
    """Return where a transformer's neurons are; see `layout_of`."""
    return layout_of(network.config)


def layout_of(config: RARConfig) -> ModelLayout:
    """Return where the neurons of a transformer of these sizes are.

    A block sees ``[start, class, token 1 .. token N]``. The one scale is the element that
    predicts token N: number N from 0, which holds token N - 1. The last element predicts nothing.
    """
    return ModelLayout(
        family="rar",
        num_blocks=config.depth,
        neurons_per_block=config.mlp_width,
        scales=(Scale("last token", (config.num_tokens,)),),
        fc1="blocks.{block}.mlp.fc1",
        activation="blocks.{block}.mlp.act",
        fc2="blocks.{block}.mlp.fc2",
        predicting=range(1, config.num_tokens + 1),
        ranked_tokens=max(1, 99 * config.num_tokens // 256),  # as the attack's (arXiv 2502.02514)
    )


def _check_pair(network: RARTransformer, tokenizer: MaskGITVQGAN) -> None:
    codes, others = network.config.vocab_size, tokenizer.config.vocab_size
    if codes != others:
        raise InputError(
            f"the transformer has {codes} codes, the tokenizer {others}: "
            "build both with the same vocab_size"
        )
    tokens = network.config.num_tokens
    if math.isqrt(tokens) ** 2 != tokens:
        raise InputError(f"the transformer's {tokens} tokens fill no square: give a square number")


def own_variant(network: nn.Module, config: RARConfig, patch: int) -> Variant:
    """Describe a model that was not loaded by name.

    Views are as published; so is sampling, as for the released model of as many blocks and
    neurons, or as for RAR-B.

    Args:
        network: the transformer.
        config: its sizes.
        patch: side, in pixels, of the part of an image that one token stands for.
    """
    side = math.isqrt(config.num_tokens) * patch
    released = variants()
    sizes = (config.depth, config.mlp_width)
    alike = [one for one in released.values() if (one.blocks, one.neurons) == sizes]
    known = (*alike, released["rar-b"])[0]
    return replace(
        known,
        name=f"rar-{config.depth}x{config.width}",
        blocks=config.depth,
        neurons=config.mlp_width,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        resolution=side,
        views=TenCrops(crop=side),
        prefix_tokens=min(ATTACK_TOKENS, config.num_tokens - 1),
        num_classes=config.num_classes,
        files=(),
        source="the user's own",
    )


@hookimpl
def provide_adapters() -> Iterable[type[Adapter]]:
    """Return the RAR adapter."""
    return (RARAdapter,)
