"""Networks that are built for their names and shapes alone."""

from __future__ import annotations

import subprocess
import sys

import torch

from iarmem_adapters.layers.undrawn import undrawn
from iarmem_adapters.var.transformer import VARConfig, VARTransformer

CONFIG = VARConfig(2, 32, 2, (1, 2, 3), num_classes=3, vocab_size=16, code_width=8)


def test_an_undrawn_network_has_the_names_and_shapes_and_no_values() -> None:
    whole = VARTransformer(CONFIG).state_dict()
    before = torch.get_rng_state()
    with undrawn():
        empty = VARTransformer(CONFIG).state_dict()
    assert {name: tensor.shape for name, tensor in empty.items()} == {
        name: tensor.shape for name, tensor in whole.items()
    }
    assert all(tensor.is_meta for tensor in empty.values())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.nn.Linear(2, 2).weight.abs().sum() > 0  # drawn again afterwards


def test_loading_a_model_does_not_wait_for_torchs_compiler() -> None:
    code = (
        "import sys; from iarmem_plugin import load; load('var-organism'); load('rar-organism'); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
