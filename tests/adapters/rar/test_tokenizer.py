from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_adapters.rar.autoencoder import ResidualBlock
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig


@pytest.fixture(scope="module")
def small(fill: ModuleType) -> MaskGITVQGAN:
    """A tokenizer whose tokens stand for 4 pixels each way; do not change it."""
    config = MaskGITVQGANConfig(
        ch=32, ch_mult=(1, 2, 2), res_blocks=1, vocab_size=64, code_width=16
    )
    return fill.fill_state_dict(MaskGITVQGAN(config).eval())


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_tokens_are_the_nearest_codes_in_raster_order(small: MaskGITVQGAN, images: Tensor) -> None:
    with torch.no_grad():
        features = small.features(images)
        tokens = small.encode(images)
    codes = small.quantize.embedding.weight.double()
    assert tokens.shape == (3, 64)
    for row in range(8):
        for column in range(8):
            distance = torch.cdist(features[:, :, row, column].double(), codes)
            assert tokens[:, 8 * row + column].tolist() == distance.argmin(1).tolist()


def test_equal_distances_go_to_the_lowest_code() -> None:
    tokenizer = MaskGITVQGAN(
        MaskGITVQGANConfig(ch=8, ch_mult=(1,), res_blocks=1, vocab_size=4, code_width=2)
    )
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.copy_(
            torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        )
    assert tokenizer.quantize(torch.zeros(1, 2, 1, 1)).tolist() == [[1]]


def test_tokens_of_an_image_do_not_depend_on_the_others(
    small: MaskGITVQGAN, images: Tensor
) -> None:
    alone = [small.encode(images[i : i + 1]) for i in range(3)]
    assert torch.equal(torch.cat(alone), small.encode(images))


def test_decoded_images_keep_to_their_range_and_features_can_be_left_unlimited(
    small: MaskGITVQGAN, images: Tensor
) -> None:
    tokens = small.encode(images)
    with torch.no_grad():
        codes = small.quantize.embed(tokens)
        decoded = small.decode(tokens)
        unlimited = small.decode_features(codes, clamp=False)
    assert decoded.shape == (3, 3, 32, 32)
    assert 0 <= decoded.min() < decoded.max() <= 1 < unlimited.max()
    assert torch.equal(unlimited.clamp(0, 1), decoded)


def test_shortcut_of_a_block_that_changes_the_width_starts_from_the_convolved_map() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 8)
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        hidden = F.conv2d(F.silu(F.group_norm(x, 4, eps=1e-6)), block.conv1.weight, padding=1)
        hidden = F.conv2d(F.silu(F.group_norm(hidden, 8, eps=1e-6)), block.conv2.weight, padding=1)
        mixed = torch.einsum("oc,bchw->bohw", block.nin_shortcut.weight[:, :, 0, 0], hidden)
        # float32 rounding of sums in another order
        torch.testing.assert_close(block(x), hidden + mixed, rtol=0, atol=1e-5)


def test_gradients_reach_encoder_decoder_and_codes() -> None:
    config = MaskGITVQGANConfig(ch=32, ch_mult=(1, 2, 2), res_blocks=1, vocab_size=16)
    tokenizer = MaskGITVQGAN(config)
    features = tokenizer.features(torch.rand(2, 3, 16, 16))
    codes = tokenizer.quantize.embed(tokenizer.quantize(features))
    straight_through = features + (codes - features).detach()
    loss = tokenizer.decode_features(straight_through, clamp=False).square().mean()
    (loss + (codes - features).square().mean()).backward()
    dead = [
        name
        for name, parameter in tokenizer.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert dead == []


def test_images_that_do_not_divide_into_tokens_are_refused(small: MaskGITVQGAN) -> None:
    with pytest.raises(ValueError, match="images of 16x30 pixels, expected multiples of 4"):
        small.encode(torch.zeros(1, 3, 16, 30))


def test_tokens_that_fill_no_square_are_refused(small: MaskGITVQGAN) -> None:
    with pytest.raises(ValueError, match="got 63 tokens an image, expected a square number"):
        small.decode(torch.zeros(1, 63, dtype=torch.int64))
