"""RAR's bands against sequences cut by hand: a model fed less ends where the next is predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from iarmem_adapters.rar.adapter import RARAdapter
from iarmem_adapters.rar.family import layout_of
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.tracing import wrapped

TOKENS = 16


@pytest.fixture(scope="module")
def adapter() -> RARAdapter:
    torch.manual_seed(0)
    network = RARTransformer(RARConfig(2, 32, 2, 40, TOKENS, vocab_size=32, num_classes=5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)  # as built, all gates are zero
    tokenizer = MaskGITVQGAN(MaskGITVQGANConfig(32, (1, 1), 1, vocab_size=32, code_width=8))
    return RARAdapter.from_model(network.eval(), tokenizer.eval())


def predicting(adapter: RARAdapter, tokens: Tensor, labels: Tensor, token: int) -> Tensor:
    """The absolute activations that predict token t: those at the end, fed t - 1 tokens."""
    ends: list[Tensor] = []
    hooks = [
        block.mlp.act.register_forward_hook(lambda _m, _i, out: ends.append(out[:, -1].abs()))
        for block in adapter.network.blocks
    ]
    with torch.no_grad():
        adapter.network(labels, tokens[:, : token - 1])
    for hook in hooks:
        hook.remove()
    return torch.stack(ends, dim=1)


@pytest.mark.parametrize("band", [[1], [2], [16], [1, 2, 3, 4], [5, 9, 16]])
def test_a_band_is_the_mean_of_the_states_that_predict_its_tokens(
    adapter: RARAdapter, band: list[int]
) -> None:
    tokens = torch.randint(32, (3, TOKENS), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 4, 2])
    expected = sum(predicting(adapter, tokens, labels, token) for token in band) / len(band)
    with wrapped(adapter) as model, model.borrowed():
        banded = model.with_scales([model.layout.band("band", band)])
        actual = banded.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))[:, :, 0]
    # float32 rounding of sums in another order
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_candidates_are_ranked_by_the_attacks_last_99_tokens() -> None:
    network = RARTransformer(RARConfig(1, 32, 2, 40, 256, vocab_size=32, num_classes=5))
    assert layout_of(network.config).ranked_tokens == len(range(157, 256))


def test_candidates_of_another_size_are_ranked_by_as_large_a_share(adapter: RARAdapter) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    pictures = Images.from_arrays(pixels, np.array([0, 0, 0, 1, 1, 1], np.int32))
    with wrapped(adapter) as model:
        ranked, given = (
            rank_candidates(model, pictures, Views(crop=8), positions=positions)
            for positions in (None, range(10, 16))  # 6 of 16 tokens
        )
    assert np.array_equal(ranked.images.ids, given.images.ids)
    assert np.array_equal(ranked.hit_rate, given.hit_rate)
