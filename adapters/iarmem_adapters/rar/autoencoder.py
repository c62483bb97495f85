"""The convolutional encoder and decoder of the MaskGIT-VQGAN."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.layers.group_norm import GroupNorm


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut.

    Where the width changes, the shortcut starts from the convolved map, not from the input; the
    released weights were trained so.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; the shortcut is a 1x1 convolution where they differ.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(inputs, silu=True)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = GroupNorm(outputs, silu=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.widens = inputs != outputs
        if self.widens:
            self.nin_shortcut = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "image inputs height width"]
    ) -> Float[Tensor, "image outputs height width"]:
        """Return the convolved x plus its shortcut."""
        hidden = self.conv1(self.norm1(x))
        hidden = self.conv2(self.norm2(hidden, overwrite=True))
        out: Tensor = self.nin_shortcut(hidden).add_(hidden) if self.widens else hidden.add_(x)
        return out


class Level(nn.Module):
    """The residual blocks of one resolution, the first of which changes the width.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        blocks: number of residual blocks.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.ModuleList(map(ResidualBlock, widths[:-1], widths[1:]))

    def forward(
        self, x: Float[Tensor, "image inputs height width"]
    ) -> Float[Tensor, "image outputs height2 width2"]:
        """Return the map after the blocks."""
        for block in self.block:
            x = block(x)
        return x


class UpLevel(Level):
    """A resolution of the decoder, which hands on a map of double the size unless finest.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        blocks: number of residual blocks.
        finest: whether no resolution follows.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, *, finest: bool) -> None:
        super().__init__(inputs, outputs, blocks)
        self.finest = finest
        if not finest:
            self.upsample_conv = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "image inputs height width"]
    ) -> Float[Tensor, "image outputs height2 width2"]:
        """Return the map for the next level."""
        x = super().forward(x)
        if self.finest:
            return x
        out: Tensor = self.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Encoder(nn.Module):
    """Turn images into feature maps, averaging 2x2 places between resolutions.

    Args:
        widths: channels at each resolution, fine to coarse.
        res_blocks: residual blocks at each resolution.
        code_width: channels of one code.
    """

    def __init__(self, widths: tuple[int, ...], res_blocks: int, code_width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        inputs = widths[:1] + widths[:-1]
        self.down = nn.ModuleList(
            Level(before, after, res_blocks) for before, after in zip(inputs, widths, strict=True)
        )
        self.mid = middle(widths[-1], res_blocks)
        self.norm_out = GroupNorm(widths[-1], silu=True)
        self.conv_out = nn.Conv2d(widths[-1], code_width, 1)

    def forward(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image code coarse_height coarse_width"]:
        """Return the feature maps of images in [0, 1]."""
        x = self.conv_in(images)
        for index, level in enumerate(self.down):
            x = level(x if index == 0 else F.avg_pool2d(x, 2))
        out: Tensor = self.conv_out(self.norm_out(self.mid(x), overwrite=True))
        return out


class Decoder(nn.Module):
    """Turn feature maps into images; `up` is stored fine to coarse and run the other way.

    Args:
        widths: channels at each resolution, fine to coarse.
        res_blocks: residual blocks at each resolution.
        code_width: channels of one code.
    """

    def __init__(self, widths: tuple[int, ...], res_blocks: int, code_width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(code_width, widths[-1], 3, padding=1)
        self.mid = middle(widths[-1], res_blocks)
        inputs = widths[1:] + widths[-1:]
        self.up = nn.ModuleList(
            UpLevel(inputs[level], widths[level], res_blocks, finest=level == 0)
            for level in range(len(widths))
        )
        self.norm_out = GroupNorm(widths[0], silu=True)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(
        self, features: Float[Tensor, "image code coarse_height coarse_width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Return images, not yet limited to [0, 1]."""
        x = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            x = level(x)
        return cast(Tensor, self.conv_out(self.norm_out(x, overwrite=True)))


def middle(channels: int, blocks: int) -> nn.Sequential:
    """Return the residual blocks of the coarsest resolution."""
    return nn.Sequential(*(ResidualBlock(channels, channels) for _ in range(blocks)))
