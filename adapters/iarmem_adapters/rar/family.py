"""What iarmem needs to know about a RAR of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from iarmem_plugin.data.augmentation import TenCrops
from iarmem_plugin.interfaces import Variant
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes

from .variants import ATTACK_TOKENS, variants

if TYPE_CHECKING:
    from torch import nn

    from .transformer import RARConfig


def layout_of(config: RARConfig) -> ModelLayout:
    """Return where the neurons of a transformer of these sizes are.

    A block sees ``[start, class, token 1 .. token N]``. The one scale is token N: the element that
    predicts it is number N from 0, which holds token N - 1. The last element predicts nothing.
    """
    return ModelLayout(
        family="rar",
        num_blocks=config.depth,
        neurons_per_block=config.mlp_width,
        scales=(Scale("last token", (config.num_tokens - 1,)),),
        mlp=MLP(
            Writes("blocks.{block}.mlp.fc2"),
            {"fc1": Reads("blocks.{block}.mlp.fc1")},
            Site("blocks.{block}.mlp.act"),
        ),
        predicting=range(1, config.num_tokens + 1),
        ranked_tokens=max(1, 99 * config.num_tokens // 256),  # as the attack's (arXiv 2502.02514)
    )


def own_variant(network: nn.Module, config: RARConfig, side: int) -> Variant:
    """Describe a model that was not loaded by name.

    Views are as published; so is sampling, as for the released model of as many blocks and
    neurons, or as for RAR-B.

    Args:
        network: the transformer.
        config: the transformer's sizes.
        side: height and width of an image, in pixels.
    """
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
        files={},
        repositories={},
        sha256={},
        source="the user's own",
        licence="not checked",
        organism=None,
        twin_of="",
    )
