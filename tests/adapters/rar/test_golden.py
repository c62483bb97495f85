"""Comparison with outputs of the authors' code; see tests/golden/README.md."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iarmem_adapters.rar.family import layout_of
from iarmem_adapters.rar.generation import complete
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_plugin.interfaces import Sampling

Read = Callable[[str], dict[str, np.ndarray]]

TOLERANCE = 1e-4  # the other variant of GELU differs by 6e-4
GUIDED_TOLERANCE = 5e-4  # of log-probabilities: guidance of 16 multiplies what rounding leaves
LEAST = (
    -60
)  # log-probabilities below are not compared: the reference lost them in a float32 softmax
CLEAR = 1e-3  # tokens whose best and second-best code are this far apart may not flip
FILES = {"tiny": ("rar_tiny", "maskgit_tiny"), "full": ("rar_b", "maskgit_vqgan")}
SIZES = [pytest.param("tiny"), pytest.param("full", marks=pytest.mark.slow)]


@dataclass
class Case:
    """One golden file of a transformer, and what ours makes of the same input."""

    size: str
    golden: dict[str, np.ndarray]
    transformer: RARTransformer
    activations: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    def step(self, name: str) -> int:
        return int(self.golden.get(f"{name}_step", 1))

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])


@pytest.fixture(scope="module", params=SIZES)
def case(request: pytest.FixtureRequest, golden: Read, fill: ModuleType) -> Case:
    arrays = golden(FILES[request.param][0])
    config = json.loads(str(arrays["config"]))
    transformer = RARTransformer(
        RARConfig(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["num_attention_heads"],
            config["intermediate_size"],
            config["image_seq_len"],
            config["codebook_size"],
            config["condition_num_classes"],
        )
    )
    case = Case(request.param, arrays, fill.fill_state_dict(transformer.eval()))
    with torch.no_grad():
        run_teacher_forced(case)
    return case


def run_teacher_forced(case: Case) -> None:
    hooks = []
    for block in case.transformer.blocks:
        hooks.append(
            block.mlp.act.register_forward_hook(lambda _m, _i, out: case.activations.append(out))
        )
        hooks.append(block.register_forward_hook(lambda _m, _i, out: case.outputs.append(out)))
    case.logits = case.transformer(case.tensor("labels"), case.tensor("tokens"))
    for hook in hooks:
        hook.remove()


def close(actual: Tensor, expected: Any, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected), rtol=0, atol=tolerance)


def same_tokens(actual: Tensor, expected: np.ndarray, gap: np.ndarray) -> None:
    clear = gap > CLEAR
    assert clear.any()
    np.testing.assert_array_equal(actual.numpy()[clear], expected[clear])


def test_logits(case: Case) -> None:
    golden = case.golden
    assert case.logits.shape == (2, 257, 1024)
    some = case.logits[:, golden["positions"]]
    close(some[..., :: case.step("code")], golden["logits_at_positions"])
    close(case.logits[..., :16], golden["logits_first16"])
    same_tokens(case.logits.argmax(2), golden["logits_argmax"], golden["logits_top2_gap"])


def log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return those of the true tokens; what follows the last token predicts none."""
    return logits[:, :-1].log_softmax(2).gather(2, tokens.unsqueeze(2)).squeeze(2)


def test_log_probabilities_of_true_tokens(case: Case) -> None:
    close(log_probabilities(case.logits, case.tensor("tokens")), case.golden["gt_logprob"])


def test_logits_without_a_class(case: Case) -> None:
    no_class = torch.full((2,), case.transformer.config.num_classes)
    with torch.no_grad():
        logits = case.transformer(no_class, case.tensor("tokens"))
    some = logits[:, case.golden["positions"]]
    close(some[..., :: case.step("code")], case.golden["logits_uncond_at_positions"])
    close(log_probabilities(logits, case.tensor("tokens")), case.golden["gt_logprob_uncond"])


def test_activations_that_predict_the_last_token(case: Case) -> None:
    layout = layout_of(case.transformer.config)
    positions = layout.positions(layout.scales[0])
    scaled = [block[:, positions].abs().mean(1) for block in case.activations]
    actual = torch.stack(scaled, dim=1)
    close(actual[..., :: case.step("neuron")], case.golden["fc1_abs_last"])


def test_mean_absolute_activations_of_all_predicting_elements(case: Case) -> None:
    actual = torch.stack([block[:, 1:257].abs().mean(1) for block in case.activations], dim=1)
    close(actual[..., :: case.step("neuron")], case.golden["fc1_mean_abs_all"])


def test_residual_stream_after_each_block(case: Case) -> None:
    outputs = torch.stack(case.outputs, dim=1)[:, :, case.golden["block_positions"]]
    close(outputs[..., :: case.step("channel")], case.golden["block_out_at_positions"])


def generations(golden: dict[str, np.ndarray]) -> list[str]:
    """Return the names of the stored greedy generations, which differ in their guidance."""
    keys = [key for key in golden if key.startswith("gen_") and key.endswith("_tokens")]
    return [key.removeprefix("gen_").removesuffix("_tokens") for key in keys]


def test_greedy_guided_generation(case: Case) -> None:
    assert generations(case.golden) == {"tiny": ["const", "pow"], "full": ["default"]}[case.size]
    for name in generations(case.golden):
        check_generation(case, name)


def check_generation(case: Case, name: str) -> None:
    """Compare tokens, and the log-probabilities guided by hand from the definition."""
    golden = case.golden
    guidance, power, temperature = golden[f"gen_{name}_params"].tolist()
    raw: list[Tensor] = []
    hook = case.transformer.lm_head.register_forward_hook(lambda _m, _i, out: raw.append(out))
    nothing = torch.empty(2, 0, dtype=torch.int64)
    sampling = Sampling(guidance=guidance, guidance_power=power, temperature=temperature)
    tokens = complete(case.transformer, nothing, case.tensor("gen_labels"), sampling)
    hook.remove()
    same_tokens(tokens, golden[f"gen_{name}_tokens"], golden[f"gen_{name}_top2_gap"])
    for place, step in enumerate(golden["gen_steps"].tolist()):
        strength = (guidance - 1) * (1 - np.cos(np.pi * (step / 256) ** power)) / 2 + 1
        with_class, without = raw[step][:2, 0], raw[step][2:, 0]
        guided = (without + (with_class - without) * strength) / temperature
        expected = torch.from_numpy(golden[f"gen_{name}_logprobs_at_steps"][:, place])
        actual = guided.log_softmax(1)[:, :: case.step("code")]
        kept = expected > LEAST
        close(actual[kept], expected[kept], GUIDED_TOLERANCE)


@pytest.mark.parametrize("case", ["tiny"], indirect=True)  # the full-size file has none
def test_seeded_random_generation(case: Case) -> None:
    guidance, power, temperature = case.golden["sampled_params"].tolist()
    sampling = Sampling(
        guidance=guidance,
        guidance_power=power,
        temperature=temperature,
        greedy=False,
        seed=int(case.golden["sampled_seed"]),
    )
    nothing = torch.empty(2, 0, dtype=torch.int64)
    tokens = complete(case.transformer, nothing, case.tensor("gen_labels"), sampling)
    assert case.golden["sampled_tokens"].tolist() == tokens.tolist()


def test_two_passes_over_one_batch_are_bit_equal(case: Case) -> None:
    with torch.no_grad():
        again = case.transformer(case.tensor("labels"), case.tensor("tokens"))
    assert torch.equal(case.logits, again)


@dataclass
class TokenizerCase:
    """The golden file of a tokenizer, the tokenizer, and the transformer's file beside it."""

    golden: dict[str, np.ndarray]
    generated: dict[str, np.ndarray]
    tokenizer: MaskGITVQGAN
    images: Tensor


@pytest.fixture(scope="module", params=SIZES)
def vqgan(request: pytest.FixtureRequest, golden: Read, fill: ModuleType) -> TokenizerCase:
    transformer, name = FILES[request.param]
    arrays = golden(name)
    config = json.loads(str(arrays["config"]))
    tokenizer = MaskGITVQGAN(
        MaskGITVQGANConfig(
            config["hidden_channels"],
            tuple(config["channel_mult"]),
            config["num_res_blocks"],
            config["codebook"],
            config["z_channels"],
        )
    )
    images = fill.random_image(int(arrays["image_seed"]), 2, 256, 0, 1)
    filled = fill.fill_state_dict(tokenizer.eval())
    return TokenizerCase(arrays, golden(transformer), filled, images)


def test_images_are_those_of_the_reference(vqgan: TokenizerCase) -> None:
    assert int(vqgan.golden["image_crc32"]) == zlib.crc32(vqgan.images.numpy().tobytes())


def test_features_before_quantisation(vqgan: TokenizerCase) -> None:
    with torch.no_grad():
        features = vqgan.tokenizer.features(vqgan.images)
    close(features[:, :: int(vqgan.golden.get("channel_step", 1))], vqgan.golden["z"])


def test_tokens_of_images(vqgan: TokenizerCase) -> None:
    tokens = vqgan.tokenizer.encode(vqgan.images)
    same_tokens(tokens, vqgan.golden["tokens"], vqgan.golden["token_margin"])


def test_reconstruction(vqgan: TokenizerCase) -> None:
    golden, tokenizer = vqgan.golden, vqgan.tokenizer
    step = int(golden.get("pixel_step", 1))
    with torch.no_grad():
        codes = tokenizer.quantize.embed(torch.from_numpy(golden["tokens"]))
        raw = tokenizer.decode_features(codes, clamp=False)
    close(raw[..., 96:160, 96:160], golden["recon_unclamped_64"])
    close(torch.stack([raw.mean(), raw.std()]), golden["recon_raw_mean_std"])
    close(raw.clamp(0, 1)[..., ::step, ::step], golden["recon"])


def test_image_of_generated_tokens(vqgan: TokenizerCase) -> None:
    golden = vqgan.generated
    first = generations(golden)[0]
    step = int(golden["pixel_step"])
    with torch.no_grad():
        images = vqgan.tokenizer.decode(torch.from_numpy(golden[f"gen_{first}_tokens"]))
    close(images[..., ::step, ::step], golden["gen_image"])
