"""What a block hands on, put into another model, on small models of both families."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iarmem_adapters.rar.adapter import RARAdapter
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import BlockOutputs, Candidates, Images, block_outputs, patched_losses, wrap
from iarmem_plugin.interfaces import Adapter, Condition
from iarmem_plugin.models.tracing import ImageARModel

SIDES, LABELS, GIVEN = (1, 2, 4), [0, 2, 0, 1], 5
VAR = VARConfig(3, 16, 2, SIDES, num_classes=3, vocab_size=16, code_width=4)
VQVAE = VQVAEConfig(SIDES, ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=16, code_width=4)
RAR = RARConfig(3, 16, 2, 24, num_tokens=16, vocab_size=16, num_classes=3)
VQGAN = MaskGITVQGANConfig(ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=16, code_width=4)

Make = Callable[[int], Adapter]


def var(seed: int) -> Adapter:
    torch.manual_seed(seed)
    return VARAdapter.from_model(VARTransformer(VAR).eval(), MultiScaleVQVAE(VQVAE).eval())


def rar(seed: int) -> Adapter:
    torch.manual_seed(seed)
    return RARAdapter.from_model(RARTransformer(RAR).eval(), MaskGITVQGAN(VQGAN).eval())


@pytest.fixture(params=[var, rar], ids=["var", "rar"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture
def candidates() -> Candidates:
    pixels = np.zeros((len(LABELS), 8, 8, 3), np.uint8)
    images = Images.from_arrays(pixels, np.array(LABELS, np.int32))
    return Candidates(images, np.array(["canary"] * len(LABELS)))


def tokens_of(adapter: Adapter) -> Tensor:
    count = len(adapter.layout.predicting)
    return torch.randint(16, (4, count), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def by_hand(adapter: Adapter, block: int, state: Tensor, tokens: Tensor) -> np.ndarray:
    """The loss by a copy of the network, one of whose blocks returns the state."""
    network: Any = copy.deepcopy(adapter.network)
    network.blocks[block].forward = lambda *_: state
    inputs = adapter.teacher_forced(tokens, Condition.of(torch.tensor(LABELS)))
    logits = adapter.logits(network(*inputs.args, **inputs.kwargs), tokens)
    loss = nn.functional.cross_entropy(logits.mT, tokens, reduction="none")
    return loss[:, GIVEN:].double().mean(1).numpy()


def test_a_block_put_into_another_model_is_as_a_pass_made_by_hand(
    make: Make, candidates: Candidates
) -> None:
    original, twin = make(0), make(1)
    tokens = tokens_of(original)
    other = block_outputs(ImageARModel(twin), candidates, tokens, batch_size=3)
    model = ImageARModel(make(0))
    found = patched_losses(model, other, candidates, tokens, given=GIVEN, batch_size=3)
    for block, state in enumerate(other.blocks):
        expected = by_hand(original, block, state, tokens)
        np.testing.assert_allclose(found["patched_loss"][block], expected, rtol=1e-5)
    assert (np.abs(found["patched_loss"] - found["loss"]) > 1e-3).any()


def test_the_original_put_into_itself_predicts_as_before(
    make: Make, candidates: Candidates
) -> None:
    model = ImageARModel(make(0))
    tokens = tokens_of(model.adapter)
    outputs = block_outputs(model, candidates, tokens)
    found = patched_losses(model, outputs, candidates, tokens, given=GIVEN)
    assert (found["patched_loss"] == found["loss"]).all()


def test_official_objects_come_back_as_they_were(
    standin: Callable[[str], Any], candidates: Candidates
) -> None:
    torch.manual_seed(0)
    network = standin("var").VAR(standin("var").VQVAE(VQVAE), VAR)
    model = wrap(network, tokenizer=None)
    tokens = tokens_of(model.adapter)
    outputs = block_outputs(model, candidates, tokens)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    modes = [one.training for one in network.modules()]
    found = patched_losses(model, outputs, candidates, tokens)
    assert (found["patched_loss"] == found["loss"]).all()
    broken = BlockOutputs(tuple(one * torch.nan for one in outputs.blocks))
    with pytest.raises(Exception, match="not finite"):
        patched_losses(model, broken, candidates, tokens)
    assert modes == [one.training for one in network.modules()]
    assert not any(one._forward_hooks for one in network.modules())
    for name, one in network.state_dict().items():
        torch.testing.assert_close(one, before[name], rtol=0, atol=0)
