"""Use transformers' ImageGPT with iarmem: an adapter in one file.

ImageGPT predicts the colours of a picture, pixel by pixel, and is told nothing of it. Its tokens
are the nearest of a list of colours. Install this file as a plugin, or register it by hand.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import ImageGPTForCausalImageModeling

from iarmem_plugin import hookimpl
from iarmem_plugin.interfaces import ForwardInputs, ModelLayout, Scale, Variant
from iarmem_plugin.models.token_by_token import TokenByToken


class Colours(nn.Module):
    """The tokenizer: a list of colours in [-1, 1], dims (code, 3)."""

    def __init__(self, colours: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("colours", colours)


class ImageGPTAdapter(TokenByToken):
    """One ImageGPT of any size with its colours."""

    name, recognises = "imagegpt", "ImageGPTForCausalImageModeling"
    conditions, caches = frozenset(), True

    def __init__(self, network, tokenizer) -> None:
        self.network, self.tokenizer = network, tokenizer
        self.side = math.isqrt(network.config.n_positions)
        self.layout = layout_of(network.config)
        self.variant = Variant.of(
            network, self.layout, name="imagegpt", resolution=self.side, prefix_tokens=self.side
        )

    @classmethod
    def variants(cls):
        return {}

    @classmethod
    def load(cls, variant, *, files, device, dtype):
        raise NotImplementedError("wrap a model that transformers loaded")

    @classmethod
    def matches(cls, model):
        return isinstance(model, ImageGPTForCausalImageModeling)

    @classmethod
    def from_model(cls, model, tokenizer):
        return cls(model, tokenizer)

    def tokenize(self, images):
        pixels = (images * 2 - 1).flatten(2).transpose(1, 2)
        return torch.cdist(pixels, self.tokenizer.colours[None]).argmin(2)

    def decode(self, tokens):
        pixels = self.tokenizer.colours[tokens].transpose(1, 2)
        return (pixels.unflatten(2, (self.side, self.side)) + 1) / 2

    def inputs(self, condition, tokens, *, unconditional=False):
        start = tokens.new_full((len(tokens), 1), self.network.config.vocab_size - 1)
        return ForwardInputs(kwargs={"input_ids": torch.cat((start, tokens), 1)})


def layout_of(config) -> ModelLayout:
    count = config.n_positions
    return ModelLayout(
        family="imagegpt",
        num_blocks=config.n_layer,
        neurons_per_block=config.n_inner or 4 * config.n_embd,
        scales=(Scale("last token", (count - 1,)),),
        fc1="transformer.h.{block}.mlp.c_fc",
        activation="transformer.h.{block}.mlp.act",
        fc2="transformer.h.{block}.mlp.c_proj",
        predicting=range(count),
    )


@hookimpl
def provide_adapters():
    return (ImageGPTAdapter,)
