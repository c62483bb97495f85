"""A short run of the script that made the bundled organism reaches a stated quality."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "examples" / "train_organism.py"


@pytest.fixture(scope="module")
def script() -> Iterator[SimpleNamespace]:
    sys.path.insert(0, str(SCRIPT.parent))  # as a script has it
    yield SimpleNamespace(**runpy.run_path(str(SCRIPT), run_name="train_organism"))
    sys.path.remove(str(SCRIPT.parent))


# The last PSNR in dB and the last loss that a short run must reach. Untrained: about 10 dB and
# ln 1024 = 6.93. The bounds leave room for rounding on other machines.
REACHED = {"var": (12.0, 4.6), "rar": (12.5, 3.5)}


def trained(script: SimpleNamespace, family: str, pictures: int, **steps: int) -> Any:
    with np.load(script.PICTURES, allow_pickle=False) as data:
        images, labels = data["images"][:pictures], data["labels"][:pictures]
    recipe = replace(script.RECIPES[script.Family(family)], **steps)
    return script.train(images, labels, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["var", "rar"])
def test_a_short_training_learns(script: SimpleNamespace, family: str) -> None:
    steps = {"tokenizer_steps": 30, "transformer_steps": 30, "classifier_steps": 60}
    curves = trained(script, family, 700, **steps).training["curves"]
    decibels, loss = REACHED[family]
    assert curves["tokenizer"][-1]["psnr"] > decibels
    assert curves["transformer"][-1]["loss"] < loss
    assert curves["classifier"][-1]["loss"] < 1.0  # untrained: ln 9 = 2.20


@pytest.mark.slow
def test_what_is_trained_is_saved_whole(script: SimpleNamespace, tmp_path: Path) -> None:
    steps = {"tokenizer_steps": 5, "transformer_steps": 5, "classifier_steps": 20}
    done = trained(script, "rar", 700, **steps)
    curves = done.training["curves"]
    assert curves["tokenizer"][-1]["psnr"] > curves["tokenizer"][0]["psnr"]
    assert curves["transformer"][-1]["loss"] < curves["transformer"][0]["loss"]
    assert curves["classifier"][-1]["loss"] < curves["classifier"][0]["loss"]
    script.save(done, tmp_path)
    for name in ("tokenizer", "transformer", "classifier"):
        weights = load_file(tmp_path / f"{name}.safetensors")
        assert weights.keys() == getattr(done, name).state_dict().keys()
    split = np.load(tmp_path / "split.npz")
    assert int((split["repeats"] == 0).sum()) == 300
    assert int(split["canary"].sum()) == 84
