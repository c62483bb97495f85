"""Batch sizes and threads change no token that was chosen by a clear gap."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from iarmem_adapters.rar.adapter import RARAdapter
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import load
from iarmem_plugin.evaluation.determinism import compare_choices, top_gaps
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.tracing import ImageARModel

IMAGES = 33  # the last batch of 32 has one image, that of 3 three


def make_var() -> VARAdapter:
    torch.manual_seed(0)
    scales = (1, 2, 4)
    network = VARTransformer(VARConfig(3, 32, 2, scales, 5, vocab_size=16, code_width=4))
    tokenizer = MultiScaleVQVAE(
        VQVAEConfig(scales, ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=16, code_width=4)
    )
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.normal_()
        for block in network.blocks:
            block.ffn.fc1.bias.normal_(std=0.1)
    return VARAdapter.from_model(network.eval(), tokenizer.eval())


def make_rar() -> RARAdapter:
    torch.manual_seed(0)
    network = RARTransformer(RARConfig(2, 32, 2, 40, 16, vocab_size=32, num_classes=5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)  # as built, all gates are zero
    config = MaskGITVQGANConfig(32, (1, 1), 1, vocab_size=32, code_width=8)
    return RARAdapter.from_model(network.eval(), MaskGITVQGAN(config).eval())


MODELS = {
    "tiny VAR": lambda: ImageARModel(make_var()),
    "tiny RAR": lambda: ImageARModel(make_rar()),
    "VAR organism": lambda: load("var-organism"),
    "RAR organism": lambda: load("rar-organism"),
}


SLOW = pytest.mark.slow  # minutes where two threads share a core with others

every_batching = pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        *((name, size, 1) for name in ("tiny VAR", "tiny RAR") for size in (1, 3)),
        *((name, 32, 2) for name in ("tiny VAR", "tiny RAR")),
        ("VAR organism", 3, 1),
        pytest.param("RAR organism", 3, 1, marks=SLOW),
        *(pytest.param(name, 3, 2, marks=SLOW) for name in MODELS),
        *(
            pytest.param(name, size, 2, marks=SLOW)
            for name in ("VAR organism", "RAR organism")
            for size in (1, 32)
        ),
    ],
)


@pytest.fixture
def model(name: str) -> ImageARModel:
    return loaded(name)


@cache
def loaded(name: str) -> ImageARModel:
    return MODELS[name]()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pixels(model: ImageARModel) -> Tensor:
    side = model.adapter.variant.resolution
    return torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))


def in_batches(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def completed(model: ImageARModel, tokens: Tensor, labels: Tensor, size: int) -> Tensor:
    prefix = tokens[:, : 5 if model.layout.family == "var" else 3]
    with model.borrowed():
        parts = [
            model.complete(some, Condition.of(own), Sampling())
            for some, own in in_batches(size, prefix, labels)
        ]
    return torch.cat(parts)


def clear(first: Tensor, second: Tensor, gaps: Tensor) -> None:
    """Assert that no token differs before or at a flip by a clear gap; report the others."""
    tokens, near, flips, clear_flips = compare_choices(first, second, gaps, 0)
    assert clear_flips == 0
    assert tokens > 0.5 * first.numel()  # the comparison is about something
    print(f"{tokens} tokens, {near} near ties, {flips} flips")


@every_batching
def test_completions_are_the_same_in_any_batches_and_threads(
    model: ImageARModel, threads: None, size: int, count: int
) -> None:
    torch.set_num_threads(1)
    tokens = model.tokenize(pixels(model))
    labels = torch.arange(IMAGES) % 2
    expected = completed(model, tokens, labels, IMAGES)
    with model.borrowed():
        gaps = top_gaps(model.logits(expected, Condition.of(labels))[:, : expected.shape[1]])
    torch.set_num_threads(count)
    clear(expected, completed(model, tokens, labels, size), gaps)


def distance_gaps(codes: Tensor, rows: Tensor) -> Tensor:
    """By how much the second nearest code is farther than the nearest, in float64."""
    best = torch.cdist(rows.double(), codes.double()).topk(2, dim=1, largest=False).values
    return best[:, 1] - best[:, 0]


def read_with_gaps(model: ImageARModel, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Tokens of all images, and the gap of distances by which each was chosen."""
    quantizer = model.adapter.tokenizer.quantize
    name = "nearest" if model.layout.family == "var" else "forward"
    gaps: list[Tensor] = []
    plain = getattr(quantizer, name)

    def watched(features: Tensor) -> Tensor:
        rows = features.movedim(1, 3).flatten(0, 2)
        gaps.append(distance_gaps(quantizer.embedding.weight, rows).view(len(features), -1))
        return plain(features)

    with monkeypatch.context() as patch, model.borrowed():
        patch.setattr(quantizer, name, watched)
        tokens = model.tokenize(pixels(model))
    return tokens, torch.cat(gaps, dim=1)


@every_batching
def test_images_are_read_the_same_in_any_batches_and_threads(
    model: ImageARModel,
    threads: None,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    count: int,
) -> None:
    torch.set_num_threads(1)
    expected, gaps = read_with_gaps(model, monkeypatch)
    assert gaps.shape == expected.shape
    torch.set_num_threads(count)
    with model.borrowed():
        again = torch.cat([model.tokenize(one) for one in pixels(model).split(size)])
    clear(expected, again, gaps)
