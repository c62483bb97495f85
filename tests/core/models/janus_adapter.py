"""transformers' Janus: a gated model that is told a caption, and predicts behind a prompt.

The released classes are driven as they are, and no module of them is changed or wrapped: the
network is `JanusModel`, whose ``forward`` returns hidden states (the whole model's gives logits of
words), and its own ``generation_head`` makes logits of image tokens of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration, JanusModel

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
)

LETTERS = 9
BEGIN, IMAGE, NOTHING = 256, 257, 258  # beside 256 bytes: Janus' own are in its tokenizer
PROMPT = LETTERS + 2


class JanusAdapter(TokenByToken):
    """A Janus whose captions are the bytes of their last letters, so many for every image."""

    name, recognises = "janus", "JanusForConditionalGeneration"
    conditions, caches = frozenset({"text"}), True

    def __init__(self, network: JanusModel) -> None:
        self.network, self.tokenizer = network, network.vqmodel
        self.layout = layout_of(network)
        self.variant = Variant.of(
            network,
            self.layout,
            name="janus",
            resolution=network.config.vision_config.image_size,
            prefix_tokens=self.side,
        )

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        return {}

    @classmethod
    def load(cls, variant: str, **_: Any) -> JanusAdapter:
        raise InputError("load the model by transformers, and wrap it")

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return isinstance(model, JanusForConditionalGeneration | JanusModel)

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> JanusAdapter:
        return cls(getattr(model, "model", model))

    @property
    def side(self) -> int:
        return self.tokenizer.config.num_patches

    def tokenize(self, images: Tensor) -> Tensor:
        return self.tokenizer.encode(images * 2 - 1).image_tokens.view(len(images), -1)

    def decode(self, tokens: Tensor) -> Tensor:
        return (self.tokenizer.decode(tokens) + 1).clamp(0, 2) / 2

    def inputs(
        self, condition: Condition, tokens: Tensor, *, unconditional: bool = False
    ) -> ForwardInputs:
        """Return the embeddings of a prompt and of image tokens, from two tables."""
        network, told = self.network, prompts(condition.text or (), nothing=unconditional)
        prompt = network.get_input_embeddings()(told.to(tokens.device))
        image = network.generation_aligner(network.generation_embeddings(tokens))
        return ForwardInputs(kwargs={"inputs_embeds": torch.cat((prompt, image), 1)})

    def logits(self, output: Any, tokens: Tensor) -> Tensor:
        return self.network.generation_head(super().logits(output.last_hidden_state, tokens))

    def next_logits(self, output: Any) -> Tensor:
        return self.network.generation_head(output.last_hidden_state[:, -1:])


def prompts(captions: Sequence[str], *, nothing: bool = False) -> Tensor:
    """Return one prompt an image: a begin, a caption or nothing, and where the image begins."""
    ends = [caption.encode()[-LETTERS:].rjust(LETTERS) for caption in captions]
    letters = torch.tensor([list(end) for end in ends], dtype=torch.int64).view(-1, LETTERS)
    letters = torch.full_like(letters, NOTHING) if nothing else letters
    begin, image = (letters.new_full((len(letters), 1), one) for one in (BEGIN, IMAGE))
    return torch.cat((begin, letters, image), 1)


def layout_of(network: JanusModel) -> ModelLayout:
    config, count = network.config.text_config, network.vqmodel.config.num_patches**2
    mlp = "language_model.layers.{block}.mlp."
    return ModelLayout(
        family="janus",
        num_blocks=config.num_hidden_layers,
        neurons_per_block=config.intermediate_size,
        scales=(Scale("last token", (count - 1,)),),
        mlp=MLP(
            writes=Writes(mlp + "down_proj"),
            reads={"gate": Reads(mlp + "gate_proj"), "up": Reads(mlp + "up_proj")},
        ),
        predicting=range(PROMPT - 1, PROMPT - 1 + count),
    )
