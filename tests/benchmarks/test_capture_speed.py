"""Capture against the same forward, and a wrapped model against an unwrapped one.

Reported, not asserted: ``pytest tests/benchmarks/test_capture_speed.py --benchmark-enable -s``.
At the full size of VAR-d16, batch 4, one thread, CPU time, in turn within each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.interfaces import Condition, ForwardInputs
from iarmem_plugin.models.tracing import ImageARModel

D16 = VARConfig(16, 1024, 16, (1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
TINY = VARConfig(2, 64, 2, (1, 2, 3, 4), vocab_size=64)


def make(config: VARConfig) -> tuple[VARAdapter, ForwardInputs]:
    network = VARTransformer(config).eval()
    sizes = VQVAEConfig(config.patch_nums, 8, (1, 1), 1, config.vocab_size)  # never run here
    adapter = VARAdapter.from_model(network, MultiScaleVQVAE(sizes).eval())
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(config.vocab_size, (4, config.tokens), generator=random)
    with torch.no_grad():
        return adapter, adapter.teacher_forced(tokens, Condition.of(torch.arange(4)))


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    with torch.no_grad():
        call()
    return time.process_time() - start


def one_round(adapter: VARAdapter, inputs: ForwardInputs) -> tuple[float, float, float]:
    plain = seconds(lambda: adapter.network(*inputs.args))
    model = ImageARModel(adapter)
    untraced = seconds(lambda: adapter.network(*inputs.args))
    captured = seconds(lambda: model.read_neurons(inputs))
    model.unwrap()
    return plain, untraced, captured


def test_capture_costs_no_more_than_the_forward(request: pytest.FixtureRequest) -> None:
    full = request.config.getoption("--benchmark-enable")
    adapter, inputs = make(D16 if full else TINY)
    one_round(adapter, inputs)  # first calls are slow
    times = np.array([one_round(adapter, inputs) for _ in range(15 if full else 1)])
    for name, column in (("wrapped, untraced", 1), ("capture", 2)):
        low, middle, high = np.quantile(times[:, column] / times[:, 0], [0.25, 0.5, 0.75])
        print(f"\n{name} / plain forward: {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
    assert (times > 0).all()
