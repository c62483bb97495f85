"""Pictures made ready for networks: another size, other colours."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from iarmem_plugin.evaluation.quality import to_uint8
from iarmem_plugin.typing import Tensor

Resize = Literal["tensor", "pillow"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BY_IMAGENET = "ImageNet's mean and deviation"
RESIZES: dict[Resize, str] = {
    "tensor": "bilinear, antialiased, in float32",
    "pillow": "Pillow's bilinear filter, 8 bit",
}


def resized(
    images: Float[Tensor, "image 3 height width"], size: tuple[int, int], how: Resize = "tensor"
) -> Float[Tensor, "image 3 newheight newwidth"]:
    """Resize RGB images in [0, 1], bilinear and antialiased.

    Args:
        images: images of one size.
        size: new height and width, pixels.
        how: ``tensor`` in float32, without rounding; ``pillow`` by Pillow, from 8 bit to 8 bit.

    Raises:
        InputError: by Pillow, where values are outside [0, 1].
    """
    from torch.nn import functional as F

    if how == "tensor":
        return F.interpolate(
            images.float(), size=size, mode="bilinear", align_corners=False, antialias=True
        )
    return by_pillow(to_uint8(images), size, Image.Resampling.BILINEAR).float() / 255


def by_pillow(
    images: UInt8[Tensor, "image 3 height width"], size: tuple[int, int], kind: Image.Resampling
) -> UInt8[Tensor, "image 3 newheight newwidth"]:
    """Resize 8-bit images by one of Pillow's filters, which antialias and round."""
    import torch

    drawn = [Image.fromarray(one) for one in images.permute(0, 2, 3, 1).cpu().numpy()]
    new = np.stack([np.asarray(one.resize(size[::-1], kind)) for one in drawn])
    return torch.from_numpy(new).permute(0, 3, 1, 2).to(images.device)


def imagenet_normalised(
    images: Float[Tensor, "image 3 height width"],
) -> Float[Tensor, "image 3 height width"]:
    """Subtract ImageNet's mean of each colour from RGB in [0, 1], and divide by its deviation."""
    import torch

    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
    return (images - mean) / std
