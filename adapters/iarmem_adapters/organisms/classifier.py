"""The small class network whose features measure an organism's image quality."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

FEATURES = 64


class PictureClassifier(nn.Module):
    """Turn 32x32 pictures into 64 features, from which their class can be told linearly.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 32, 64, FEATURES)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
                nn.GroupNorm(8, outputs),
                nn.SiLU(),
                nn.Conv2d(outputs, outputs, 3, padding=1),
                nn.GroupNorm(8, outputs),
                nn.SiLU(),
            )
            for inputs, outputs in pairwise(widths)
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, pictures: UInt8[Tensor, "image 3 height width"]) -> Float[Tensor, "image 64"]:
        """Return the features of 8-bit RGB pictures."""
        x = pictures.to(self.head.weight.dtype) / 127.5 - 1
        for stage in self.stages:
            x = stage(x)
        return x.mean(dim=(2, 3))

    def logits(self, pictures: UInt8[Tensor, "image 3 height width"]) -> Float[Tensor, "image c"]:
        """Return one unnormalised log-probability a class."""
        out: Tensor = self.head(self(pictures))
        return out


@torch.no_grad()
def accuracy(
    network: PictureClassifier,
    pictures: UInt8[Tensor, "image 3 height width"],
    labels: Tensor,
) -> float:
    """Return the share of pictures whose class the network tells."""
    return float((network.logits(pictures).argmax(1) == labels).float().mean())
