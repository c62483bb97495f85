"""A family that is told a label: gated, token by token, and its blocks are no more than holders.

`forward` runs the parts of each block itself, as some research code does, so that no block is ever
called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_plugin import (
    MLP,
    Adapter,
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

CLASSES, CODES, SIDE, WIDTH = 5, 16, 4, 32


class LabelledNetwork(nn.Module):
    """Predicts the next token from the class and the mean of the tokens before it."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Embedding(CLASSES + 1, WIDTH)  # the last one is no class
        self.codes = nn.Embedding(CODES, WIDTH)
        self.positions = nn.Parameter(torch.randn(SIDE**2, WIDTH))
        self.blocks = nn.ModuleList(self._block() for _ in range(2))
        self.head = nn.Linear(WIDTH, CODES)

    @staticmethod
    def _block() -> nn.ModuleDict:
        sizes = {"gate": (WIDTH, 48), "up": (WIDTH, 48), "down": (48, WIDTH)}
        parts = {name: nn.Linear(*size, bias=False) for name, size in sizes.items()}
        return nn.ModuleDict({"norm": nn.LayerNorm(WIDTH), **parts})

    def forward(self, labels: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of the token after each, from the first: [image token vocab]."""
        x = torch.cat((self.classes(labels)[:, None], self.codes(tokens)), dim=1)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            count = torch.arange(1, x.shape[1] + 1)[:, None]
            mixed = block["norm"](x.cumsum(dim=1) / count)
            x = x + block["down"](F.silu(block["gate"](mixed)) * block["up"](mixed))
        logits: Tensor = self.head(x)
        return logits


class Greys(nn.Module):
    """Stands for pixels by the nearest of 16 greys."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.linspace(0, 1, CODES))


class LabelledAdapter(TokenByToken):
    """One such network with its greys."""

    name = "labelled"

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.network, self.tokenizer = network, tokenizer
        reads = {name: Reads(f"blocks.{{block}}.{name}") for name in ("gate", "up")}
        self.layout = ModelLayout(
            family="labelled",
            num_blocks=len(network.blocks),
            neurons_per_block=48,
            scales=(Scale("last token", (SIDE**2 - 1,)),),
            mlp=MLP(Writes("blocks.{block}.down"), reads),
            predicting=range(SIDE**2),
        )
        self.variant = Variant.of(
            network,
            self.layout,
            name="labelled",
            resolution=SIDE,
            prefix_tokens=SIDE,
            num_classes=CLASSES,
        )

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        return {}

    @classmethod
    def load(cls, variant: str, **_: Any) -> Adapter:
        raise InputError("make the network, and wrap it")

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return isinstance(model, LabelledNetwork)

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> Adapter:
        return cls(model, tokenizer or Greys())

    def tokenize(self, images: Tensor) -> Tensor:
        grey = images.mean(dim=1).flatten(1)
        return (grey[..., None] - self.tokenizer.levels).abs().argmin(dim=2)

    def decode(self, tokens: Tensor) -> Tensor:
        grey = self.tokenizer.levels[tokens].unflatten(1, (1, SIDE, SIDE))
        return grey.expand(-1, 3, -1, -1)

    def inputs(
        self, condition: Condition, tokens: Tensor, *, unconditional: bool = False
    ) -> ForwardInputs:
        nothing = torch.full_like(condition.label, CLASSES)
        return ForwardInputs((nothing if unconditional else condition.label, tokens))
