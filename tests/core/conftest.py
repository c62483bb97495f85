"""A tiny VAR whose every number can be computed by hand or by plain PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.data.images import Images, Views

PATCH_NUMS = (1, 2, 4)
SIDE = 8
CLASSES = 5


def make_adapter() -> VARAdapter:
    torch.manual_seed(0)
    network = VARTransformer(VARConfig(3, 32, 2, PATCH_NUMS, CLASSES, vocab_size=16, code_width=4))
    tokenizer = MultiScaleVQVAE(
        VQVAEConfig(PATCH_NUMS, ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=16, code_width=4)
    )
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.normal_()
        for block in network.blocks:
            block.ffn.fc1.bias.normal_(std=0.1)
    return VARAdapter.from_model(network.eval(), tokenizer.eval())


@pytest.fixture
def adapter() -> VARAdapter:
    return make_adapter()


@pytest.fixture
def pictures() -> Images:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (7, SIDE, SIDE, 3), np.uint8)
    labels = np.array([0, 1, 2, 3, 4, 0, 1], np.int32)
    return Images.from_arrays(pixels, labels)


@pytest.fixture
def shifts() -> Views:
    return Views(crop=SIDE, pad=1)
