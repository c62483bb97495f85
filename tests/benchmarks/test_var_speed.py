"""CPU time of VAR and its tokenizer against their bound.

The bound is the same shapes through matrix products, convolutions and attention calls alone,
operands ready, in the faster of two ways. Sizes are tiny unless --benchmark-enable: then those
of VAR-d16. Ratios are reported, never asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.var.generation import complete
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.interfaces import Sampling

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
Call = Callable[[], Tensor]


@dataclass
class Sizes:
    transformer: VARConfig
    tokenizer: VQVAEConfig
    forward_images: int
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


@dataclass
class Operands:
    """Weights ready for one way of multiplying: for `linear`, or transposed for `mm`."""

    way: str
    every_token: list[Tensor]
    every_image: list[Tensor]

    def products(self, weights: list[Tensor], rows: int) -> list[Call]:
        if self.way == "linear":
            inputs = {w.shape[1]: torch.randn(rows, w.shape[1]) for w in weights}
            return [partial(F.linear, inputs[w.shape[1]], w) for w in weights]
        inputs = {w.shape[0]: torch.randn(rows, w.shape[0]) for w in weights}
        return [partial(torch.mm, inputs[w.shape[0]], w) for w in weights]


def operands(way: str, model: VARTransformer) -> Operands:
    every_token, every_image = [model.word_embed.weight], [model.head_nm.ada_lin[1].weight]
    for block in model.blocks:
        every_token += [block.attn.mat_qkv.weight, block.attn.proj.weight]
        every_token += [block.ffn.fc1.weight, block.ffn.fc2.weight]
        every_image.append(block.ada_lin[1].weight)
    every_token.append(model.head.weight)
    if way == "mm":
        every_token = [weight.T.contiguous() for weight in every_token]
        every_image = [weight.T.contiguous() for weight in every_image]
    return Operands(way, every_token, every_image)


def attention(images: int, heads: int, queries: int, keys: int) -> Call:
    query = torch.randn(images, heads, queries, 64)
    key, value = (torch.randn(images, heads, keys, 64) for _ in range(2))
    return lambda: F.scaled_dot_product_attention(query, key, value, scale=1.0)


def one_pass(
    ready: Operands, config: VARConfig, images: int, scales: range, *, first: bool
) -> list[Call]:
    """Return the bound's calls for some scales at once; attention goes scale by scale.

    What depends on the class alone is due at the first pass only.
    """
    sizes = [SCALES[scale] ** 2 for scale in scales]
    keys = [config.ends[scale] for scale in scales]
    heads = config.heads
    reads = [attention(images, heads, *pair) for pair in zip(sizes, keys, strict=True)]
    return [
        *ready.products(ready.every_token, images * sum(sizes)),
        *(ready.products(ready.every_image, images) if first else []),
        *reads * config.depth,
    ]


def convolutions(network: nn.Module, task: Callable[[], object], *, last: bool) -> list[Call]:
    """Return the convolutions and the attention that `task` makes inside `network`."""
    layout = torch.channels_last if last else torch.contiguous_format
    calls: list[Call] = []

    def note(module: nn.Conv2d, inputs: tuple[Tensor], _output: Tensor) -> None:
        x = torch.randn(inputs[0].shape).contiguous(memory_format=layout)
        weight = module.weight.detach().contiguous(memory_format=layout)
        calls.append(
            lambda: F.conv2d(x, weight, module.bias, module.stride, module.padding)  # type: ignore[arg-type]  # of Conv2d
        )
        if x.shape[1] * 3 == weight.shape[0]:  # the qkv of an attention block
            parts = torch.randn(3, x.shape[0], 1, x.shape[2] * x.shape[3], x.shape[1])
            calls.append(lambda: F.scaled_dot_product_attention(*parts))

    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(note) for module in found]
    task()
    for hook in hooks:
        hook.remove()
    return calls


def run_all(calls: list[Call]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run


def distances(config: VQVAEConfig, images: int) -> list[Call]:
    codes = torch.randn(config.code_width, config.vocab_size)
    rows = (torch.randn(images * side * side, config.code_width) for side in config.patch_nums)
    return [partial(torch.mm, x, codes) for x in rows]


def test_forward(sizes: Sizes, report_ratio: Callable[..., None]) -> None:
    config, images = sizes.transformer, sizes.forward_images
    model = VARTransformer(config).eval()
    labels, x_in = torch.arange(images), torch.randn(images, config.tokens - 1, 32)
    every = range(len(SCALES))
    ways = {
        way: run_all(one_pass(operands(way, model), config, images, every, first=True))
        for way in ("mm", "linear")
    }
    report_ratio(f"forward, batch {images}", lambda: model(labels, x_in), ways)


def test_guided_generation(sizes: Sizes, report_ratio: Callable[..., None]) -> None:
    config, images = sizes.transformer, sizes.other_images
    model = VARTransformer(config).eval()
    tokenizer = MultiScaleVQVAE(sizes.tokenizer).eval()
    nothing = torch.empty(images, 0, dtype=torch.int64)
    labels = torch.arange(images)

    def task() -> Tensor:
        return complete(model, tokenizer, nothing, labels, Sampling(guidance=1.5))

    smoothing = convolutions(tokenizer.quantize, task, last=False)
    ways = {}
    for way in ("mm", "linear"):
        ready = operands(way, model)
        passes = [
            call
            for scale in range(len(SCALES))
            for call in one_pass(
                ready, config, 2 * images, range(scale, scale + 1), first=scale == 0
            )
        ]
        ways[way] = run_all(passes + smoothing)
    report_ratio(f"guided generation, batch {images}", task, ways)


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_tokenizer(direction: str, sizes: Sizes, report_ratio: Callable[..., None]) -> None:
    tokenizer, images = MultiScaleVQVAE(sizes.tokenizer).eval(), sizes.other_images
    side = sizes.tokenizer.image_side
    pictures = torch.rand(images, 3, side, side) * 2 - 1
    tokens = torch.randint(sizes.tokenizer.vocab_size, (images, sizes.transformer.tokens))

    def task() -> Tensor:
        return tokenizer.encode(pictures) if direction == "encode" else tokenizer.decode(tokens)

    ways = {}
    for name, last in (("contiguous", False), ("channels last", True)):
        calls = convolutions(tokenizer, task, last=last)
        if direction == "encode":
            calls += distances(sizes.tokenizer, images)
        ways[name] = run_all(calls)
    report_ratio(f"{direction}, batch {images}", task, ways)
