"""RAR passes the tests that come with the contract, on a model for sixteen tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from iarmem_adapters.rar.adapter import RARAdapter, provide_adapters
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_plugin import plugins
from iarmem_plugin.data.augmentation import TenCrops
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.testing import AdapterTests

TOKENS, CLASSES = 16, 5


def make_transformer(**sizes: int) -> RARTransformer:
    known = {"num_tokens": TOKENS, "vocab_size": 32, "num_classes": CLASSES} | sizes
    return RARTransformer(RARConfig(3, 32, 2, 40, **known))


def make_tokenizer() -> MaskGITVQGAN:
    config = MaskGITVQGANConfig(ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=32, code_width=4)
    tokenizer = MaskGITVQGAN(config)
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.normal_()
    return tokenizer


@pytest.fixture
def adapter() -> RARAdapter:
    torch.manual_seed(0)
    return RARAdapter.from_model(make_transformer().eval(), make_tokenizer().eval())


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 32, (3, TOKENS), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 4, 1])


class TestRARAdapter(AdapterTests):
    @pytest.fixture
    def adapter(self, adapter: RARAdapter) -> RARAdapter:
        return adapter

    @pytest.fixture
    def weights(self, adapter: RARAdapter, tmp_path: Path) -> Path:
        torch.save(adapter.network.state_dict(), tmp_path / "weights.pth")
        return tmp_path / "weights.pth"


def captured(adapter: RARAdapter, tokens: Tensor, labels: Tensor) -> Tensor:
    """Return (image, block, neuron) of the one scale."""
    with wrapped(adapter) as model, model.borrowed():
        return model.read_neurons(adapter.teacher_forced(tokens, Condition.of(labels)))[
            :, :, 0
        ].clone()


def test_there_is_one_scale_the_last_token(adapter: RARAdapter) -> None:
    (scale,) = adapter.layout.scales
    assert (scale.name, scale.tokens) == ("last token", (TOKENS - 1,))
    assert adapter.layout.positions(scale) == (TOKENS,)


def test_what_is_captured_is_the_state_that_predicts_the_last_token(
    adapter: RARAdapter, tokens: Tensor, labels: Tensor
) -> None:
    """Fed all tokens but the last, a model ends with the element that predicts it."""
    ends: list[Tensor] = []
    network = adapter.network
    hooks = [
        block.mlp.act.register_forward_hook(lambda _m, _i, out: ends.append(out[:, -1].abs()))
        for block in network.blocks
    ]
    with torch.no_grad():
        next_token = network(labels, tokens[:, :-1])[:, -1]
        teacher_forced = network(*adapter.teacher_forced(tokens, Condition.of(labels)).args)
    for hook in hooks:
        hook.remove()
    expected = torch.stack(ends[: len(network.blocks)], dim=1)
    # float32 rounding of sums in another order
    torch.testing.assert_close(captured(adapter, tokens, labels), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(teacher_forced[:, TOKENS - 1], next_token, rtol=0, atol=1e-5)


def test_what_is_captured_knows_all_tokens_but_the_last(
    adapter: RARAdapter, tokens: Tensor, labels: Tensor
) -> None:
    before = captured(adapter, tokens, labels)
    for place in range(TOKENS):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 32
        same = torch.equal(captured(adapter, changed, labels), before)
        assert same == (place == TOKENS - 1), place


def test_what_is_captured_is_told_the_last_position(
    adapter: RARAdapter, tokens: Tensor, labels: Tensor
) -> None:
    """The target of the captured element is the last token, so that token's row acts on it."""
    before = captured(adapter, tokens, labels)
    targets = adapter.network.target_aware_pos_embed
    whole, acting = targets.detach().clone(), []
    for row in range(TOKENS + 4):
        with torch.no_grad():
            targets.copy_(whole)
            targets[0, row] += 1
        if not torch.equal(captured(adapter, tokens, labels), before):
            acting.append(row)
    assert acting == list(range(2, TOKENS + 2))  # the last of them is that of the last token


def test_labels_are_read_behind_the_codes(
    adapter: RARAdapter, tokens: Tensor, labels: Tensor
) -> None:
    """Class y is row 32 codes + 1 mask + y of the embeddings; no code's row acts for it."""
    rows: list[Tensor] = []
    hook = adapter.network.embeddings.register_forward_hook(
        lambda _m, inputs, _out: rows.append(inputs[0])
    )
    captured(adapter, tokens, labels)
    hook.remove()
    seen = {tuple(one.flatten().tolist()) for one in rows}
    assert seen == {(33, 37, 34), tuple(tokens.flatten().tolist())}


def zeroed(adapter: RARAdapter, block: int) -> xr.DataArray:
    selected = xr.DataArray(
        torch.zeros(3, 40, dtype=torch.bool).numpy(), dims=("block", "neuron"), name="selected"
    )
    selected[block] = True
    return selected


@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("known", [0, 5])
def test_an_intervention_acts_at_every_step_of_a_completion(
    adapter: RARAdapter, tokens: Tensor, labels: Tensor, known: int, guidance: float
) -> None:
    """The traced edit equals a model whose block was emptied by hand."""
    prefix, sampling = tokens[:, :known], Sampling(guidance=guidance)
    before = ImageARModel(adapter).complete(prefix, Condition.of(labels), sampling)
    results = []
    for backend in ("trace", "weights"):
        with wrapped(adapter) as model:
            chosen = zeroed(adapter, 1)
            with intervene(model, chosen, Zero(), backend=backend) as edited:
                results.append(edited.complete(prefix, Condition.of(labels), sampling))
    with torch.no_grad():
        adapter.network.blocks[1].mlp.fc2.weight.zero_()
    expected = adapter.complete(prefix, Condition.of(labels), sampling)
    assert not torch.equal(before, expected)
    assert all(torch.equal(expected, result) for result in results)


def test_a_model_object_is_recognised_by_its_class(adapter: RARAdapter) -> None:
    assert list(provide_adapters()) == [RARAdapter]
    assert RARAdapter.matches(adapter.network)
    assert not RARAdapter.matches(adapter.tokenizer)
    with pytest.raises(InputError, match="got Linear and MaskGITVQGAN, expected a RARTransformer"):
        RARAdapter.from_model(nn.Linear(1, 1), adapter.tokenizer)


@pytest.mark.parametrize("name", ["rar-b", "rar-l", "rar-xl", "rar-xxl"])
def test_the_released_models_are_found_by_name(name: str) -> None:
    adapter, variant = plugins.find_variant(name)
    assert adapter is RARAdapter
    assert (variant.resolution, variant.prefix_tokens, variant.num_classes) == (256, 30, 1000)


def test_a_model_of_own_size_is_described_by_its_shapes(adapter: RARAdapter) -> None:
    variant = adapter.variant
    assert (variant.name, variant.family) == ("rar-3x32", "rar")
    assert (variant.blocks, variant.neurons, variant.num_classes) == (3, 40, CLASSES)
    assert variant.resolution == 8
    assert variant.views == TenCrops(crop=8)
    assert variant.prefix_tokens == TOKENS - 1


def test_parts_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="transformer has 64 codes, the tokenizer 32"):
        RARAdapter.from_model(make_transformer(vocab_size=64), make_tokenizer())
    with pytest.raises(InputError, match="15 tokens fill no square"):
        RARAdapter.from_model(make_transformer(num_tokens=15), make_tokenizer())
