"""VAR's image tokenizer, the multi-scale VQVAE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_adapters.layers.group_norm import quick_layout
from iarmem_adapters.layers.precision import keeps_precision

from .autoencoder import Decoder, Encoder
from .quantizer import MultiScaleQuantizer


@dataclass(frozen=True, slots=True)
class VQVAEConfig:
    """The sizes of one multi-scale VQVAE.

    Attributes:
        patch_nums: side of each scale's square token map, coarse to fine.
        ch: channels at full resolution, before `ch_mult`; a multiple of 32, or below 32.
        ch_mult: factor of `ch` at each resolution, fine to coarse; each step halves the sides.
        res_blocks: residual blocks a resolution in the encoder; the decoder has one more.
        vocab_size: number of codes.
        code_width: channels of one code.
    """

    patch_nums: tuple[int, ...]
    ch: int = 160
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    vocab_size: int = 4096
    code_width: int = 32

    @property
    def image_side(self) -> int:
        """Height and width of an image, in pixels."""
        return int(self.patch_nums[-1] * 2 ** (len(self.ch_mult) - 1))


class MultiScaleVQVAE(nn.Module):
    """Turn images into tokens of ten scales and back.

    Parameter names and shapes are those of the released checkpoint, which loads strictly.
    The parts are public, for training and for generation: `features`, the module `quantize`
    (see `MultiScaleQuantizer`) and `decode_features`. No call draws random numbers.

    Args:
        config: sizes of the tokenizer, whose weights are drawn afresh.

    Reference: arXiv 2404.02905, section 3.2, algorithms 1 and 2.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        widths = tuple(config.ch * factor for factor in config.ch_mult)
        code = config.code_width
        self.encoder = Encoder(widths, config.res_blocks, code)
        self.decoder = Decoder(widths, config.res_blocks + 1, code)
        self.quantize = MultiScaleQuantizer(config.patch_nums, config.vocab_size, code)
        self.quant_conv = nn.Conv2d(code, code, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(code, code, 3, padding=1)
        _initialise(self)

    def forward(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Return the reconstruction of images in [-1, 1]."""
        return self.decode(self.encode(images))

    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Return the tokens of images.

        Args:
            images: RGB in [-1, 1], of `config.image_side` pixels each way.

        Returns:
            int64 codes, scale after scale, each in raster order.

        Raises:
            ValueError: the images are of another size.
        """
        with torch.no_grad():
            tokens: Tensor = self.quantize(self.features(images))
        return tokens

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Return the images of all scales' tokens, RGB in [-1, 1].

        Raises:
            ValueError: the number of tokens is not that of all scales together.
        """
        *_, fhat = self.quantize.accumulated(tokens)
        return self.decode_features(fhat)

    def teacher_input(
        self, tokens: Int[Tensor, "image token"]
    ) -> Float[Tensor, "image token_minus_1 code"]:
        """Return what the transformer reads at every position but the first.

        The positions of scale k carry the sum of the scales before k, averaged to its side.

        Raises:
            ValueError: the number of tokens is not that of all scales together.
        """
        sums = self.quantize.accumulated(tokens)
        scales = range(len(self.config.patch_nums) - 1)
        rows = [self.quantize.next_input(next(sums), scale) for scale in scales]
        return torch.cat(rows, dim=1)

    @keeps_precision
    def features(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image code side side"]:
        """Return the maps that are quantised; gradients pass.

        Args:
            images: RGB in [-1, 1], of `config.image_side` pixels each way.

        Raises:
            ValueError: the images are of another size.
        """
        side = self.config.image_side
        if images.shape[2:] != (side, side):
            given = "x".join(str(length) for length in images.shape[2:])
            raise ValueError(f"got images of {given} pixels, expected {side}x{side}: resize them")
        out: Tensor = self.quant_conv(self.encoder(quick_layout(images)))
        return out.contiguous()

    @keeps_precision
    def decode_features(
        self, fhat: Float[Tensor, "image code side side"], *, clamp: bool = True
    ) -> Float[Tensor, "image 3 height width"]:
        """Return the images of summed code maps; gradients pass.

        Args:
            fhat: see `MultiScaleQuantizer`.
            clamp: limit the result to [-1, 1]; a training loss may want it unlimited.
        """
        images: Tensor = self.decoder(self.post_quant_conv(quick_layout(fhat))).contiguous()
        return images.clamp(-1, 1) if clamp else images


@torch.no_grad()
def _initialise(model: MultiScaleVQVAE) -> None:
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
