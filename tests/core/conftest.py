"""A tiny model whose every number can be computed by hand or by plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter

from .forked import Done, run_iarmem


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


@pytest.fixture(scope="session")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DINOv2 with weights at random, as its library saves it."""
    import_torchvision()  # which transformers imports
    from transformers import Dinov2Config, Dinov2Model

    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    folder = tmp_path_factory.mktemp("dinov2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Dinov2Model(Dinov2Config(**size, image_size=112, patch_size=56))
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def faults() -> ModuleType:
    """Disks that die, or are full, at the n-th operation: ``faults.py``, which is no package's."""
    spec = spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def iarmem() -> Callable[..., Done]:
    """Run `iarmem` with these arguments, in a process of its own."""
    return run_iarmem
