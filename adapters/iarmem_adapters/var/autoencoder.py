"""The convolutional encoder and decoder around VAR's quantiser."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.layers.group_norm import GroupNorm


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; the shortcut is a 1x1 convolution where they differ.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(inputs, silu=True)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = GroupNorm(outputs, silu=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(
        self, x: Float[Tensor, "image inputs height width"]
    ) -> Float[Tensor, "image outputs height width"]:
        """Return shortcut(x) plus the convolved x."""
        hidden = self.conv1(self.norm1(x))
        hidden = self.conv2(self.norm2(hidden, overwrite=True))
        out: Tensor = hidden.add_(self.nin_shortcut(x))
        return out


class AttentionBlock(nn.Module):
    """Single-head self-attention over all places of a map, beside a shortcut.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, silu=False)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(
        self, x: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel height width"]:
        """Return x plus what each place reads from all places."""
        joined = self.qkv(self.norm(x)).flatten(2).mT.unsqueeze(1)
        read = F.scaled_dot_product_attention(*joined.chunk(3, dim=3))
        out: Tensor = self.proj_out(read.squeeze(1).mT.reshape(x.shape))
        return out.add_(x)


class Downsample(nn.Module):
    """Halve both sides: pad one column right and one row below, then convolve by stride 2.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(
        self, x: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel half_height half_width"]:
        """Return the map of half the size."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Double both sides: repeat each place, then convolve.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel double_height double_width"]:
        """Return the map of double the size."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """The residual blocks of one resolution, with attention after each where asked.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; the first block changes the width.
        blocks: number of residual blocks.
        attention: whether attention follows each block.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, *, attention: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.ModuleList(map(ResidualBlock, widths[:-1], widths[1:]))
        count = blocks if attention else 0
        self.attn = nn.ModuleList(AttentionBlock(outputs) for _ in range(count))

    def forward(
        self, x: Float[Tensor, "image inputs height width"]
    ) -> Float[Tensor, "image outputs height2 width2"]:
        """Return the map after the blocks."""
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class DownLevel(Level):
    """A resolution of the encoder, which hands on a map of half the size unless it is the last.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        blocks: number of residual blocks.
        last: whether no resolution follows; the last one has attention.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, *, last: bool) -> None:
        super().__init__(inputs, outputs, blocks, attention=last)
        self.downsample = nn.Identity() if last else Downsample(outputs)

    def forward(
        self, x: Float[Tensor, "image inputs height width"]
    ) -> Float[Tensor, "image outputs height2 width2"]:
        """Return the map for the next level."""
        out: Tensor = self.downsample(super().forward(x))
        return out


class UpLevel(Level):
    """A resolution of the decoder, which hands on a map of double the size unless finest.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        blocks: number of residual blocks.
        coarsest: whether it is the first; the coarsest one has attention.
        finest: whether no resolution follows.
    """

    def __init__(
        self, inputs: int, outputs: int, blocks: int, *, coarsest: bool, finest: bool
    ) -> None:
        super().__init__(inputs, outputs, blocks, attention=coarsest)
        self.upsample = nn.Identity() if finest else Upsample(outputs)

    def forward(
        self, x: Float[Tensor, "image inputs height width"]
    ) -> Float[Tensor, "image outputs height2 width2"]:
        """Return the map for the next level."""
        out: Tensor = self.upsample(super().forward(x))
        return out


class Middle(nn.Module):
    """Block, attention, block at the coarsest resolution.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(
        self, x: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel height width"]:
        """Return the map after the three."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Turn images into feature maps, halving the sides between resolutions.

    Args:
        widths: channels at each resolution, fine to coarse.
        res_blocks: residual blocks at each resolution.
        code_width: channels of one code.
    """

    def __init__(self, widths: tuple[int, ...], res_blocks: int, code_width: int) -> None:
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        inputs = widths[:1] + widths[:-1]
        self.down = nn.ModuleList(
            DownLevel(inputs[level], widths[level], res_blocks, last=level == last)
            for level in range(len(widths))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = GroupNorm(widths[-1], silu=True)
        self.conv_out = nn.Conv2d(widths[-1], code_width, 3, padding=1)

    def forward(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image code coarse_height coarse_width"]:
        """Return the feature maps of images in [-1, 1]."""
        x = self.conv_in(images)
        for stage in self.down:
            x = stage(x)
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
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(code_width, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        inputs = widths[1:] + widths[-1:]
        self.up = nn.ModuleList(
            UpLevel(
                inputs[level], widths[level], res_blocks, coarsest=level == last, finest=level == 0
            )
            for level in range(len(widths))
        )
        self.norm_out = GroupNorm(widths[0], silu=True)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(
        self, features: Float[Tensor, "image code coarse_height coarse_width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Return images, not yet limited to [-1, 1]."""
        x = self.mid(self.conv_in(features))
        for stage in reversed(self.up):
            x = stage(x)
        out: Tensor = self.conv_out(self.norm_out(x, overwrite=True))
        return out
