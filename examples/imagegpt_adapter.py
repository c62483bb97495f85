"""Use transformers' ImageGPT with iarmem: an adapter in one file.

ImageGPT predicts a picture pixel by pixel and is told nothing of it. Its tokens are the nearest of
a list of colours. Install a module such as this one as a plugin; then `wrap(model, Colours(…))`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ImageGPTForCausalImageModeling

from iarmem_plugin import (
    MLP,
    Condition,
    ForwardInputs,
    InputError,
    ModelLayout,
    Reads,
    Scale,
    TokenByToken,
    Variant,
    Writes,
    hookimpl,
)


class Colours(nn.Module):
    """The tokenizer: a list of colours in [-1, 1], dims (code, 3)."""

    def __init__(self, colours: Tensor) -> None:
        super().__init__()
        self.colours = nn.Buffer(colours)


class ImageGPTAdapter(TokenByToken):
    """One ImageGPT of any size with its colours."""

    name, recognises = "imagegpt", "ImageGPTForCausalImageModeling"
    conditions, caches = frozenset(), True

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.network, self.tokenizer, self.config = network, tokenizer, network.config
        self.side, self.colours = math.isqrt(self.config.n_positions), tokenizer.colours
        self.layout = layout_of(self.config)
        self.variant = Variant.of(
            network, self.layout, name="imagegpt", resolution=self.side, prefix_tokens=self.side
        )

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        return {}

    @classmethod
    def load(cls, variant: str, **_: Any) -> ImageGPTAdapter:
        raise InputError("load the model by transformers, and wrap it")

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return isinstance(model, ImageGPTForCausalImageModeling)

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> ImageGPTAdapter:
        return cls(model, tokenizer)

    def tokenize(self, images: Tensor) -> Tensor:
        return torch.cdist((images * 2 - 1).flatten(2).mT, self.colours[None]).argmin(2)

    def decode(self, tokens: Tensor) -> Tensor:
        pixels: Tensor = self.colours[tokens].mT.unflatten(2, (self.side, self.side))
        return (pixels + 1) / 2

    def inputs(
        self, condition: Condition, tokens: Tensor, *, unconditional: bool = False
    ) -> ForwardInputs:
        start = tokens.new_full((len(tokens), 1), self.config.vocab_size - 1)
        return ForwardInputs(kwargs={"input_ids": torch.cat((start, tokens), 1)})


def layout_of(config: Any) -> ModelLayout:
    return ModelLayout(
        family="imagegpt",
        num_blocks=config.n_layer,
        neurons_per_block=config.n_inner or 4 * config.n_embd,
        scales=(Scale("last token", (config.n_positions - 1,)),),
        mlp=MLP(
            writes=Writes("transformer.h.{block}.mlp.c_proj", features=0),
            reads={"fc1": Reads("transformer.h.{block}.mlp.c_fc", features=1)},
        ),
        predicting=range(config.n_positions),
    )


@hookimpl
def provide_adapters() -> tuple[type[ImageGPTAdapter]]:
    return (ImageGPTAdapter,)
