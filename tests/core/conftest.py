"""A tiny model whose every number can be computed by hand or by plain PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter


@pytest.fixture
def adapter() -> TinyAdapter:
    return TinyAdapter.make()


@pytest.fixture
def pictures() -> Images:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (7, PIXELS, PIXELS, 3), np.uint8)
    labels = np.arange(7, dtype=np.int32) % CLASSES
    return Images.from_arrays(pixels, labels)


@pytest.fixture
def shifts() -> Views:
    return Views(crop=PIXELS, pad=1)
