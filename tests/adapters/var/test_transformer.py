from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_adapters.var.attention import SelfAttention
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE
from iarmem_adapters.var.transformer import VARConfig, VARTransformer

Pair = tuple[VARTransformer, MultiScaleVQVAE]
LABELS = torch.tensor([0, 4, 9])


@pytest.mark.parametrize("training", [False, True])
def test_passes_are_bit_equal_and_draw_nothing_in_either_mode(
    training: bool, small_var: Pair, small_tokens: Tensor
) -> None:
    transformer, tokenizer = small_var
    before = torch.get_rng_state()
    transformer.train(training)
    with torch.no_grad():
        x_in = tokenizer.teacher_input(small_tokens)
        first, second = (transformer(LABELS, x_in) for _ in range(2))
    transformer.eval()
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_logits_of_a_scale_do_not_depend_on_its_own_or_later_tokens(
    small_var: Pair, small_tokens: Tensor
) -> None:
    transformer, tokenizer = small_var
    changed = small_tokens.clone()
    changed[:, 30:] = (changed[:, 30:] + 7) % 512
    with torch.no_grad():
        first = transformer(LABELS, tokenizer.teacher_input(small_tokens))
        second = transformer(LABELS, tokenizer.teacher_input(changed))
    assert first.shape == (3, 130, 512)
    assert torch.equal(first[:, :66], second[:, :66])
    assert not torch.equal(first[:, 66:], second[:, 66:])


def test_attention_equals_its_formula_written_out() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(12, 3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        layer.scale_mul_1H11[0, :, 0, 0] = torch.tensor([0.5, 1.0, 5.0])  # the last is capped
        x = torch.randn(2, 5, 12)
        actual = layer(x)
        query, key, value = (
            x @ layer.mat_qkv.weight[12 * part : 12 * part + 12].T for part in range(3)
        )
        query, value = query + layer.q_bias, value + layer.v_bias
        parts = []
        for head, factor in enumerate((math.exp(0.5), math.exp(1.0), 100.0)):
            own = slice(4 * head, 4 * head + 4)
            cosine = F.cosine_similarity(query[:, :, None, own], key[:, None, :, own], dim=3)
            parts.append((factor * cosine).softmax(2) @ value[:, :, own])
        expected = torch.cat(parts, dim=2) @ layer.proj.weight.T + layer.proj.bias
    # float32 rounding, multiplied by the attention scale of up to 100
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_every_weight_gets_a_gradient_from_a_fresh_model() -> None:
    for shared in (False, True):
        config = VARConfig(2, 16, 2, (1, 2, 3), 9, 32, 4, shared_adaln=shared)
        model = VARTransformer(config)
        logits = model(torch.tensor([1, 9]), torch.randn(2, 13, 4))
        logits.square().mean().backward()
        dead = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        ]
        assert dead == []


def test_fresh_model_starts_near_the_uniform_distribution() -> None:
    model = VARTransformer(VARConfig(4, 64, 4, (1, 2, 3), 9, 512, 16))
    with torch.no_grad():
        logits = model(torch.tensor([0, 1]), torch.randn(2, 13, 16))
    # cross entropy of uniform guessing is ln 512 = 6.24
    loss = F.cross_entropy(logits.flatten(0, 1), torch.arange(28))
    assert abs(loss.item() - math.log(512)) < 0.7


def test_sizes_that_make_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="got width 10, heads 3"):
        VARTransformer(VARConfig(1, 10, 3, (1, 2)))
    with pytest.raises(ValueError, match="patch_nums is empty"):
        VARTransformer(VARConfig(1, 8, 2, ()))
