"""A user's own official RAR object gives the numbers of ours, and comes back as it was."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from iarmem_adapters.rar.adapter import RARAdapter
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_plugin import wrap
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import ScaleWeights, Zero
from iarmem_plugin.testing import AdapterTests

TOKENS, CLASSES = 16, 5
SETTINGS = [
    Sampling(),
    Sampling(guidance=3.0),
    Sampling(guidance=4.0, guidance_power=2.0, temperature=1.2, greedy=False, seed=5),
    Sampling(greedy=False, seed=(3, 1, 4)),
]
# The official attention adds a mask, ours is told that it is causal: rounding differs.
CLOSE = 3e-5  # as docs/own-models.md says
LABELS = torch.tensor([0, 4, 1])
TOLD = Condition.of(LABELS)


def tokenizer_config() -> MaskGITVQGANConfig:
    return MaskGITVQGANConfig(ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=32, code_width=4)


@pytest.fixture
def ours() -> RARAdapter:
    torch.manual_seed(0)
    network = RARTransformer(RARConfig(3, 32, 2, 40, TOKENS, 32, CLASSES))
    tokenizer = MaskGITVQGAN(tokenizer_config())
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.normal_()
        for block in network.blocks:
            block.mlp.fc1.bias.normal_(std=0.1)
    return RARAdapter.from_model(network.eval(), tokenizer.eval())


@pytest.fixture
def vqgan(ours: RARAdapter, standin: Callable[[str], ModuleType]) -> Any:
    tokenizer = standin("rar").PretrainedTokenizer(tokenizer_config())
    tokenizer.load_state_dict(ours.tokenizer.state_dict())
    return tokenizer


@pytest.fixture
def official(ours: RARAdapter, standin: Callable[[str], ModuleType]) -> Any:
    """The object as its constructor leaves it, in training mode, with the weights of ours."""
    network = standin("rar").RAR(ours.config)
    network.load_state_dict(ours.network.state_dict())
    return network


@pytest.fixture
def model(official: Any, vqgan: Any) -> ImageARModel:
    return wrap(official, vqgan)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(32, (3, TOKENS), generator=torch.Generator().manual_seed(1))


def neurons(model: ImageARModel, tokens: Tensor) -> Tensor:
    return model.read_neurons(model.adapter.teacher_forced(tokens, TOLD))


class TestOfficialRARAdapter(AdapterTests):
    @pytest.fixture
    def adapter(self, official: Any, vqgan: Any) -> RARAdapter:
        return RARAdapter.from_model(official, vqgan)


def test_tokens_and_pictures_are_ours(ours: RARAdapter, model: ImageARModel) -> None:
    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = ours.tokenize(pictures)
    assert torch.equal(model.tokenize(pictures), expected)
    torch.testing.assert_close(model.decode(expected), ours.decode(expected).detach())


def test_what_is_captured_and_predicted_is_ours(
    ours: RARAdapter, model: ImageARModel, tokens: Tensor
) -> None:
    own = ImageARModel(ours)
    torch.testing.assert_close(neurons(model, tokens), neurons(own, tokens), rtol=0, atol=CLOSE)
    predicted, expected = (one.logits(tokens, TOLD).detach() for one in (model, own))
    torch.testing.assert_close(predicted, expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("known", [0, 1, 7, TOKENS - 1, TOKENS])
def test_completions_are_ours(
    ours: RARAdapter, model: ImageARModel, tokens: Tensor, known: int, sampling: Sampling
) -> None:
    expected = ImageARModel(ours).complete(tokens[:, :known], TOLD, sampling)
    assert torch.equal(model.complete(tokens[:, :known], TOLD, sampling), expected)


def test_random_generation_is_that_of_the_objects_own_sampler(
    official: Any, model: ImageARModel
) -> None:
    torch.manual_seed(5)
    expected = official.eval().generate(LABELS, 4.0, 1.2, 2.0)
    nothing = torch.empty(3, 0, dtype=torch.int64)
    assert torch.equal(model.complete(nothing, TOLD, SETTINGS[2]), expected)


@pytest.mark.parametrize("backend", ["trace", "weights"])
@pytest.mark.parametrize("intervention", [ScaleWeights(0.5), Zero()])
def test_an_intervention_does_what_it_does_on_ours(
    ours: RARAdapter, official: Any, vqgan: Any, tokens: Tensor, backend: str, intervention: Any
) -> None:
    chosen = xr.DataArray(np.random.default_rng(0).random((3, 40)) < 0.5, dims=("block", "neuron"))
    before = {key: value.clone() for key, value in official.state_dict().items()}
    results = []
    for model in (ImageARModel(ours), wrap(official, vqgan)):
        untouched = model.complete(tokens[:, :1], TOLD, Sampling(guidance=2.0))
        with intervene(model, chosen, intervention, backend=backend) as edited:
            completed = edited.complete(tokens[:, :1], TOLD, Sampling(guidance=2.0))
            results.append((completed, neurons(edited, tokens)))
            assert not torch.equal(completed, untouched)
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=CLOSE)
    after = official.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def flags(*roots: Any) -> dict[str, Any]:
    """Everything that a caller may have set, by name."""
    modules = {f"{i}.{n}": m for i, root in enumerate(roots) for n, m in root.named_modules()}
    plain = {
        f"{path}.{name}": value
        for path, module in modules.items()
        for name, value in vars(module).items()
        if not name.startswith("_")
    }
    grads = {n: p.requires_grad for root in roots for n, p in root.named_parameters()}
    return plain | grads


def set_unusually(official: Any, vqgan: Any) -> None:
    """Leave the object as a training run, or an interrupted sampler, may leave it."""
    official.train()
    official.blocks[1].eval()
    official.use_checkpoint = True
    vqgan.train()
    official.cls_token.requires_grad_(False)
    for block in official.blocks:
        block.attn.kv_cache = True
        block.attn.k_cache = block.attn.v_cache = torch.ones(3, 2, 7, 16)


def use_everything(model: ImageARModel, tokens: Tensor) -> list[Tensor]:
    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return [
        model.tokenize(pictures),
        model.decode(tokens),
        neurons(model, tokens),
        model.logits(tokens, TOLD).detach(),
        model.complete(tokens[:, :5], TOLD, Sampling(guidance=2.0)),
    ]


@pytest.mark.parametrize("borrowed", [True, False])
def test_flags_modes_and_caches_do_not_matter_and_come_back(
    official: Any, vqgan: Any, tokens: Tensor, borrowed: bool
) -> None:
    expected = use_everything(wrap(official.eval(), vqgan), tokens)
    set_unusually(official, vqgan)
    with wrapped(RARAdapter.from_model(official, vqgan)) as model:
        before, state = flags(official, vqgan), torch.get_rng_state()
        if borrowed:
            with model.borrowed():
                results = use_everything(model, tokens)
        else:
            results = use_everything(model, tokens)
        assert flags(official, vqgan) == before
        assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, expected, results))


def test_pythons_random_numbers_come_back(official: Any, vqgan: Any, tokens: Tensor) -> None:
    adapter = RARAdapter.from_model(official, vqgan)
    inputs = adapter.teacher_forced(tokens, TOLD)
    before = random.getstate()
    with adapter.prepared():
        official(*inputs.args)
        assert random.getstate() != before  # the object draws, whatever its order
    assert random.getstate() == before


class InTheMiddleError(Exception):
    pass


def fail(*_: Any) -> None:
    raise InTheMiddleError


@pytest.mark.parametrize("call", ["capture", "logits", "complete"])
def test_all_comes_back_after_an_exception(
    official: Any, vqgan: Any, tokens: Tensor, call: str
) -> None:
    set_unusually(official, vqgan)
    with wrapped(RARAdapter.from_model(official, vqgan)) as model:
        before, state = flags(official, vqgan), torch.get_rng_state()
        hook = official.blocks[1].mlp.act.register_forward_hook(fail)
        with pytest.raises(InTheMiddleError):
            if call == "capture":
                neurons(model, tokens)
            elif call == "logits":
                model.logits(tokens, TOLD)
            else:
                model.complete(tokens[:, :1], TOLD, Sampling())
        hook.remove()
        assert flags(official, vqgan) == before
        assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupted_sampler_of_the_user_does_not_matter(
    official: Any, model: ImageARModel, tokens: Tensor
) -> None:
    """Its filled cache would make a pass of as many rows return the logits of one element."""
    expected = model.logits(tokens, TOLD)
    hook = official.blocks[2].mlp.act.register_forward_hook(fail)
    with pytest.raises(InTheMiddleError):
        official.eval().generate(LABELS, 0.0, 1.0, 0.0)
    hook.remove()
    assert official.blocks[0].attn.kv_cache
    assert torch.equal(model.logits(tokens, TOLD), expected)
    assert official.blocks[0].attn.kv_cache


def test_a_random_order_chosen_later_is_refused_at_the_next_pass(
    official: Any, model: ImageARModel, tokens: Tensor
) -> None:
    official.set_random_ratio(0.5)
    with pytest.raises(InputError, match=r"random_ratio is 0\.5.*set_random_ratio\(0\.0\)"):
        neurons(model, tokens)


@pytest.mark.parametrize("call", ["capture", "complete"])
def test_a_users_hook_on_a_block_fires_even_with_checkpointing(
    official: Any, model: ImageARModel, tokens: Tensor, call: str
) -> None:
    seen: list[torch.Size] = []
    official.use_checkpoint = True
    official.blocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    if call == "capture":
        neurons(model, tokens)
        assert [shape[1] for shape in seen] == [TOKENS + 2]
    else:
        model.complete(tokens[:, :5], TOLD, Sampling())
        assert [shape[1] for shape in seen] == [7] + [1] * (TOKENS - 6)


def test_whole_bfloat16_models_work(official: Any, vqgan: Any, tokens: Tensor) -> None:
    exact = neurons(wrap(official, vqgan), tokens)
    model = wrap(official.bfloat16(), vqgan)
    rounded = neurons(model, tokens)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)  # bfloat16 keeps 8 bits
    assert model.complete(tokens[:, :1], TOLD, SETTINGS[2]).shape == tokens.shape


def test_autocast_does_not_change_tokens(model: ImageARModel, tokens: Tensor) -> None:
    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = model.tokenize(pictures), model.decode(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.tokenize(pictures), expected[0])
        assert torch.equal(model.decode(tokens), expected[1])
        assert neurons(model, tokens).dtype == torch.float32


def test_the_model_is_described_by_its_shapes(ours: RARAdapter, model: ImageARModel) -> None:
    assert model.layout == ours.layout
    assert model.adapter.variant == ours.variant
    assert model.adapter.variant.resolution == 8


def test_the_golden_vectors_hold_for_the_object(
    golden: Callable[[str], dict[str, np.ndarray]],
    fill: ModuleType,
    standin: Callable[[str], ModuleType],
) -> None:
    """Those of the authors' code, see tests/golden/README.md; tolerance and gap as stated there."""
    arrays, made = golden("rar_tiny"), standin("rar")
    sizes = json.loads(str(arrays["config"]))
    config = RARConfig(
        sizes["num_hidden_layers"],
        sizes["hidden_size"],
        sizes["num_attention_heads"],
        sizes["intermediate_size"],
    )
    vqgan = fill.fill_state_dict(made.PretrainedTokenizer(MaskGITVQGANConfig(ch=32)))
    model = wrap(fill.fill_state_dict(made.RAR(config)), vqgan)
    tokens, labels = (torch.from_numpy(arrays[name]) for name in ("tokens", "labels"))
    means = model.read_neurons(model.adapter.teacher_forced(tokens, Condition.of(labels)))[:, :, 0]
    np.testing.assert_allclose(means.detach(), arrays["fc1_abs_last"], rtol=0, atol=1e-4)
    logits = model.logits(tokens, Condition.of(labels))[..., :16].detach()
    np.testing.assert_allclose(logits, arrays["logits_first16"][:, :256], rtol=0, atol=1e-4)
    guidance, power, temperature = arrays["gen_pow_params"].tolist()
    generated = model.complete(
        tokens[:, :0],
        Condition.of(torch.from_numpy(arrays["gen_labels"])),
        Sampling(guidance=guidance, guidance_power=power, temperature=temperature),
    )
    clear = arrays["gen_pow_top2_gap"] > 1e-3
    np.testing.assert_array_equal(generated.numpy()[clear], arrays["gen_pow_tokens"][clear])
