"""VAR passes the tests that come with the contract, and every scale visits every block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import wrapped
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.testing import AdapterTests

SCALES = (1, 2, 4)


@pytest.fixture
def adapter() -> VARAdapter:
    torch.manual_seed(0)
    network = VARTransformer(VARConfig(3, 32, 2, SCALES, 5, vocab_size=16, code_width=4))
    config = VQVAEConfig(SCALES, ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=16, code_width=4)
    tokenizer = MultiScaleVQVAE(config)
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.normal_()
        for block in network.blocks:
            block.ffn.fc1.bias.normal_(std=0.1)
    return VARAdapter.from_model(network.eval(), tokenizer.eval())


class TestVARAdapter(AdapterTests):
    @pytest.fixture
    def adapter(self, adapter: VARAdapter) -> VARAdapter:
        return adapter

    @pytest.fixture
    def weights(self, adapter: VARAdapter, tmp_path: Path) -> Path:
        torch.save(adapter.network.state_dict(), tmp_path / "weights.pth")
        return tmp_path / "weights.pth"


@pytest.mark.parametrize("backend", ["trace", "weights"])
@pytest.mark.parametrize(("prefix", "visits"), [(0, 3), (1, 3), (5, 2), (21, 0)])
def test_every_visit_of_a_block_is_edited(
    adapter: VARAdapter, backend: str, prefix: int, visits: int
) -> None:
    tokens = torch.randint(16, (4, 21), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 4, 2])
    neurons = xr.DataArray(np.zeros((3, 128), bool), dims=("block", "neuron"))
    neurons[1] = True
    seen: list[Tensor] = []
    act = adapter.network.blocks[1].ffn.act
    handle = act.register_forward_hook(lambda _m, _i, output: seen.append(output.abs().max()))
    with wrapped(adapter) as model:
        with intervene(model, neurons, Zero(), backend=backend) as edited:
            edited.complete(tokens[:, :prefix], Condition.of(labels), Sampling())
    handle.remove()
    assert [float(value) for value in seen] == [0.0] * visits
