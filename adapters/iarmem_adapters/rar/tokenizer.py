"""RAR's image tokenizer, the MaskGIT-VQGAN."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_adapters.layers.group_norm import quick_layout
from iarmem_adapters.layers.precision import keeps_precision

from .autoencoder import Decoder, Encoder


@dataclass(frozen=True, slots=True)
class MaskGITVQGANConfig:
    """The sizes of one MaskGIT-VQGAN.

    Attributes:
        ch: channels at full resolution, before `ch_mult`; a multiple of 32, or below 32.
        ch_mult: factor of `ch` at each resolution, fine to coarse; each step halves the sides.
        res_blocks: residual blocks a resolution.
        vocab_size: number of codes.
        code_width: channels of one code.
    """

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    vocab_size: int = 1024
    code_width: int = 256

    @property
    def patch(self) -> int:
        """Height and width, in pixels, of the part of an image that one token stands for."""
        return int(2 ** (len(self.ch_mult) - 1))


class Quantizer(nn.Module):
    """Turn feature maps into tokens and back.

    Args:
        vocab_size: number of codes.
        code_width: channels of one code.
    """

    def __init__(self, vocab_size: int, code_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, code_width)

    @keeps_precision
    def forward(
        self, features: Float[Tensor, "image code height width"]
    ) -> Int[Tensor, "image token"]:
        """Return each place's code of least Euclidean distance, the lowest of equal ones.

        Returns:
            int64, in raster order.
        """
        rows = features.movedim(1, 3).flatten(0, 2)
        codes = self.embedding.weight
        distance = rows.square().sum(1, keepdim=True) + codes.square().sum(1)
        return distance.addmm_(rows, codes.T, alpha=-2).argmin(1).view(features.shape[0], -1)

    def embed(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image code height width"]:
        """Return the square code map of tokens; gradients pass.

        Raises:
            ValueError: the number of tokens is not a square.
        """
        side = math.isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            raise ValueError(f"got {tokens.shape[1]} tokens an image, expected a square number")
        codes: Tensor = self.embedding(tokens)
        return codes.mT.reshape(codes.shape[0], codes.shape[2], side, side)


class MaskGITVQGAN(nn.Module):
    """Turn images into one square map of tokens and back.

    Parameter names and shapes are those of the released checkpoint, which loads strictly.
    The parts are public, for training: `features`, the module `quantize` (see `Quantizer`) and
    `decode_features`. No call draws random numbers.

    Args:
        config: sizes of the tokenizer, whose weights are drawn afresh.

    Reference: arXiv 2202.04200, as used by arXiv 2411.00776.
    """

    def __init__(self, config: MaskGITVQGANConfig) -> None:
        super().__init__()
        self.config = config
        widths = tuple(config.ch * factor for factor in config.ch_mult)
        self.encoder = Encoder(widths, config.res_blocks, config.code_width)
        self.decoder = Decoder(widths, config.res_blocks, config.code_width)
        self.quantize = Quantizer(config.vocab_size, config.code_width)
        _initialise(self)

    def forward(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Return the reconstruction of square images in [0, 1]."""
        return self.decode(self.encode(images))

    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Return the tokens of images.

        Args:
            images: RGB in [0, 1], sides multiples of `config.patch` pixels.

        Returns:
            int64 codes in raster order.

        Raises:
            ValueError: a side is not a multiple of `config.patch`.
        """
        with torch.no_grad():
            tokens: Tensor = self.quantize(self.features(images))
        return tokens

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Return the square images of tokens, RGB in [0, 1].

        Raises:
            ValueError: the number of tokens is not a square.
        """
        return self.decode_features(self.quantize.embed(tokens))

    @keeps_precision
    def features(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image code height2 width2"]:
        """Return the maps that are quantised; gradients pass.

        Args:
            images: see `encode`.

        Raises:
            ValueError: a side is not a multiple of `config.patch`.
        """
        height, width = images.shape[2:]
        if height % self.config.patch or width % self.config.patch or not height * width:
            raise ValueError(
                f"got images of {height}x{width} pixels, expected multiples of "
                f"{self.config.patch}: resize them"
            )
        out: Tensor = self.encoder(quick_layout(images))
        return out.contiguous()

    @keeps_precision
    def decode_features(
        self, codes: Float[Tensor, "image code height width"], *, clamp: bool = True
    ) -> Float[Tensor, "image 3 height2 width2"]:
        """Return the images of code maps; gradients pass.

        Args:
            codes: see `Quantizer.embed`.
            clamp: limit the result to [0, 1]; a training loss may want it unlimited.
        """
        images: Tensor = self.decoder(quick_layout(codes)).contiguous()
        return images.clamp(0, 1) if clamp else images


@torch.no_grad()
def _initialise(model: MaskGITVQGAN) -> None:
    """Draw every weight, whatever the layers' own initialisation did.

    Convolutions get variance 1 / (3 fan-in), codes lie within +-1 / vocabulary.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(std=(3 * fan_in) ** -0.5)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.GroupNorm):
            module.weight.fill_(1)
            module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.uniform_(-1 / module.num_embeddings, 1 / module.num_embeddings)
