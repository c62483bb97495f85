"""Loading by name: what cannot be loaded is refused before anything expensive."""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from iarmem_plugin import load, plugins, wrap
from iarmem_plugin.errors import InputError, UnknownNameError
from iarmem_plugin.models.loading import check_device
from iarmem_plugin.testing.tiny import TinyAdapter


def test_an_unknown_model_lists_the_models() -> None:
    with pytest.raises(UnknownNameError, match=r"^no model named 'x'; installed: .*var-organism"):
        load("x")


def test_a_weight_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*nothing\.pth"):
        load("var-d16", weights=tmp_path / "nothing.pth")


@pytest.mark.parametrize("dtype", ["int8", torch.float16])
def test_a_precision_that_no_model_has_is_refused(dtype: Any) -> None:
    unchecked = inspect.unwrap(load)  # the gate's type checker would refuse it first
    with pytest.raises(InputError, match="give one of float32, float16, bfloat16, in quotes"):
        unchecked("var-organism", dtype=dtype)


@pytest.mark.parametrize(
    "device", ["warp", "", "cuda:x", "meta", "hpu", "vulkan", "privateuseone", "w" * 600]
)
def test_a_device_that_torch_does_not_have_is_named_in_one_plain_line(device: str) -> None:
    with pytest.raises(InputError, match=r"^cannot use device '.*; try 'cpu'$") as refused:
        load("var-organism", device=device)
    assert len(str(refused.value)) < 200


def test_a_backend_that_torch_was_built_without_takes_no_screen_to_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def empty(*_: object, **__: object) -> None:
        raise NotImplementedError(f"Could not run 'aten::empty' from the 'MPS' backend {'x' * 999}")

    monkeypatch.setattr(torch, "empty", empty)  # as a build for the CPU alone does
    with pytest.raises(InputError) as refused:
        check_device("mps")
    expected = "cannot use device 'mps': torch was built without mps, or has none here; try 'cpu'"
    assert str(refused.value) == expected


def test_a_gpu_that_is_not_there_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="'cuda:2': there are 2 GPUs, counted from 0"):
        check_device("cuda:2")


class DrawingAdapter(TinyAdapter):
    """Draws from every generator, as libraries do that are imported on the way."""

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> TinyAdapter:
        random.random(), np.random.random(), torch.rand(3)
        return super().from_model(model, tokenizer)

    @classmethod
    def load(cls, variant: str, **given: Any) -> TinyAdapter:
        random.random(), np.random.random(), torch.rand(3)
        return super().load(variant, **given)


@pytest.mark.parametrize("call", ["wrap", "load"])
def test_every_random_generator_stays_as_it_was(
    adapter: TinyAdapter, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(plugins, "recognising", lambda network: DrawingAdapter)
    monkeypatch.setattr(plugins, "families", lambda: {"tiny": DrawingAdapter})
    monkeypatch.setattr("iarmem_plugin.models.loading.check_files", lambda *_: {})
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    model = wrap(adapter.network, adapter.tokenizer) if call == "wrap" else load("tiny")
    after = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    assert after == before
    model.unwrap()
