"""VAR for iarmem: next-scale prediction, ten scales in one teacher-forced pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from jaxtyping import Float, Int

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Adapter, ForwardInputs, Sampling, Variant
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.typing import Tensor

from .variants import variants

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .tokenizer import MultiScaleVQVAE
    from .transformer import VARConfig, VARTransformer


class VARAdapter(Adapter):
    """One VAR transformer with its multi-scale VQVAE.

    Reference: arXiv 2404.02905.
    """

    name: ClassVar[str] = "var"
    infers_sizes: ClassVar[bool] = True
    recognises: ClassVar[str] = (
        "pos_start, lvl_1L, word_embed, class_emb, head_nm and blocks with ffn.fc1 (VAR)"
    )
    module_aliases: ClassVar[Mapping[str, str]] = {"ffn": "mlp"}
    fused_advice: ClassVar[str] = "for VAR: fused_if_available=False"
    config: VARConfig

    def __init__(
        self, network: VARTransformer, tokenizer: MultiScaleVQVAE, variant: Variant
    ) -> None:
        """Pair a transformer with its tokenizer.

        Raises:
            InputError: the two have different scales.
        """
        if network.config.patch_nums != tokenizer.config.patch_nums:
            raise InputError(
                f"the transformer has the scales {network.config.patch_nums}, the tokenizer "
                f"{tokenizer.config.patch_nums}: build both with the same patch_nums"
            )
        self.config = network.config
        self.network = network
        self.tokenizer = tokenizer
        self.variant = variant
        self.layout = layout(network)

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        """Return the released models and the organism."""
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
    ) -> VARAdapter:
        """Load a variant, or weights of any size, from files; a bundled organism needs none."""
        from .loading import load

        return load(variant, weights, tokenizer, device, dtype)

    def compile_tokenizer(self) -> None:
        """Compile the tokenizer's encoder and decoder in place."""
        from iarmem_adapters.layers.compiling import compile_tokenizer

        compile_tokenizer(self.tokenizer)

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model is a VAR transformer, ours or the official one."""
        from .official import is_official
        from .transformer import VARTransformer

        return isinstance(model, VARTransformer) or is_official(model)

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> VARAdapter:
        """Adapt a transformer and a tokenizer of this package's classes, or the official ones.

        Args:
            model: the transformer.
            tokenizer: may be None with the official transformer, which holds its own.

        Raises:
            InputError: they are neither, or do not fit each other.
        """
        from .official import OfficialVARAdapter, is_official
        from .tokenizer import MultiScaleVQVAE
        from .transformer import VARTransformer

        if isinstance(model, VARTransformer) and isinstance(tokenizer, MultiScaleVQVAE):
            return cls(
                model, tokenizer, own_variant(model, model.config, tokenizer.config.image_side)
            )
        if not isinstance(model, VARTransformer) and is_official(model):
            return OfficialVARAdapter(model, tokenizer)
        given = f"{type(model).__name__} and {type(tokenizer).__name__}"
        raise InputError(f"got {given}, expected a VARTransformer and a MultiScaleVQVAE")

    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens of all scales."""
        return cast("MultiScaleVQVAE", self.tokenizer).encode(images * 2 - 1)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens of all scales into RGB images in [0, 1]."""
        images = cast("MultiScaleVQVAE", self.tokenizer).decode(tokens)
        return (images + 1) / 2

    def teacher_forced(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return labels and, for every position, the sum of the scales before it.

        Raises:
            InputError: a label outside the model's classes.
        """
        self._check_labels(labels)
        x_in = cast("MultiScaleVQVAE", self.tokenizer).teacher_input(tokens)
        return ForwardInputs((labels, x_in))

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of whole scales.

        Raises:
            InputError: a label outside the model's classes, or a prefix that does not end where a
                scale ends.
        """
        from .generation import complete

        self._check_labels(labels)
        network = cast("VARTransformer", self.network)
        return complete(network, cast("MultiScaleVQVAE", self.tokenizer), prefix, labels, sampling)

    def _check_labels(self, labels: Tensor) -> None:
        classes = self.config.num_classes
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise InputError(
                f"labels reach from {int(labels.min())} to {int(labels.max())}; "
                f"the model has the classes 0 to {classes - 1}"
            )


def layout(network: VARTransformer) -> ModelLayout:
    """Return where a transformer's neurons are; a scale is a span of positions."""
    return layout_of(network.config)


def layout_of(config: VARConfig) -> ModelLayout:
    """Return where the neurons of a transformer of these sizes are."""
    starts = (0, *config.ends)
    spans = zip(starts, config.ends, strict=False)
    return ModelLayout(
        family="var",
        num_blocks=config.depth,
        neurons_per_block=4 * config.width,
        scales=tuple(Scale(str(k), tuple(range(*span))) for k, span in enumerate(spans)),
        fc1="blocks.{block}.ffn.fc1",
        activation="blocks.{block}.ffn.act",
        fc2="blocks.{block}.ffn.fc2",
        predicting=range(config.ends[-1]),
        ranked_tokens=config.patch_nums[-1] ** 2,
    )


def own_variant(network: nn.Module, config: VARConfig, side: int) -> Variant:
    """Describe a model that was not loaded by name; views and sampling as published.

    Args:
        network: the transformer.
        config: its sizes.
        side: of its images, in pixels.
    """
    known = variants()["var-d16"]
    return replace(
        known,
        name=f"var-{config.depth}x{config.width}",
        blocks=config.depth,
        neurons=4 * config.width,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        resolution=side,
        views=Views(crop=side, resize=round(1.125 * side)),
        prefix_tokens=config.ends[min(4, len(config.ends)) - 1],
        num_classes=config.num_classes,
        files=(),
        source="the user's own",
    )


@hookimpl
def provide_adapters() -> Iterable[type[Adapter]]:
    """Return the VAR adapter."""
    return (VARAdapter,)
