"""CPU time of RAR and its tokenizer against their bound, see `bound.py`.

Sizes are tiny unless --benchmark-enable: then those of RAR-B. Ratios are reported, not asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from iarmem_adapters.rar.generation import complete
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_plugin.interfaces import Sampling

STEPS = 64
RAR_B = RARConfig(24, 768, 16, 3072)
TINY = RARConfig(2, 32, 2, 64, num_tokens=16)
IMAGES = 4


@pytest.fixture
def full(benchmark: Any) -> bool:
    return not benchmark.disabled


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def one_pass(
    model: RARTransformer, bound: ModuleType, products: Any, images: int, new: int, seen: int
) -> list[Any]:
    """Return the calls of all layers for `new` elements an image, `seen` with those before."""
    config, rows = model.config, images * new
    mask = None if new == 1 else torch.full((seen, seen), -torch.inf).triu(1)
    channels = config.width // config.heads
    read = bound.attention(images, config.heads, channels, new, seen, mask)
    calls = []
    for block in model.blocks:
        layers = [block.adaLN_modulation[1], block.attn.qkv, block.attn.proj]
        calls += [*products.of([*layers, block.mlp.fc1, block.mlp.fc2], rows), read]
    return calls + products.of([model.adaln_before_head.adaLN_modulation[1], model.lm_head], rows)


@pytest.mark.parametrize("labels", ["distinct", "equal"])
def test_forward(
    labels: str, full: bool, bound: ModuleType, report_ratio: Callable[..., None]
) -> None:
    config = RAR_B if full else TINY
    model = RARTransformer(config).eval()
    classes = torch.arange(IMAGES) if labels == "distinct" else torch.full((IMAGES,), 7)
    tokens = torch.randint(config.vocab_size, (IMAGES, config.num_tokens))
    length = config.num_tokens + 2
    ways = bound.ways(lambda products: one_pass(model, bound, products, IMAGES, length, length))
    report_ratio(f"forward, batch {IMAGES}, {labels} labels", lambda: model(classes, tokens), ways)


@pytest.mark.parametrize("images", [1, 4])
def test_guided_generation(
    images: int, full: bool, bound: ModuleType, report_ratio: Callable[..., None]
) -> None:
    model = RARTransformer(replace(RAR_B, num_tokens=STEPS) if full else TINY).eval()
    nothing = torch.empty(images, 0, dtype=torch.int64)
    sampling = Sampling(guidance=4.0, guidance_power=1.0)

    def calls(products: Any) -> list[Any]:
        """All steps: the first has two elements, the others one, each image two rows."""
        steps = [(2, 2)] + [(1, element + 1) for element in range(2, model.config.num_tokens + 1)]
        made = [one_pass(model, bound, products, 2 * images, *step) for step in steps]
        return [call for step in made for call in step]

    def task() -> object:
        return complete(model, nothing, torch.arange(images), sampling)

    name = f"{model.config.num_tokens} guided steps, batch {images}"
    report_ratio(name, task, bound.ways(calls))


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_tokenizer(
    direction: str, full: bool, bound: ModuleType, report_ratio: Callable[..., None]
) -> None:
    images, side = (2, 256) if full else (1, 32)
    tokenizer = MaskGITVQGAN(MaskGITVQGANConfig() if full else MaskGITVQGANConfig(ch=8)).eval()
    pictures = torch.rand(images, 3, side, side)
    tokens = torch.randint(tokenizer.config.vocab_size, (images, (side // 16) ** 2))

    def task() -> object:
        return tokenizer.encode(pictures) if direction == "encode" else tokenizer.decode(tokens)

    compared = [tokens.numel()] if direction == "encode" else []
    others = bound.distances(tokenizer.quantize.embedding, compared)
    report_ratio(f"{direction}, batch {images}", task, bound.layouts(tokenizer, task, others))
