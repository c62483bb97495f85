"""Loading by name: what cannot be loaded is refused before anything expensive."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from iarmem_plugin import load
from iarmem_plugin.errors import InputError, UnknownNameError


def test_an_unknown_model_lists_the_models() -> None:
    with pytest.raises(UnknownNameError, match=r"^no model named 'x'; installed: .*var-organism"):
        load("x")


def test_a_weight_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*nothing\.pth"):
        load("var-organism", weights=tmp_path / "nothing.pth")


@pytest.mark.parametrize("dtype", ["int8", torch.float16])
def test_a_precision_that_no_model_has_is_refused(dtype: Any) -> None:
    unchecked = inspect.unwrap(load)  # the gate's type checker would refuse it first
    with pytest.raises(InputError, match="give one of float32, float16, bfloat16, in quotes"):
        unchecked("var-organism", dtype=dtype)


def test_a_device_that_torch_does_not_have_is_named() -> None:
    with pytest.raises(InputError, match="cannot use device 'warp'"):
        load("var-organism", device="warp")
