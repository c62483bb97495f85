"""Group norm and SiLU as one, exact and quick when channels come last; for both tokenizers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6
GROUPS = 32
PLACES = 1024
"""Places handled at a time: few enough for the processor's cache and for reused memory."""
NUMBERS = 2**18
"""Numbers of several small images handled at a time, for the same reason."""
VECTOR = 64
"""Torch's SiLU rounds the numbers after the last whole so many otherwise than those before."""


class GroupNorm(nn.GroupNorm):
    """Group norm of 32 groups, or of one channel each where there are fewer, and SiLU if asked.

    On the CPU, torch's own group norm loses three digits when channels come last.
    This one keeps them: it sums squares around a value near the mean, and adds the sums of few
    places each in float64.

    Args:
        channels: number of channels.
        silu: whether SiLU follows.
    """

    def __init__(self, channels: int, *, silu: bool) -> None:
        super().__init__(min(GROUPS, channels), channels, eps=EPS)
        self.silu = silu

    def forward(
        self, x: Float[Tensor, "image channel height width"], *, overwrite: bool = False
    ) -> Float[Tensor, "image channel height width"]:
        """Return the norm of `x`.

        Args:
            x: any maps.
            overwrite: `x` is not needed afterwards, so that the result may take its place.
        """
        if not _quick(x):
            out = super().forward(x.contiguous())
            return F.silu(out, inplace=True) if self.silu else out
        out = x if overwrite else torch.empty_like(x)
        images = _at_a_time(x.shape[1:].numel())
        for rows, target in zip(_rows(x).split(images), _rows(out).split(images), strict=True):
            factor, offset = self._line(rows)
            for part, to in zip(rows.split(PLACES, 1), target.split(PLACES, 1), strict=True):
                torch.addcmul(offset, part, factor, out=to)
                if self.silu:
                    F.silu(to, inplace=True)
        return out

    def _line(
        self, rows: Float[Tensor, "image place channel"]
    ) -> tuple[Float[Tensor, "image 1 channel"], Float[Tensor, "image 1 channel"]]:
        """Return by what to multiply each image's channels and what to add then."""
        mean, variance = (one.unflatten(1, (self.num_groups, -1)) for one in _moments(rows))
        centre = mean.mean(2, keepdim=True)
        spread = (variance + (mean - centre).square()).mean(2, keepdim=True)
        factor = self.weight.view_as(mean[0]) * (spread + self.eps).rsqrt()
        offset = self.bias.view_as(mean[0]) - centre * factor
        return _of_each_place(factor, rows), _of_each_place(offset, rows)


def quick_layout(
    x: Float[Tensor, "image channel height width"],
) -> Float[Tensor, "image channel height width"]:
    """Return `x` with channels last where convolutions are quicker so: on the CPU.

    Not where gradients are recorded, since results are then written over others.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return x.contiguous()
    return x.contiguous(memory_format=torch.channels_last)


def _at_a_time(numbers: int) -> int:
    """Return how many images of so many numbers go together without changing each other's bits."""
    return max(1, NUMBERS // numbers) if numbers and numbers % VECTOR == 0 else 1


def _quick(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _rows(x: Tensor) -> Float[Tensor, "image place channel"]:
    """Return maps whose channels come last as a matrix an image, without copying."""
    return x.permute(0, 2, 3, 1).view(x.shape[0], -1, x.shape[1])


def _of_each_place(
    values: Tensor, rows: Float[Tensor, "image place channel"]
) -> Float[Tensor, "image 1 channel"]:
    return values.flatten(1).unsqueeze(1).to(rows.dtype)


def _moments(rows: Float[Tensor, "image place channel"]) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of each image's channels in float64."""
    pivot = rows[:, :PLACES].mean(1, keepdim=True)
    total, squares = torch.zeros(2, len(rows), rows.shape[2], dtype=torch.float64).unbind(0)
    for part in rows.split(PLACES, 1):
        apart = part - pivot
        total += apart.sum(1)
        squares += apart.square_().sum(1)
    shift = total / rows.shape[1]
    return pivot.squeeze(1) + shift, squares / rows.shape[1] - shift.square()
