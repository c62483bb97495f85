"""Folders of pictures whose every pixel is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from iarmem_plugin.data.images import Images


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tree(root: Path, *paths: str) -> Path:
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(6, 6, seed)).save(root / path)
    return root


def labels_of(images: Images) -> dict[str, int]:
    return dict(zip(images.paths, images.labels.tolist(), strict=True))
