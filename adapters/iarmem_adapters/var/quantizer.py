"""The multi-scale quantiser: one feature map as the sum of ten coarse-to-fine code maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.layers.precision import keeps_precision

PHI_CONVOLUTIONS = 4


def phi_table(scales: int) -> tuple[int, ...]:
    """Return which of the four phi convolutions each scale uses.

    A scale's place k / (scales - 1) goes to the nearest of four ticks from 1/12 to 11/12.
    The arithmetic is float64, which decides the ties of ten scales as the released weights need.
    """
    ticks = np.linspace(1 / 12, 11 / 12, PHI_CONVOLUTIONS)
    places = (scale / max(scales - 1, 1) for scale in range(scales))
    return tuple(int(np.argmin(np.abs(ticks - place))) for place in places)


class PhiConvolutions(nn.Module):
    """The four shared convolutions that smooth an up-sampled code map.

    Args:
        code_width: channels of one code.
    """

    def __init__(self, code_width: int) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(
            nn.Conv2d(code_width, code_width, 3, padding=1) for _ in range(PHI_CONVOLUTIONS)
        )


class MultiScaleQuantizer(nn.Module):
    """Turn feature maps into tokens of all scales and back.

    `fhat` below is the sum of the up-sampled and smoothed code maps so far, of the finest
    scale's size. Training code can walk the scales itself, with the residual `features - fhat`:
    `coarsen`, `nearest`, `embed`, `accumulate`; gradients pass through the last two.

    Args:
        patch_nums: side of each scale's square token map, coarse to fine.
        vocab_size: number of codes.
        code_width: channels of one code.

    Reference: arXiv 2404.02905, algorithms 1 and 2.
    """

    def __init__(self, patch_nums: tuple[int, ...], vocab_size: int, code_width: int) -> None:
        super().__init__()
        self.patch_nums = patch_nums
        self.phi_index = phi_table(len(patch_nums))
        self.ema_vocab_hit_SV: Tensor
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(patch_nums), vocab_size))
        self.quant_resi = PhiConvolutions(code_width)
        self.embedding = nn.Embedding(vocab_size, code_width)

    def forward(
        self, features: Float[Tensor, "image code height width"]
    ) -> Int[Tensor, "image token"]:
        """Return the tokens of all scales of feature maps.

        Args:
            features: maps of the finest scale's size.

        Returns:
            int64 codes, scale after scale, each in raster order.

        Reference: arXiv 2404.02905, algorithm 1.
        """
        with torch.no_grad():
            rest, fhat = features, torch.zeros_like(features)
            chosen = []
            for scale in range(len(self.patch_nums)):
                chosen.append(self.nearest(self.coarsen(rest, scale)))
                added = self.smooth(self.embed(chosen[-1], scale), scale)
                rest = rest - added
                fhat = fhat + added
        return torch.cat(chosen, dim=1)

    def coarsen(
        self, features: Float[Tensor, "image code height width"], scale: int
    ) -> Float[Tensor, "image code side side"]:
        """Return maps averaged down to a scale's side."""
        if scale == len(self.patch_nums) - 1:
            return features
        return F.interpolate(features, size=self.patch_nums[scale], mode="area")

    @keeps_precision
    def nearest(
        self, features: Float[Tensor, "image code side side"]
    ) -> Int[Tensor, "image place"]:
        """Return each place's code of least Euclidean distance, the lowest of equal ones."""
        rows = features.movedim(1, 3).flatten(0, 2)
        codes = self.embedding.weight
        distance = rows.square().sum(1, keepdim=True) + codes.square().sum(1)
        return distance.addmm_(rows, codes.T, alpha=-2).argmin(1).view(features.shape[0], -1)

    def embed(
        self, tokens: Int[Tensor, "image place"], scale: int
    ) -> Float[Tensor, "image code side side"]:
        """Return the code map of one scale's tokens."""
        codes: Tensor = self.embedding(tokens)
        side = self.patch_nums[scale]
        return codes.mT.reshape(codes.shape[0], codes.shape[2], side, side)

    @keeps_precision
    def smooth(
        self, codes: Float[Tensor, "image code side side"], scale: int
    ) -> Float[Tensor, "image code height width"]:
        """Return a code map up-sampled to the finest side (bicubic) and smoothed by its phi."""
        if scale < len(self.patch_nums) - 1:
            codes = F.interpolate(codes, size=self.patch_nums[-1], mode="bicubic")
        convolved: Tensor = self.quant_resi.qresi_ls[self.phi_index[scale]](codes)
        return torch.lerp(codes, convolved, 0.5)

    def accumulate(
        self,
        fhat: Float[Tensor, "image code height width"],
        codes: Float[Tensor, "image code side side"],
        scale: int,
    ) -> Float[Tensor, "image code height width"]:
        """Return `fhat` with one scale's code map added; the given tensor is left alone."""
        return fhat + self.smooth(codes, scale)

    def next_input(
        self, fhat: Float[Tensor, "image code height width"], scale: int
    ) -> Float[Tensor, "image place code"]:
        """Return what the transformer reads at `scale + 1`, `fhat` holding scales 0 to `scale`.

        Raises:
            IndexError: `scale` is the last.
        """
        if scale >= len(self.patch_nums) - 1:
            raise IndexError(f"no scale follows scale {scale} of {len(self.patch_nums)}")
        return self.coarsen(fhat, scale + 1).flatten(2).mT

    def split(self, tokens: Int[Tensor, "image token"]) -> Sequence[Int[Tensor, "image place"]]:
        """Return the tokens of each scale.

        Raises:
            ValueError: the number of tokens is not that of all scales together.
        """
        sizes = [side * side for side in self.patch_nums]
        if tokens.shape[1] != sum(sizes):
            raise ValueError(
                f"got {tokens.shape[1]} tokens an image, expected {sum(sizes)} for the scales "
                f"{self.patch_nums}"
            )
        return torch.split(tokens, sizes, dim=1)

    def empty(self, images: int) -> Float[Tensor, "image code height width"]:
        """Return the `fhat` of no scales: zeros."""
        side = self.patch_nums[-1]
        return self.embedding.weight.new_zeros(images, self.embedding.embedding_dim, side, side)

    def accumulated(
        self, tokens: Int[Tensor, "image token"]
    ) -> Iterator[Float[Tensor, "image code height width"]]:
        """Yield `fhat` after each scale.

        Raises:
            ValueError: the number of tokens is not that of all scales together.
        """
        fhat = self.empty(tokens.shape[0])
        for scale, chosen in enumerate(self.split(tokens)):
            fhat = self.accumulate(fhat, self.embed(chosen, scale), scale)
            yield fhat
