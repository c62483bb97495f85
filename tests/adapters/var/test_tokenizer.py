from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iarmem_adapters.var.quantizer import phi_table
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARTransformer

Pair = tuple[VARTransformer, MultiScaleVQVAE]


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        (1, (0,)),
        # 0, 0.2, 0.4, 0.6, 0.8, 1 to the nearest of 0.083, 0.361, 0.639, 0.917
        (6, (0, 0, 1, 2, 3, 3)),
        # published; scales 2 and 7 are ties that float64 rounding decides
        (10, (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)),
        (14, (0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3)),
    ],
)
def test_phi_convolution_of_each_scale(scales: int, expected: tuple[int, ...]) -> None:
    assert expected == phi_table(scales)


def test_tokens_are_the_nearest_codes_of_the_residual(small_var: Pair) -> None:
    quantizer = small_var[1].quantize
    features = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    rest, chosen = features.double(), []
    phi = quantizer.quant_resi.qresi_ls
    with torch.no_grad():
        for scale, side in enumerate(quantizer.patch_nums):
            means = torch.nn.functional.adaptive_avg_pool2d(rest, side)
            rows = means.permute(0, 2, 3, 1).reshape(-1, 16)
            nearest = torch.cdist(rows, quantizer.embedding.weight.double()).argmin(1)
            chosen.append(nearest.view(2, -1))
            codes = quantizer.embedding(nearest).view(2, side, side, 16).permute(0, 3, 1, 2)
            if side < 8:
                codes = torch.nn.functional.interpolate(codes, size=8, mode="bicubic")
            conv = phi[phi_table(6)[scale]]
            rest = rest - 0.5 * (codes + conv(codes)).double()
    assert torch.equal(torch.cat(chosen, dim=1), quantizer(features))


def test_walking_the_scales_by_hand_gives_the_same_tokens(small_var: Pair) -> None:
    quantizer = small_var[1].quantize
    features = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    fhat, chosen = quantizer.empty(2), []
    with torch.no_grad():
        for scale in range(6):
            chosen.append(quantizer.nearest(quantizer.coarsen(features - fhat, scale)))
            fhat = quantizer.accumulate(fhat, quantizer.embed(chosen[-1], scale), scale)
        *_, last = quantizer.accumulated(torch.cat(chosen, dim=1))
    assert torch.equal(torch.cat(chosen, dim=1), quantizer(features))
    assert torch.equal(last, fhat)


def test_accumulate_leaves_its_argument_alone(small_var: Pair) -> None:
    quantizer = small_var[1].quantize
    fhat = quantizer.empty(1)
    with torch.no_grad():
        added = quantizer.accumulate(fhat, quantizer.embed(torch.tensor([[3]]), 0), 0)
    assert added.any()
    assert not fhat.any()


def test_equal_distances_go_to_the_lowest_code() -> None:
    tokenizer = MultiScaleVQVAE(VQVAEConfig((1,), ch=8, ch_mult=(1,), vocab_size=4, code_width=2))
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.copy_(
            torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        )
    assert tokenizer.quantize.nearest(torch.zeros(1, 2, 1, 1)).tolist() == [[1]]


def test_decoded_images_keep_to_their_range_and_features_can_be_left_unlimited(
    small_var: Pair, small_tokens: Tensor
) -> None:
    tokenizer = small_var[1]
    with torch.no_grad():
        *_, fhat = tokenizer.quantize.accumulated(small_tokens)
        images = tokenizer.decode(small_tokens)
        unlimited = tokenizer.decode_features(10 * fhat, clamp=False)
        limited = tokenizer.decode_features(10 * fhat)
    assert images.shape == (3, 3, 32, 32)
    assert images.abs().max() <= 1 < unlimited.abs().max()
    assert torch.equal(unlimited.clamp(-1, 1), limited)


def test_gradients_reach_encoder_decoder_phi_and_codes() -> None:
    config = VQVAEConfig((1, 2, 3, 4), ch=32, ch_mult=(1, 2, 2), res_blocks=1, vocab_size=16)
    tokenizer = MultiScaleVQVAE(config)
    features = tokenizer.features(torch.randn(2, 3, 16, 16))
    *_, fhat = tokenizer.quantize.accumulated(tokenizer.quantize(features))
    straight_through = features + (fhat - features).detach()
    loss = tokenizer.decode_features(straight_through, clamp=False).square().mean()
    (loss + (fhat - features).square().mean()).backward()
    dead = [
        name
        for name, parameter in tokenizer.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert dead == []


def test_teacher_input_of_two_scales_is_worked_by_hand() -> None:
    config = VQVAEConfig((1, 2), ch=8, ch_mult=(1,), vocab_size=3, code_width=1)
    tokenizer = MultiScaleVQVAE(config)
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.copy_(torch.tensor([[1.0], [2.0], [4.0]]))
        for conv in tokenizer.quantize.quant_resi.qresi_ls:
            conv.weight.zero_()
            conv.bias.fill_(10)
        x_in = tokenizer.teacher_input(torch.tensor([[2, 0, 0, 0, 0]]))
    # 4 everywhere, half of it kept, plus half of the convolution's 10
    assert x_in.tolist() == [[[7.0]] * 4]


def test_images_of_another_size_are_refused(small_var: Pair) -> None:
    with pytest.raises(ValueError, match="images of 16x32 pixels, expected 32x32"):
        small_var[1].encode(torch.zeros(1, 3, 16, 32))


def test_too_few_tokens_are_refused(small_var: Pair, small_tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="got 129 tokens an image, expected 130"):
        small_var[1].decode(small_tokens[:, 1:])
    with pytest.raises(ValueError, match="got 129 tokens an image, expected 130"):
        small_var[1].teacher_input(small_tokens[:, 1:])


def test_nothing_follows_the_last_scale(small_var: Pair) -> None:
    quantizer = small_var[1].quantize
    with pytest.raises(IndexError, match="no scale follows scale 5 of 6"):
        quantizer.next_input(quantizer.empty(1), 5)
