from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL_SCALES = (1, 2, 3, 4, 6, 8)


@pytest.fixture(scope="session")
def fill() -> ModuleType:
    """The module that gives every weight a value by formula."""
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot read {GOLDEN / 'fill.py'}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def standin() -> Callable[[str], ModuleType]:
    """Import the stand-ins for a family's official objects."""

    @cache
    def read(family: str) -> ModuleType:
        path = Path(__file__).parent / "standins" / f"{family}.py"
        spec = importlib.util.spec_from_file_location(f"standin_{family}", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot read {path}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return read


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Read one file of reference arrays by name."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays)

    return read


@pytest.fixture(scope="session")
def manifest() -> Callable[[str], dict[str, Any]]:
    """Read the published names and shapes of one network."""

    def read(name: str) -> dict[str, Any]:
        with gzip.open(GOLDEN / "manifests" / f"{name}.json.gz", "rt", encoding="utf-8") as file:
            return dict(json.load(file))

    return read


@pytest.fixture(scope="session")
def filled_var(fill: ModuleType) -> Callable[..., tuple[VARTransformer, MultiScaleVQVAE]]:
    """Make a transformer and its tokenizer, in eval mode, with weights from the formula."""

    def make(
        transformer: VARConfig, tokenizer: VQVAEConfig
    ) -> tuple[VARTransformer, MultiScaleVQVAE]:
        return (
            fill.fill_state_dict(VARTransformer(transformer).eval()),
            fill.fill_state_dict(MultiScaleVQVAE(tokenizer).eval()),
        )

    return make


@pytest.fixture(scope="session", params=["per block", "shared"])
def small_var(
    request: pytest.FixtureRequest, filled_var: Callable[..., Any]
) -> tuple[VARTransformer, MultiScaleVQVAE]:
    """A pair for 32-pixel images of nine classes; do not change it."""
    return filled_var(
        VARConfig(
            depth=3,
            width=64,
            heads=4,
            patch_nums=SMALL_SCALES,
            num_classes=9,
            vocab_size=512,
            code_width=16,
            shared_adaln=request.param == "shared",
        ),
        VQVAEConfig(
            SMALL_SCALES, ch=32, ch_mult=(1, 2, 2), res_blocks=1, vocab_size=512, code_width=16
        ),
    )


@pytest.fixture
def small_tokens(small_var: tuple[VARTransformer, MultiScaleVQVAE]) -> torch.Tensor:
    """Tokens of three random pictures."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(3, 3, 32, 32, generator=generator) * 2 - 1
    return small_var[1].encode(images)
