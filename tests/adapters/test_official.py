"""Objects that would give wrong numbers are refused, each in words that say what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from nnsight import NNsight
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from iarmem_adapters.official import check_devices
from iarmem_adapters.rar.tokenizer import MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var.tokenizer import VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig
from iarmem_plugin import wrap
from iarmem_plugin.errors import BypassedNeuronsError, IarmemError, InputError
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.provenance import model_provenance

SIDES = (1, 2, 4)
VAR = VARConfig(2, 16, 2, SIDES, num_classes=3, vocab_size=16, code_width=4)
VQVAE = VQVAEConfig(SIDES, ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=16, code_width=4)
RAR = RARConfig(2, 16, 2, 24, num_tokens=4, vocab_size=16, num_classes=3)
VQGAN = MaskGITVQGANConfig(ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=16, code_width=4)

Standin = Callable[[str], ModuleType]


@pytest.fixture
def var(standin: Standin) -> Any:
    return standin("var").VAR(standin("var").VQVAE(VQVAE), VAR)


@pytest.fixture
def rar(standin: Standin) -> Any:
    return standin("rar").RAR(RAR)


@pytest.fixture
def vqgan(standin: Standin) -> Any:
    return standin("rar").PretrainedTokenizer(VQGAN)


class PassesOn(nn.Module):
    """Such as trainers put around a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("wrapper", [NNsight, compiled, nn.DataParallel, PassesOn])
@pytest.mark.parametrize("twice", [False, True])
def test_wrappers_are_taken_off(rar: Any, vqgan: Any, wrapper: Any, twice: bool) -> None:
    model = wrapper(PassesOn(nn.DataParallel(rar))) if twice else wrapper(rar)
    found = wrap(model, wrapper(vqgan)).adapter
    assert found.network is rar
    assert found.tokenizer is vqgan


def test_a_model_that_is_wrapped_already_is_wrapped_again(var: Any) -> None:
    assert wrap(wrap(var)).adapter.network is var


def test_our_own_network_is_refused_without_its_tokenizer() -> None:
    with pytest.raises(InputError, match="got RARTransformer and NoneType, expected a RARTransf"):
        wrap(RARTransformer(RAR))


def refusal(model: object, tokenizer: object = None) -> str:
    with pytest.raises(InputError) as caught:
        wrap(model, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_object_is_told_what_adapters_look_for() -> None:
    message = refusal(nn.Sequential(nn.Linear(1, 1)))
    assert "no installed adapter recognises this Sequential (its parts: 0)" in message
    assert "rar: cls_token, target_aware_pos_embed" in message
    assert "var: pos_start, lvl_1L" in message


class Attack(nn.Module):
    """Such as an attack's code puts around a model."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator


def test_a_wrapper_of_an_attack_is_told_which_attribute_to_hand_over(
    var: Any, rar: Any, vqgan: Any
) -> None:
    for network, tokenizer in ((var, None), (rar, vqgan)):
        for wrapper in (Attack(network), SimpleNamespace(generator=network)):
            told = refusal(wrapper, tokenizer)
            assert "hand over model.generator, and its tokenizer" in told
            model: Any = wrapper
            assert wrap(model.generator, tokenizer).adapter.network is network
    told = refusal(SimpleNamespace(runs=[1], inner=[], net=Attack(PassesOn(var))))
    assert "hand over model.net.generator.module" in told


def with_adapters(model: Any) -> None:
    """Stands for what a LoRA library makes of a layer."""
    part = model.blocks[1].attn.proj
    layers = {"base_layer": part, "lora_A": nn.ModuleDict({"default": nn.Linear(16, 2)})}
    model.blocks[1].attn.proj = nn.ModuleDict(layers)


def test_adapters_that_were_not_merged_are_told(var: Any, rar: Any, vqgan: Any) -> None:
    for network, tokenizer in ((var, None), (rar, vqgan)):
        with_adapters(network)
        for model in (network, Attack(network), nn.Sequential(Attack(network))):
            assert "merge the adapters first" in refusal(model, tokenizer)


def test_a_checkpointing_wrapper_is_taken_off(rar: Any, vqgan: Any) -> None:
    rar.blocks[1] = checkpoint_wrapper(rar.blocks[1])
    assert wrap(checkpoint_wrapper(rar), vqgan).adapter.network is rar


def test_parts_that_were_compiled_are_refused_with_the_code_that_takes_them_out(
    var: Any, rar: Any, vqgan: Any
) -> None:
    for model, tokenizer in ((var, None), (rar, vqgan)):
        model.blocks[1] = compiled(model.blocks[1])
        told = refusal(model, tokenizer)
        assert "the model's part 'blocks.1' was compiled by torch.compile" in told
        exec(told.split("take it out, ")[1].split(", as")[0], {"model": model})  # noqa: S102  # as a user
        assert wrap(model, tokenizer).adapter.network is model


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("path", ["blocks.1.attn.proj.bias", "head.weight", "lm_head.weight"])
def test_weights_that_are_not_finite_are_refused(
    var: Any, rar: Any, vqgan: Any, path: str, value: float
) -> None:
    for network, tokenizer in ((var, None), (rar, vqgan)):
        weights = dict(network.named_parameters())
        if path in weights:
            with torch.no_grad():
                weights[path].view(-1)[3] = value
            assert f"the model cannot be used: its weight {path!r} holds NaN" in refusal(
                network, tokenizer
            )


def test_a_tokenizer_that_is_not_finite_is_refused(var: Any, rar: Any, vqgan: Any) -> None:
    for network, held, given in ((var, var.vae_proxy[0], None), (rar, vqgan, vqgan)):
        with torch.no_grad():
            held.quantize.embedding.weight[0, 0] = torch.nan
        told = refusal(network, given)
        assert "the tokenizer cannot be used: its weight 'quantize.embedding.weight' holds" in told


@pytest.mark.parametrize("given", [{"trainer": {}}, "var_d16.pth", None])
def test_what_is_no_module_is_refused(given: object) -> None:
    kind = type(given).__name__
    assert f"the model is of type {kind}, expected a torch.nn.Module" in refusal(given)


def sharded(model: Any) -> None:
    model.blocks[1] = nn.ModuleDict({"_fsdp_wrapped_module": model.blocks[1]})


class Shard(Tensor):
    """Stands for DTensor and for the tensors of quantising libraries."""


def subclassed(model: Any) -> None:
    part = model.blocks[0].attn.proj
    part.weight = nn.Parameter(part.weight.detach().as_subclass(Shard))


def quantised(model: Any) -> None:
    whole = torch.ones_like(model.blocks[0].attn.proj.weight, dtype=torch.int8)
    model.blocks[0].attn.proj.weight = nn.Parameter(whole, requires_grad=False)


def quantised_to_float8(model: Any) -> None:
    part = model.blocks[0].attn.proj
    part.weight = nn.Parameter(part.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)


def without_values(model: Any) -> None:
    model.to("meta")


def of_inference(model: Any) -> None:
    with torch.inference_mode():
        model.blocks[0].attn.proj.weight = nn.Parameter(torch.ones(16, 16))


def with_more(model: Any) -> None:
    model.text_proj = nn.Linear(4, 16)


def with_less(model: Any) -> None:
    del model.blocks[1].attn.proj


def with_other_sizes(model: Any) -> None:
    model.blocks[1].attn.proj = nn.Linear(8, 16)


BOTH = [
    (sharded, "is sharded (FSDP): hand over an unsharded copy"),
    (subclassed, "'blocks.0.attn.proj.weight' is a Shard, expected a plain parameter"),
    (quantised, "'blocks.0.attn.proj.weight' is of type torch.int8"),
    (quantised_to_float8, "'blocks.0.attn.proj.weight' is of type torch.float8_e4m3fn: hand over"),
    (without_values, "has no values (meta device): load the weights"),
    (of_inference, "was made under torch.inference_mode(): build and load the model outside"),
    (with_more, "it has the unknown weights text_proj.weight, text_proj.bias"),
    (with_less, "it lacks the weights blocks.1.attn.proj.weight, blocks.1.attn.proj.bias"),
    (with_other_sizes, "blocks.1.attn.proj.weight (16, 8) instead of (16, 16)"),
]


@pytest.mark.parametrize(("spoil", "message"), BOTH)
def test_changed_transformers_are_refused(
    var: Any, rar: Any, vqgan: Any, spoil: Callable[[Any], None], message: str
) -> None:
    for model, tokenizer in ((var, None), (rar, vqgan)):
        spoil(model)
        assert message in refusal(model, tokenizer)


def set_at(path: str, value: object) -> Callable[[Any], None]:
    """Return what sets an attribute of an object, given its dotted path."""

    def spoil(model: Any) -> None:
        *owners, name = path.split(".")
        for owner in owners:
            model = model[int(owner)] if owner.isdigit() else getattr(model, owner)
        setattr(model, name, value)

    return spoil


VAR_ONLY = [
    (
        lambda var: delattr(var.blocks[1].ffn, "fused_mlp_func"),
        "the object has no blocks.1.ffn.fused_mlp_func, which the authors' has",
    ),
    (lambda var: delattr(var, "prog_si"), "the object has no prog_si, which the authors' has"),
    (
        lambda var: delattr(var.vae_quant_proxy[0], "prog_si"),
        "the object has no vae_proxy[0].quantize.prog_si",
    ),
    (lambda var: var.half(), "float32 weights only, and 'pos_start' is of type torch.float16"),
    (set_at("blocks.1.ffn.act", nn.GELU()), "blocks.1.ffn.act.approximate is none, expected tanh"),
    (set_at("blocks.1.ffn.act", nn.SiLU()), "has no blocks.1.ffn.act.approximate; expected tanh"),
    (set_at("blocks.0.attn.attn_l2_norm", False), "build it with attn_l2_norm=True"),
    (set_at("blocks.1.ln_wo_grad.eps", 1e-5), "blocks.1.ln_wo_grad.eps is 1e-05, expected 1e-06"),
    (set_at("head_nm.ln_wo_grad.eps", 1e-5), "head_nm.ln_wo_grad.eps is 1e-05, expected 1e-06"),
    (set_at("patch_nums", [1, 4, 2]), "patch_nums is [1, 4, 2], expected (1, 2, 4)"),
    (
        lambda var: var.attn_bias_for_masking.zero_(),
        "attn_bias_for_masking hides other tokens than the published model's mask does",
    ),
    (lambda var: delattr(var, "shared_ada_lin"), "the object has no shared_ada_lin, which the"),
    (set_at("vae_proxy", None), "set var.vae_proxy = (vae,) and var.vae_quant_proxy"),
    (
        lambda var: setattr(var, "vae_proxy", copy.deepcopy(var.vae_proxy)),
        "vae_quant_proxy[0] is not the quantiser of vae_proxy[0]",
    ),
    (
        lambda var: setattr(var.vae_quant_proxy[0], "v_patch_nums", (1, 2, 3)),
        "quantize.v_patch_nums is (1, 2, 3), expected (1, 2, 4)",
    ),
    (
        lambda var: setattr(var.vae_quant_proxy[0], "using_znorm", True),
        "quantize.using_znorm is True, expected False",
    ),
    (lambda var: var.vae_proxy[0].bfloat16(), "VAR's tokenizer works with float32 weights only"),
    (
        lambda var: delattr(var.vae_proxy[0], "quant_conv"),
        "vae_proxy[0] has the parts encoder, decoder, quantize, post_quant_conv; expected VAR's",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), VAR_ONLY)
def test_changed_vars_are_refused(var: Any, spoil: Callable[[Any], object], message: str) -> None:
    spoil(var)
    assert message in refusal(var)


def test_a_var_that_does_not_normalise_is_refused(standin: Standin) -> None:
    made = standin("var")
    var = made.VAR(made.VQVAE(VQVAE), VAR, attn_l2_norm=False)
    assert "attn_l2_norm is False, expected True: build it with" in refusal(var)


def test_a_var_with_lists_as_after_a_hub_load_is_taken(var: Any) -> None:
    var.patch_nums = list(var.patch_nums)
    var.vae_quant_proxy[0].v_patch_nums = list(SIDES)
    assert wrap(var).layout.num_blocks == 2


@pytest.mark.parametrize("sizes", [{"vocab_size": 8}, {"code_width": 8}])
def test_a_var_with_a_tokenizer_of_other_codes_is_refused(
    standin: Standin, sizes: dict[str, int]
) -> None:
    made = standin("var")
    var = made.VAR(made.VQVAE(replace(VQVAE, **sizes)), VAR)
    assert "build both with the same V and Cvae" in refusal(var)


def test_a_vars_own_tokenizer_or_one_of_equal_weights_is_taken(var: Any) -> None:
    (vae,) = var.vae_proxy
    for given in (None, vae, PassesOn(vae), copy.deepcopy(vae)):
        assert wrap(var, given).adapter.tokenizer is vae


def test_another_tokenizer_than_a_var_holds_is_refused(var: Any, vqgan: Any) -> None:
    other = copy.deepcopy(var.vae_proxy[0])
    with torch.no_grad():
        other.quantize.embedding.weight[3, 1] += 1
    message = refusal(var, other)
    assert "differs from vae_proxy[0], which the transformer uses (first in quantize.emb" in message
    assert "leave it out, or load its weights into vae_proxy[0]" in message
    assert "differs from vae_proxy[0]" in refusal(var, vqgan)


RAR_ONLY = [
    (lambda rar: delattr(rar, "use_checkpoint"), "the object has no use_checkpoint, which the"),
    (lambda rar: delattr(rar.blocks[1].attn, "kv_cache"), "no blocks.1.attn.kv_cache, which the"),
    (set_at("random_ratio", 0.25), "random_ratio is 0.25, expected 0"),
    (set_at("blocks.1.mlp.act", nn.GELU("tanh")), "blocks.1.mlp.act.approximate is tanh, expected"),
    (set_at("blocks.1.norm2.eps", 1e-5), "blocks.1.norm2.eps is 1e-05, expected 1e-06"),
    (set_at("blocks.0.attn.q_norm.eps", 1e-5), "blocks.0.attn.q_norm.eps is 1e-05, expected"),
    (set_at("adaln_before_head.norm_final.eps", 1e-5), "norm_final.eps is 1e-05, expected 1e-06"),
    (set_at("attn_mask", torch.zeros(4, 4)), "attn_mask.shape is torch.Size([4, 4]), expected"),
    (
        lambda rar: rar.attn_mask.zero_(),
        "attn_mask hides other tokens than the published model's mask does",
    ),
    (lambda rar: delattr(rar, "attn_mask"), "the object has no attn_mask, which the"),
]


@pytest.mark.parametrize(("spoil", "message"), RAR_ONLY)
def test_changed_rars_are_refused(
    rar: Any, vqgan: Any, spoil: Callable[[Any], object], message: str
) -> None:
    spoil(rar)
    assert message in refusal(rar, vqgan)


def test_a_rar_without_its_tokenizer_is_refused(rar: Any) -> None:
    assert "hand over both, wrap(model, tokenizer)" in refusal(rar)


def test_another_tokenizer_than_rars_is_refused(
    rar: Any, var: Any, vqgan: Any, standin: Standin
) -> None:
    message = refusal(rar, var.vae_proxy[0])
    assert (
        "the tokenizer is a VQVAE with the parts encoder, decoder, quantize, quant_conv" in message
    )
    other = standin("rar").PretrainedTokenizer(replace(VQGAN, vocab_size=8))
    assert "transformer has 16 codes, the tokenizer 8" in refusal(rar, other)
    vqgan.encoder.latent_tokens = nn.Parameter(torch.zeros(3))
    assert "it has the unknown weights encoder.latent_tokens" in refusal(rar, vqgan)


def test_a_rars_tokenizer_in_half_precision_is_refused(rar: Any, vqgan: Any) -> None:
    message = refusal(rar, vqgan.bfloat16())
    assert "RAR's tokenizer works with float32 weights only" in message


def test_tokens_that_fill_no_square_are_refused(standin: Standin, vqgan: Any) -> None:
    rar = standin("rar").RAR(replace(RAR, num_tokens=5))
    assert "5 tokens fill no square" in refusal(rar, vqgan)


def test_a_tokenizer_on_another_device_is_refused() -> None:
    """Meta stands for a second device, which not every machine has."""
    with pytest.raises(InputError, match=r"model is on cpu, its tokenizer on meta.*to\('cpu'\)"):
        check_devices(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"))


def side(model: Any) -> tuple[int, int]:
    return (model.adapter.variant.resolution,) * 2


def test_an_mlp_that_goes_round_its_modules_in_another_way_is_noticed(var: Any) -> None:
    var.blocks[0].ffn.forward = lambda x: x
    model = wrap(var)
    tokens = model.tokenize(torch.zeros(1, 3, *side(model)))
    with pytest.raises(BypassedNeuronsError, match="fused_if_available=False"):
        model.read_neurons(model.adapter.teacher_forced(tokens, Condition.of(torch.tensor([0]))))


def test_the_page_promises_what_is_tested(request: pytest.FixtureRequest) -> None:
    page = (request.config.rootpath / "docs" / "own-models.md").read_text()
    assert "activations and logits within 3e-5" in page
    for family in ("var", "rar"):
        tests = request.config.rootpath / "tests" / "adapters" / family / "test_official.py"
        assert "CLOSE = 3e-5  #" in tests.read_text()


def test_every_refusal_is_an_error_of_ours_and_a_value_error() -> None:
    assert issubclass(InputError, IarmemError)
    assert issubclass(InputError, ValueError)


def test_the_provenance_holds_a_hash_over_the_objects_tensors(
    var: Any, rar: Any, vqgan: Any
) -> None:
    for model in (wrap(var), wrap(rar, vqgan)):
        before = model_provenance(model)
        weight = model.adapter.network.blocks[1].attn.proj.weight
        with torch.no_grad():
            weight[0, 0] += 1
        after = model_provenance(model)
        assert before["weights_sha256"] != after["weights_sha256"]
        assert before["tokenizer_sha256"] == after["tokenizer_sha256"]
        assert before["model"] in ("var-2x16", "rar-2x16")
