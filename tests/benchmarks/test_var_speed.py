"""CPU time of VAR and its tokenizer against their bound, see `bound.py`.

Sizes are tiny unless --benchmark-enable: then those of VAR-d16. Ratios are reported, not asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

from iarmem_adapters.var.generation import complete
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.interfaces import Sampling

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


@dataclass
class Sizes:
    transformer: VARConfig
    tokenizer: VQVAEConfig
    transformer_images: int
    other_images: int


@pytest.fixture
def sizes(benchmark: Any) -> Sizes:
    if benchmark.disabled:
        return Sizes(VARConfig(2, 32, 2, SCALES), VQVAEConfig(SCALES, ch=8), 1, 1)
    return Sizes(VARConfig(16, 1024, 16, SCALES), VQVAEConfig(SCALES), 4, 2)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def one_pass(
    model: VARTransformer, bound: ModuleType, products: Any, images: int, tokens: int, read: Any
) -> list[Any]:
    """Return the calls of all layers for `tokens` an image; `read` is a block's attention."""
    calls = products.of([model.word_embed], images * tokens)
    for block in model.blocks:
        layers = [block.attn.mat_qkv, block.attn.proj, block.ffn.fc1, block.ffn.fc2]
        calls += [*products.of([block.ada_lin[1]], images), *products.of(layers, images * tokens)]
        calls.append(read)
    calls += products.of([model.head_nm.ada_lin[1]], images)
    return [*calls, *products.of([model.head], images * tokens)]


def test_forward(sizes: Sizes, bound: ModuleType, report_ratio: Callable[..., None]) -> None:
    config, images = sizes.transformer, sizes.transformer_images
    model = VARTransformer(config).eval()
    labels, x_in = torch.arange(images), torch.randn(images, config.tokens - 1, 32)
    mask = model.attn_bias_for_masking
    read = bound.attention(images, config.heads, 64, config.tokens, config.tokens, mask)
    ways = bound.ways(lambda way: one_pass(model, bound, way, images, config.tokens, read))
    report_ratio(f"forward, batch {images}", lambda: model(labels, x_in), ways)


def test_guided_generation(
    sizes: Sizes, bound: ModuleType, report_ratio: Callable[..., None]
) -> None:
    config, images = sizes.transformer, sizes.transformer_images
    model = VARTransformer(config).eval()
    tokenizer = MultiScaleVQVAE(sizes.tokenizer).eval()
    nothing = torch.empty(images, 0, dtype=torch.int64)

    def task() -> object:
        labels = torch.arange(images)
        return complete(model, tokenizer, nothing, labels, Sampling(guidance=1.5))

    smoothing = bound.convolutions(tokenizer.quantize, task, last=False)

    def calls(products: Any) -> list[Any]:
        """All scales, each image two rows."""
        made = list(smoothing)
        for side, end in zip(SCALES, config.ends, strict=True):
            read = bound.attention(2 * images, config.heads, 64, side * side, end)
            made += one_pass(model, bound, products, 2 * images, side * side, read)
        return made

    report_ratio(f"guided generation, batch {images}", task, bound.ways(calls))


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_tokenizer(
    direction: str, sizes: Sizes, bound: ModuleType, report_ratio: Callable[..., None]
) -> None:
    tokenizer, images = MultiScaleVQVAE(sizes.tokenizer).eval(), sizes.other_images
    side = sizes.tokenizer.image_side
    pictures = torch.rand(images, 3, side, side) * 2 - 1
    tokens = torch.randint(sizes.tokenizer.vocab_size, (images, sizes.transformer.tokens))

    def task() -> object:
        return tokenizer.encode(pictures) if direction == "encode" else tokenizer.decode(tokens)

    compared = [images * place**2 for place in SCALES] if direction == "encode" else []
    others = bound.distances(tokenizer.quantize.embedding, compared)
    report_ratio(f"{direction}, batch {images}", task, bound.layouts(tokenizer, task, others))
