"""A user's own official VAR object gives the numbers of ours, and comes back as it was."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import wrap
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import ScaleWeights, Zero
from iarmem_plugin.testing import AdapterTests

SIDES = (1, 2, 3, 4)
ENDS = (0, 1, 5, 14, 30)
CLASSES = 5
SETTINGS = [
    Sampling(),
    Sampling(guidance=2.0),
    Sampling(guidance=1.5, temperature=1.2, top_k=20, top_p=0.9, greedy=False, seed=5),
]
# The official attention has a mask, ours goes scale by scale: rounding differs.
CLOSE = 3e-5  # as docs/own-models.md says


def config(**sizes: Any) -> VARConfig:
    known = {"num_classes": CLASSES, "vocab_size": 32, "code_width": 4} | sizes
    return VARConfig(3, 32, 4, SIDES, **known)


def tokenizer_config() -> VQVAEConfig:
    return VQVAEConfig(SIDES, ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=32, code_width=4)


@pytest.fixture(params=["per block", "shared"])
def ours(request: pytest.FixtureRequest) -> VARAdapter:
    torch.manual_seed(0)
    network = VARTransformer(config(shared_adaln=request.param == "shared"))
    tokenizer = MultiScaleVQVAE(tokenizer_config())
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.normal_()
        for block in network.blocks:
            block.ffn.fc1.bias.normal_(std=0.1)
    return VARAdapter.from_model(network.eval(), tokenizer.eval())


@pytest.fixture
def official(ours: VARAdapter, standin: Callable[[str], ModuleType]) -> Any:
    """The object as the builder leaves it, in training mode, with the weights of ours."""
    made = standin("var")
    vae = made.VQVAE(tokenizer_config())
    vae.load_state_dict(ours.tokenizer.state_dict())
    var = made.VAR(vae, ours.config)
    var.load_state_dict(ours.network.state_dict())
    return var


@pytest.fixture
def tokens(ours: VARAdapter) -> Tensor:
    return torch.randint(32, (3, ENDS[-1]), generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 4, 2])
TOLD = Condition.of(LABELS)


def neurons(model: ImageARModel, tokens: Tensor) -> Tensor:
    return model.read_neurons(model.adapter.teacher_forced(tokens, TOLD))


class TestOfficialVARAdapter(AdapterTests):
    @pytest.fixture
    def adapter(self, official: Any) -> VARAdapter:
        return VARAdapter.from_model(official, None)


def test_tokens_and_pictures_are_ours(ours: VARAdapter, official: Any) -> None:
    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = ours.tokenize(pictures)
    model = wrap(official)
    assert torch.equal(model.tokenize(pictures), expected)
    torch.testing.assert_close(model.decode(expected), ours.decode(expected).detach())


def test_what_is_captured_and_predicted_is_ours(
    ours: VARAdapter, official: Any, tokens: Tensor
) -> None:
    own, model = ImageARModel(ours), wrap(official)
    torch.testing.assert_close(neurons(model, tokens), neurons(own, tokens), rtol=0, atol=CLOSE)
    predicted, expected = (one.logits(tokens, TOLD).detach() for one in (model, own))
    torch.testing.assert_close(predicted, expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("known", ENDS)
def test_completions_are_ours(
    ours: VARAdapter, official: Any, tokens: Tensor, known: int, sampling: Sampling
) -> None:
    expected = ImageARModel(ours).complete(tokens[:, :known], TOLD, sampling)
    assert torch.equal(wrap(official).complete(tokens[:, :known], TOLD, sampling), expected)


def test_guided_generation_is_that_of_the_objects_own_sampler(official: Any) -> None:
    expected = official.eval().autoregressive_infer_cfg(3, LABELS, cfg=2.0)
    model = wrap(official)
    nothing = torch.empty(3, 0, dtype=torch.int64)
    images = model.decode(model.complete(nothing, TOLD, Sampling(guidance=2.0)))
    torch.testing.assert_close(images, expected)


@pytest.mark.parametrize("backend", ["trace", "weights"])
@pytest.mark.parametrize("intervention", [ScaleWeights(0.5), Zero()])
def test_an_intervention_does_what_it_does_on_ours(
    ours: VARAdapter, official: Any, tokens: Tensor, backend: str, intervention: Any
) -> None:
    chosen = xr.DataArray(np.random.default_rng(0).random((3, 128)) < 0.5, dims=("block", "neuron"))
    before = {key: value.clone() for key, value in official.state_dict().items()}
    results = []
    for model in (ImageARModel(ours), wrap(official)):
        untouched = model.complete(tokens[:, :1], TOLD, Sampling())
        with intervene(model, chosen, intervention, backend=backend) as edited:
            completed = edited.complete(tokens[:, :1], TOLD, Sampling())
            results.append((completed, neurons(edited, tokens)))
            assert not torch.equal(completed, untouched)
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=CLOSE)
    after = official.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def flags(official: Any) -> dict[str, Any]:
    """Everything that a caller may have set, by name."""
    roots = {"var": official, "vae": official.vae_proxy[0]}
    modules = {f"{r}.{n}": m for r, root in roots.items() for n, m in root.named_modules()}
    plain = {
        f"{path}.{name}": value
        for path, module in modules.items()
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, torch.Generator)
    }
    grads = {n: p.requires_grad for n, p in official.named_parameters()}
    return plain | grads


def set_unusually(official: Any, standin: Callable[[str], ModuleType]) -> None:
    """Leave the object as a training run, or an interrupted sampler, may leave it."""
    official.train()
    official.blocks[1].eval()
    official.cond_drop_rate, official.prog_si = 0.7, 2
    official.vae_proxy[0].quantize.prog_si = 1
    official.pos_start.requires_grad_(False)
    for block in official.blocks:
        block.ffn.fused_mlp_func = standin("var").fused_mlp
        block.attn.kv_caching(True)
        block.attn.cached_k = block.attn.cached_v = torch.ones(1, 4, 7, 8)


def use_everything(model: ImageARModel, tokens: Tensor) -> list[Tensor]:
    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return [
        model.tokenize(pictures),
        model.decode(tokens),
        neurons(model, tokens),
        model.logits(tokens, TOLD).detach(),
        model.complete(tokens[:, :5], TOLD, Sampling(guidance=1.0)),
    ]


@pytest.mark.parametrize("borrowed", [True, False])
def test_flags_modes_and_random_numbers_do_not_matter_and_come_back(
    official: Any, standin: Callable[[str], ModuleType], tokens: Tensor, borrowed: bool
) -> None:
    expected = use_everything(wrap(official.eval()), tokens)
    set_unusually(official, standin)
    with wrapped(VARAdapter.from_model(official, None)) as model:
        before = flags(official)
        states = torch.get_rng_state(), official.rng.get_state()
        if borrowed:
            with model.borrowed():
                results = use_everything(model, tokens)
        else:
            results = use_everything(model, tokens)
        assert flags(official) == before
        after = torch.get_rng_state(), official.rng.get_state()
    assert all(map(torch.equal, expected, results))
    assert all(map(torch.equal, after, states))


class InTheMiddleError(Exception):
    pass


def fail(*_: Any) -> None:
    raise InTheMiddleError


@pytest.mark.parametrize("call", ["capture", "logits", "complete", "tokenize"])
def test_all_comes_back_after_an_exception(
    official: Any, standin: Callable[[str], ModuleType], tokens: Tensor, call: str
) -> None:
    set_unusually(official, standin)
    vae = official.vae_proxy[0]
    part = vae.encoder.mid if call == "tokenize" else official.blocks[1].ffn.act
    with wrapped(VARAdapter.from_model(official, None)) as model:
        before, state = flags(official), torch.get_rng_state()
        hook = part.register_forward_hook(fail)
        with pytest.raises(InTheMiddleError):
            if call == "capture":
                neurons(model, tokens)
            elif call == "logits":
                model.logits(tokens, TOLD)
            elif call == "complete":
                model.complete(tokens[:, :1], TOLD, Sampling())
            else:
                model.tokenize(torch.zeros(1, 3, 8, 8))
        hook.remove()
        assert flags(official) == before
        assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupted_sampler_of_the_user_does_not_matter(official: Any, tokens: Tensor) -> None:
    model = wrap(official.eval())
    expected = neurons(model, tokens)
    hook = official.blocks[2].ffn.act.register_forward_hook(fail)
    with pytest.raises(InTheMiddleError):
        official.autoregressive_infer_cfg(3, LABELS)
    hook.remove()
    assert official.blocks[0].attn.caching
    assert torch.equal(neurons(model, tokens), expected)
    assert official.blocks[0].attn.caching


@pytest.mark.parametrize("call", ["capture", "complete"])
def test_a_users_hook_on_a_block_fires(official: Any, tokens: Tensor, call: str) -> None:
    seen: list[torch.Size] = []
    official.blocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    model = wrap(official)
    if call == "capture":
        neurons(model, tokens)
        assert [shape[1] for shape in seen] == [30]
    else:
        model.complete(tokens[:, :5], TOLD, Sampling())
        assert [shape[1] for shape in seen] == [1, 4, 9, 16]


def test_autocast_changes_neither_tokens_nor_the_captured_type(
    official: Any, tokens: Tensor
) -> None:
    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    model, kinds = wrap(official), set()
    expected, exact = model.tokenize(pictures), neurons(model, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        official.blocks[1].ffn.fc1.register_forward_hook(lambda _m, _i, out: kinds.add(out.dtype))
        assert torch.equal(model.tokenize(pictures), expected)
        rounded = neurons(model, tokens)
        completed = model.complete(tokens[:, :1], TOLD, Sampling(guidance=1.0))
    assert kinds == {torch.bfloat16}
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)  # bfloat16 keeps 8 bits
    assert completed.shape == tokens.shape


def test_a_seedless_completion_draws_from_the_global_generator(
    official: Any, tokens: Tensor
) -> None:
    model = wrap(official)
    free = Sampling(greedy=False, seed=None)
    first, second = (model.complete(tokens[:, :1], TOLD, free) for _ in range(2))
    assert not torch.equal(first, second)


def test_the_model_is_described_by_its_shapes(official: Any, ours: VARAdapter) -> None:
    model = wrap(official)
    assert model.layout == ours.layout
    assert model.adapter.variant == ours.variant
    assert model.adapter.variant.resolution == 8


def test_the_golden_vectors_hold_for_the_object(
    golden: Callable[[str], dict[str, np.ndarray]],
    fill: ModuleType,
    standin: Callable[[str], ModuleType],
) -> None:
    """Those of the authors' code, see tests/golden/README.md; tolerance and gap as stated there."""
    arrays, made = golden("var_tiny"), standin("var")
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    vae = fill.fill_state_dict(made.VQVAE(VQVAEConfig(sides, ch=32)))
    var = fill.fill_state_dict(made.VAR(vae, VARConfig(2, 128, 2, sides)))
    model = wrap(var)
    tokens = torch.from_numpy(arrays["gt_idx"])
    means = model.read_neurons(
        model.adapter.teacher_forced(tokens, Condition.of(torch.from_numpy(arrays["labels"])))
    )
    np.testing.assert_allclose(means.detach(), arrays["fc1_mean_abs"], rtol=0, atol=1e-4)
    images = fill.random_image(int(arrays["image_seed"]), 2, 256, -1, 1)
    clear = arrays["gt_margin"] > 1e-3
    np.testing.assert_array_equal(
        model.tokenize((images + 1) / 2).numpy()[clear], arrays["gt_idx"][clear]
    )
    sampling = Sampling(guidance=float(arrays["gen_cfg"]))
    labels = torch.from_numpy(arrays["gen_labels"])
    generated = model.complete(tokens[:, :0], Condition.of(labels), sampling).numpy()
    clear = arrays["gen_top2_gap"] > 1e-3
    np.testing.assert_array_equal(generated[clear], arrays["gen_idx"][clear])
