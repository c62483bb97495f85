"""What trainings see of the pictures: their views, tokens, near-duplicates, and figures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.duplicates import small_versions
from iarmem_plugin.data.images import Images

from .split import NEAR_DUPLICATE

PICTURES = Path(__file__).parents[2] / "adapters" / "iarmem_adapters" / "organisms" / "pictures.npz"
SIDES = (32, 24)  # of the two families' pictures


def shifted(pictures: Tensor) -> Tensor:
    """Return [9, image, 3, height, width]: each shift by up to one pixel, on a white border."""
    side = pictures.shape[-1]
    framed = F.pad(pictures, (1, 1, 1, 1), value=255)
    views = [framed[..., y : y + side, x : x + side] for y in range(3) for x in range(3)]
    return torch.stack(views)


def resized(images: np.ndarray, side: int) -> Tensor:
    """Return uint8 (image, 3, side, side), resized as the captured views are."""
    views = Views(crop=side, resize=side)
    rows = torch.stack([views.center(Image.fromarray(image)) for image in images])
    return (rows * 255).round().to(torch.uint8)


def near_duplicates(images: Images) -> np.ndarray:
    """Return which pairs of pictures are near-duplicates, at either family's size."""
    alike = np.zeros((len(images), len(images)), bool)
    for side in SIDES:
        small = small_versions(images, side)
        alike |= small @ small.T > NEAR_DUPLICATE
    np.fill_diagonal(alike, False)
    return alike


@torch.no_grad()
def tokenised(model: Any, pictures: Tensor, parts: Any) -> tuple[Tensor, Tensor]:
    """Return tokens and teacher-forcing inputs of [9, image, ...] uint8 views."""
    rows = []
    for part in track(pictures.flatten(0, 1).split(64), "tokenising"):
        tokens = model.encode(parts.images(part))
        rows.append((tokens, parts.inputs(model, tokens)))
    tokens, inputs = (torch.cat(kind) for kind in zip(*rows, strict=True))
    return tokens.unflatten(0, pictures.shape[:2]), inputs.unflatten(0, pictures.shape[:2])


@torch.no_grad()
def reconstruction(model: Any, pictures: Tensor, parts: Any) -> dict[str, float]:
    """Return mean PSNR in dB (pixels in [0, 1]) and the number of codes in use."""
    tokens = model.encode(parts.images(pictures))
    images = parts.pixels(model.decode(tokens))
    error = (images - pictures.float() / 255).square().mean(dim=(1, 2, 3))
    return {
        "psnr": round(float(-10 * error.log10().mean()), 3),
        "codes_in_use": len(tokens.unique()),
    }
