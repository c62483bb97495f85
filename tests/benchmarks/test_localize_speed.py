"""localize against what it cannot do without, and capturing into a store against not writing.

Reported, not asserted: ``pytest tests/benchmarks/test_localize_speed.py --benchmark-enable -s``.
At the full size of VAR-d16 with weights made by a formula, one thread, CPU time, in turn within
each round. Goals: localize at most 1.15 of tokenizing and the plain forward; capture with the
writer at most 1.10 of capture with the writer stubbed out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.run import Run
from iarmem_plugin.activations.settings import CaptureOptions, CaptureSettings
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.dataloader import load_batches
from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.store import capture_into
from iarmem_plugin.store.writer import SlabThread

PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
D16 = (VARConfig(16, 1024, 16, PATCH_NUMS), VQVAEConfig(PATCH_NUMS))
TINY = (VARConfig(2, 32, 2, (1, 2), vocab_size=16), VQVAEConfig((1, 2), 8, (1, 1), 1, 16))


@torch.no_grad()
def fill(module: nn.Module) -> None:
    """Give matrices and kernels values of the usual size, by a formula."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            wave = torch.arange(parameter.numel(), dtype=torch.float32).mul_(12.9898).sin_()
            scale = (2 / parameter[0].numel()) ** 0.5
            parameter.copy_(wave.mul_(scale).view_as(parameter))


def make(config: tuple[VARConfig, VQVAEConfig]) -> VARAdapter:
    network, tokenizer = VARTransformer(config[0]).eval(), MultiScaleVQVAE(config[1]).eval()
    fill(network)
    fill(tokenizer)
    return VARAdapter.from_model(network, tokenizer)


def noise(count: int, side: int) -> tuple[Images, Views]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return Images.from_arrays(pixels, np.zeros(count, np.int64)), Views(crop=side, pad=1)


def plain(adapter: VARAdapter, images: Images, views: Views, count: int, batch: int) -> None:
    """Tokenize the same views, and run the network on them; nothing is read."""
    batches = [range(low, min(low + batch, len(images))) for low in range(0, len(images), batch)]
    with torch.no_grad():
        for one in load_batches(images, batches, views, views=count, seed=0):
            for view in one.pixels.unbind(1):
                inputs = adapter.teacher_forced(
                    adapter.tokenize(view / 255), Condition.of(one.labels)
                )
                adapter.network(*inputs.args, **inputs.kwargs)


def seconds(call: Callable[[], object]) -> np.ndarray:
    """Return CPU and wall time."""
    cpu, wall = time.process_time(), time.monotonic()
    call()
    return np.array([time.process_time() - cpu, time.monotonic() - wall])


def report(name: str, goal: float, ratios: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    for clock, column in zip(("CPU", "wall"), ratios.T, strict=True):
        low, middle, high = np.quantile(column, [0, 0.5, 1])
        with capsys.disabled():
            print(f"\n{name}, {clock}: {middle:.3f} ({low:.3f} to {high:.3f}), goal {goal}")


def test_localize_against_tokenizing_and_the_plain_forward(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    full = request.config.getoption("--benchmark-enable")
    adapter = make(D16 if full else TINY)
    images, views = noise(4 if full else 2, 256 if full else 4)
    reference = partial(plain, adapter, images, views, 2, 2)

    def subject() -> None:
        model = ImageARModel(adapter)
        options = CaptureOptions(views=2, batch_size=2, augmentation=views)
        localize(model, images, options=options)
        model.unwrap()

    reference()  # first calls are slow
    rounds = range(3 if full else 1)
    ratios = np.array([1 / seconds(reference) * seconds(subject) for _ in rounds])
    if full:
        report("localize / tokenizing and plain forward", 1.15, ratios, capsys)


def test_capture_into_a_store_against_the_writer_stubbed_out(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    full = request.config.getoption("--benchmark-enable")
    model = ImageARModel(make(D16 if full else TINY))
    images, views = noise(4 if full else 2, 256 if full else 4)
    run = partial(capture, model, views=2, batch_size=2, augmentation=views)
    written = SlabThread.put

    def subject(number: int, put: Callable[..., None]) -> None:
        monkeypatch.setattr(SlabThread, "put", put)
        settings = CaptureSettings("var", model.layout, images, slab=2)
        capture_into(tmp_path / f"{number}.zarr", Run(images, run, slab=2), settings)

    def nothing(self: SlabThread, slab: int, activations: np.ndarray) -> None:
        return None

    subject(-1, nothing)  # first calls are slow
    ratios = np.array(
        [
            1
            / seconds(partial(subject, 2 * one, nothing))
            * seconds(partial(subject, 2 * one + 1, written))
            for one in range(3 if full else 1)
        ]
    )
    if full:
        report("capture with the writer / without", 1.10, ratios, capsys)
