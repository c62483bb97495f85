"""An untrained image autoregressive model, small enough to be worked through by hand."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

SIDES = (1, 2, 4)
"""Tokens along one side of each scale; an image has 1 + 4 + 16."""
ENDS = tuple(accumulate((side**2 for side in SIDES), initial=0))
CLASSES, CODES, CODE_WIDTH, PIXELS = 5, 16, 4, 8
DEPTH, WIDTH = 3, 32


class TinyMLP(nn.Module):
    """The MLP of a block: ``fc1``, ``act``, ``fc2``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """Return the map's output; the neurons are what ``act`` returns."""
        return cast(Tensor, self.fc2(self.act(self.fc1(x))))


class TinyBlock(nn.Module):
    """A block without attention: what came before is in its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.ffn = nn.LayerNorm(width), TinyMLP(width)

    def forward(self, x: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """Add the MLP's output."""
        return x + cast(Tensor, self.ffn(self.norm(x)))


class TinyNetwork(nn.Module):
    """Predicts a scale's tokens from the class and the code maps of the scales before it."""

    def __init__(self, depth: int = DEPTH, width: int = WIDTH) -> None:
        super().__init__()
        self.class_embedding = nn.Embedding(CLASSES + 1, width)  # the last one is no class
        self.position_embedding = nn.Parameter(torch.empty(ENDS[-1], width))
        self.word = nn.Linear(CODE_WIDTH, width)
        self.blocks = nn.ModuleList(TinyBlock(width) for _ in range(depth))
        self.head = nn.Linear(width, CODES)

    def forward(
        self,
        labels: Int[Tensor, " image"],
        seen: Float[Tensor, "image token code"],
        start: int = 0,
    ) -> Float[Tensor, "image token vocab"]:
        """Return logits.

        Args:
            labels: class of each image; `CLASSES` means no class.
            seen: at each position, the sum of the code maps of the earlier scales.
            start: position of the first of these tokens in the image.
        """
        x = self.word(seen.to(self.word.weight.dtype))
        x = x + self.class_embedding(labels)[:, None]
        x = x + self.position_embedding[start : start + seen.shape[1]]
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.head(x))


class TinyTokenizer(nn.Module):
    """Turns pictures of 8 × 8 pixels into 21 tokens, scale by scale, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, CODE_WIDTH, 1))
        self.codes = nn.Embedding(CODES, CODE_WIDTH)
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(CODE_WIDTH, 3, 1), nn.Sigmoid()
        )

    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Choose each scale's nearest codes for what the scales before it left over."""
        rest, tokens = self.encoder(images), []
        for side in SIDES:
            wanted = F.adaptive_avg_pool2d(rest, side).flatten(2).transpose(1, 2)
            tokens.append(torch.cdist(wanted, self.codes.weight[None]).argmin(2))
            rest = rest - self.code_map(tokens[-1], SIDES[-1])
        return torch.cat(tokens, 1)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Decode the sum of all code maps; RGB in [0, 1]."""
        return cast(Tensor, self.decoder(self.sum_of_maps(tokens, SIDES[-1])))

    def code_map(self, tokens: Int[Tensor, "image token"], side: int) -> Tensor:
        """Return one scale's codes as a map of `side` × `side`: dims (image, code, row, column)."""
        own = round(tokens.shape[1] ** 0.5)
        codes = self.codes(tokens).transpose(1, 2).unflatten(2, (own, own))
        return F.interpolate(codes, size=(side, side))

    def sum_of_maps(self, tokens: Int[Tensor, "image token"], side: int) -> Tensor:
        """Return the sum of the maps of all whole scales among the first tokens."""
        total = torch.zeros(len(tokens), CODE_WIDTH, side, side, device=tokens.device)
        for begin, end in pairwise(one for one in ENDS if one <= tokens.shape[1]):
            total = total + self.code_map(tokens[:, begin:end], side)
        return total

    def seen(self, tokens: Int[Tensor, "image token"], scale: int) -> Tensor:
        """Return what a scale's positions see of earlier scales: dims (image, token, code)."""
        total = self.sum_of_maps(tokens[:, : ENDS[scale]], SIDES[scale])
        return total.flatten(2).transpose(1, 2)
