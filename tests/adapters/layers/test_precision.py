"""Half precision, as the whole model's or by autocast, against float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from iarmem_adapters.layers.precision import full_float32
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var.attention import SelfAttention
from iarmem_adapters.var.generation import complete
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE
from iarmem_adapters.var.transformer import VARTransformer
from iarmem_plugin.interfaces import Sampling

Pair = tuple[VARTransformer, MultiScaleVQVAE]
LABELS = torch.tensor([0, 4, 8])
# Spacing of numbers near 1, of which three blocks leave a multiple: the largest of all errors,
# in units of the logits' spread, was measured as 38 of them for VAR and 8 for RAR.
SPACING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
HALVES = pytest.mark.parametrize("dtype", list(SPACING), ids=["bf16", "f16"])


@pytest.fixture(scope="module")
def rar(fill: ModuleType) -> RARTransformer:
    config = RARConfig(3, 32, 4, 48, num_tokens=16, vocab_size=64, num_classes=9)
    return fill.fill_state_dict(RARTransformer(config).eval())


def check(
    network: torch.nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype, *, spacings: int
) -> None:
    """Compare the logits of both ways of half precision with those of float32."""
    with torch.no_grad():
        expected = network(*inputs)
        whole = copy.deepcopy(network).to(dtype)(*inputs)
        with torch.autocast("cpu", dtype=dtype):
            cast = network(*inputs)
    allowed = spacings * SPACING[dtype] * expected.std()
    for actual in (whole, cast):
        assert actual.dtype == torch.float32
        assert 0 < (actual - expected).abs().max() < allowed


@HALVES
def test_var_stays_near_float32(dtype: torch.dtype, small_var: Pair, small_tokens: Tensor) -> None:
    x_in = small_var[1].teacher_input(small_tokens)
    check(small_var[0], (LABELS, x_in), dtype, spacings=80)


@HALVES
def test_rar_stays_near_float32(dtype: torch.dtype, rar: RARTransformer) -> None:
    tokens = torch.randint(64, (3, 16), generator=torch.Generator().manual_seed(0))
    check(rar, (LABELS, tokens), dtype, spacings=20)


@HALVES
def test_attention_scales_are_computed_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(64, 1), torch.randn(1, 1, 64)
    scales: list[float] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def note(query: Tensor, *args: Any, **named: Any) -> Tensor:
        scales.append(float(query.float().norm()))
        return attend(query, *args, **named)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", note)
        layer.scale_mul_1H11.fill_(4.5)  # exact in either precision
        layer.to(dtype)(x.to(dtype))
    # exp(4.5) = 90.017; each of 64 channels is rounded by half a spacing at most
    assert scales == [pytest.approx(90.017, rel=SPACING[dtype] / 2)]


@HALVES
def test_autocast_changes_nothing_that_vars_tokenizer_does(
    dtype: torch.dtype, small_var: Pair, small_tokens: Tensor
) -> None:
    tokenizer = small_var[1]
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    same_under_autocast(dtype, lambda: tokenizer.encode(images))
    same_under_autocast(dtype, lambda: tokenizer.decode(small_tokens))
    same_under_autocast(dtype, lambda: tokenizer.teacher_input(small_tokens))


@HALVES
def test_autocast_changes_nothing_that_rars_tokenizer_does(
    dtype: torch.dtype, fill: ModuleType
) -> None:
    config = MaskGITVQGANConfig(
        ch=32, ch_mult=(1, 2, 2), res_blocks=1, vocab_size=64, code_width=16
    )
    tokenizer = fill.fill_state_dict(MaskGITVQGAN(config).eval())
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    same_under_autocast(dtype, lambda: tokenizer.encode(images))
    same_under_autocast(dtype, lambda: tokenizer.decode(tokenizer.encode(images)))


def same_under_autocast(dtype: torch.dtype, call: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        expected = call()
        with torch.autocast("cpu", dtype=dtype):
            actual = call()
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)


@HALVES
def test_var_completes_under_autocast(
    dtype: torch.dtype, small_var: Pair, small_tokens: Tensor
) -> None:
    with torch.autocast("cpu", dtype=dtype):
        tokens = complete(*small_var, small_tokens[:, :5], LABELS, Sampling(guidance=2.0))
    assert tokens.shape == small_tokens.shape


def tf32() -> list[object]:
    backends = torch.backends
    return [backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32]


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda', but CUDA is not")
@pytest.mark.parametrize("products", [True, False])
def test_a_gpu_rounds_to_tf32_as_before_when_tokens_are_made(products: bool) -> None:
    """Convolutions and products are in full float32 for the while, exception or not."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, products
    try:
        with pytest.raises(ZeroDivisionError), full_float32(torch.device("cuda")):
            assert tf32() == [False, False]
            raise ZeroDivisionError
        assert tf32() == [True, products]
    finally:
        matmul.allow_tf32 = before
