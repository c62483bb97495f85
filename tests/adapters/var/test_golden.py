"""Comparison with outputs of the authors' code; see tests/golden/README.md."""

from __future__ import annotations

import itertools
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

from iarmem_adapters.var.generation import complete
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.interfaces import Sampling

TOLERANCE = 1e-4  # the other variant of GELU differs by 6e-4
CLEAR = 1e-3  # tokens whose best and second-best code are this far apart may not flip


@dataclass
class Case:
    """One golden file, and the networks that it was made with."""

    golden: dict[str, np.ndarray]
    transformer: VARTransformer
    tokenizer: MultiScaleVQVAE
    images: Tensor
    activations: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    generated: Tensor = field(default_factory=lambda: torch.empty(0))
    guided: Tensor = field(default_factory=lambda: torch.empty(0))

    def step(self, name: str) -> int:
        return int(self.golden.get(f"{name}_step", 1))

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])


@pytest.fixture(
    scope="module", params=["var_tiny", pytest.param("var_d16", marks=pytest.mark.slow)]
)
def case(
    request: pytest.FixtureRequest,
    golden: Callable[[str], dict[str, np.ndarray]],
    filled_var: Callable[..., tuple[VARTransformer, MultiScaleVQVAE]],
    fill: ModuleType,
) -> Case:
    arrays = golden(request.param)
    config = json.loads(str(arrays["config"]))
    scales = tuple(config["patch_nums"])
    transformer, tokenizer = filled_var(
        VARConfig(config["depth"], config["embed_dim"], config["num_heads"], scales),
        VQVAEConfig(scales, ch=config["vae_ch"]),
    )
    images = fill.random_image(int(arrays["image_seed"]), 2, 256, -1, 1)
    case = Case(arrays, transformer, tokenizer, images)
    with torch.no_grad():
        run_teacher_forced(case)
        run_generation(case)
    return case


def run_teacher_forced(case: Case) -> None:
    hooks = []
    for block in case.transformer.blocks:
        hooks.append(
            block.ffn.act.register_forward_hook(lambda _m, _i, out: case.activations.append(out))
        )
        hooks.append(block.register_forward_hook(lambda _m, _i, out: case.outputs.append(out)))
    case.logits = case.transformer(case.tensor("labels"), case.tensor("var_input"))
    for hook in hooks:
        hook.remove()


def run_generation(case: Case) -> None:
    """Generate, and guide the head's logits by hand from the definition."""
    raw: list[Tensor] = []
    hook = case.transformer.head.register_forward_hook(lambda _m, _i, out: raw.append(out))
    strength = float(case.golden["gen_cfg"])
    nothing = torch.empty(2, 0, dtype=torch.int64)
    case.generated = complete(
        case.transformer,
        case.tokenizer,
        nothing,
        case.tensor("gen_labels"),
        Sampling(guidance=strength),
    )
    hook.remove()
    guided = [
        (1 + strength * scale / 9) * logits[:2] - strength * scale / 9 * logits[2:]
        for scale, logits in enumerate(raw)
    ]
    case.guided = torch.cat(guided, dim=1)


def close(actual: Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected), rtol=0, atol=TOLERANCE)


def same_tokens(actual: Tensor, expected: np.ndarray, gap: np.ndarray) -> None:
    clear = gap > CLEAR
    assert clear.any()
    np.testing.assert_array_equal(actual.numpy()[clear], expected[clear])


def test_images_are_those_of_the_reference(case: Case) -> None:
    assert int(case.golden["image_crc32"]) == zlib.crc32(case.images.numpy().tobytes())


def test_features_before_quantisation(case: Case) -> None:
    with torch.no_grad():
        close(case.tokenizer.features(case.images), case.golden["f"])


def test_tokens_of_images(case: Case) -> None:
    same_tokens(case.tokenizer.encode(case.images), case.golden["gt_idx"], case.golden["gt_margin"])


def test_tokens_of_reference_features(case: Case) -> None:
    same_tokens(
        case.tokenizer.quantize(case.tensor("f")), case.golden["gt_idx"], case.golden["gt_margin"]
    )


def test_phi_convolution_of_each_scale(case: Case) -> None:
    assert case.golden["phi_index"].tolist() == list(case.tokenizer.quantize.phi_index)


def test_sum_of_code_maps_and_reconstruction(case: Case) -> None:
    step = case.step("pixel")
    with torch.no_grad():
        *_, fhat = case.tokenizer.quantize.accumulated(case.tensor("gt_idx"))
        close(fhat, case.golden["fhat"])
        images = case.tokenizer.decode(case.tensor("gt_idx"))
    close(images[..., ::step, ::step], case.golden["recon"])


def test_teacher_forcing_input(case: Case) -> None:
    with torch.no_grad():
        close(case.tokenizer.teacher_input(case.tensor("gt_idx")), case.golden["var_input"])


def test_logits(case: Case) -> None:
    golden = case.golden
    some = case.logits[:, golden["positions"]]
    close(some[..., :: case.step("code")], golden["logits_at_positions"])
    close(case.logits[..., :16], golden["logits_first16"])
    same_tokens(case.logits.argmax(2), golden["logits_argmax"], golden["logits_top2_gap"])


def test_log_probabilities_of_true_tokens(case: Case) -> None:
    true = case.tensor("gt_idx").unsqueeze(2)
    close(case.logits.log_softmax(2).gather(2, true).squeeze(2), case.golden["gt_logprob"])


def test_logits_without_a_class(case: Case) -> None:
    no_class = torch.full((2,), case.transformer.config.num_classes)
    with torch.no_grad():
        logits = case.transformer(no_class, case.tensor("var_input"))
    some = logits[:, case.golden["positions"]]
    close(some[..., :: case.step("code")], case.golden["logits_uncond_at_positions"])
    true = case.tensor("gt_idx").unsqueeze(2)
    close(logits.log_softmax(2).gather(2, true).squeeze(2), case.golden["gt_logprob_uncond"])


def test_mean_absolute_activations(case: Case) -> None:
    edges = (0, *case.transformer.config.ends)
    spans = list(itertools.pairwise(edges))
    means = [
        torch.stack([block[:, begin:end].abs().mean(1) for begin, end in spans], dim=1)
        for block in case.activations
    ]
    actual = torch.stack(means, dim=1)
    close(actual[..., :: case.step("neuron")], case.golden["fc1_mean_abs"])


def test_residual_stream_after_each_block(case: Case) -> None:
    outputs = torch.stack(case.outputs, dim=1)[:, :, case.golden["block_positions"]]
    close(outputs[..., :: case.step("channel")], case.golden["block_out_at_positions"])


def test_greedy_guided_generation(case: Case) -> None:
    golden, step = case.golden, case.step("pixel")
    same_tokens(case.generated, golden["gen_idx"], golden["gen_top2_gap"])
    some = case.guided[:, golden["positions"]]
    close(some[..., :: case.step("code")], golden["gen_logits_at_positions"])
    with torch.no_grad():
        images = (case.tokenizer.decode(case.tensor("gen_idx")) + 1) / 2
    close(images[..., ::step, ::step], golden["gen_image"])


@pytest.mark.parametrize("case", ["var_tiny"], indirect=True)  # the full-size file has none
def test_seeded_random_generation(case: Case) -> None:
    sampling = Sampling(
        guidance=float(case.golden["gen_cfg"]),
        top_k=int(case.golden["sampled_top_k"]),
        top_p=float(case.golden["sampled_top_p"]),
        greedy=False,
        seed=int(case.golden["sampled_seed"]),
    )
    nothing = torch.empty(2, 0, dtype=torch.int64)
    labels = case.tensor("gen_labels")
    tokens = complete(case.transformer, case.tokenizer, nothing, labels, sampling)
    assert case.golden["sampled_idx"].tolist() == tokens.tolist()


def test_two_passes_over_one_batch_are_bit_equal(case: Case) -> None:
    with torch.no_grad():
        again = case.transformer(case.tensor("labels"), case.tensor("var_input"))
    assert torch.equal(case.logits, again)
    first, second = (case.tokenizer.encode(case.images[:1]) for _ in range(2))
    assert torch.equal(first, second)
