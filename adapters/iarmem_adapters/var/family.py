"""What iarmem needs to know about a VAR of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.interfaces import Variant
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes

from .variants import ATTACK_SCALES, variants

if TYPE_CHECKING:
    from torch import nn

    from .transformer import VARConfig


def layout_of(config: VARConfig) -> ModelLayout:
    """Return where the neurons of a transformer of these sizes are; a scale is a span."""
    starts = (0, *config.ends)
    spans = zip(starts, config.ends, strict=False)
    return ModelLayout(
        family="var",
        num_blocks=config.depth,
        neurons_per_block=4 * config.width,
        scales=tuple(Scale(str(k), tuple(range(*span))) for k, span in enumerate(spans)),
        mlp=MLP(
            Writes("blocks.{block}.ffn.fc2"),
            {"fc1": Reads("blocks.{block}.ffn.fc1")},
            Site("blocks.{block}.ffn.act"),
        ),
        predicting=range(config.ends[-1]),
        ranked_tokens=config.patch_nums[-1] ** 2,
    )


def own_variant(network: nn.Module, config: VARConfig, side: int) -> Variant:
    """Describe a model that was not loaded by name; views and sampling are as published.

    Args:
        network: the transformer.
        config: the transformer's sizes.
        side: height and width of an image, in pixels.
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
        prefix_tokens=(0, *config.ends)[min(ATTACK_SCALES, len(config.ends) - 1)],
        num_classes=config.num_classes,
        files={},
        repositories={},
        sha256={},
        source="the user's own",
        licence="not checked",
    )
