"""A short run of the script that made the bundled organism reaches a stated quality."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "examples" / "train_organism.py"


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT), run_name="train_organism"))


# The last PSNR in dB and the last loss that a short run must reach. Untrained: about 10 dB and
# ln 1024 = 6.93. The bounds leave room for rounding on other machines.
REACHED = {"var": (12.0, 4.6), "rar": (12.5, 3.5)}


@pytest.mark.parametrize("family", ["var", pytest.param("rar", marks=pytest.mark.slow)])
def test_a_short_training_learns_and_is_saved_whole(
    script: SimpleNamespace, tmp_path: Path, family: str
) -> None:
    with np.load(script.PICTURES, allow_pickle=False) as data:
        images, labels = data["images"][:530], data["labels"][:530]
    recipe = script.RECIPES[script.Family(family)]
    recipe = replace(recipe, tokenizer_steps=30, transformer_steps=30, classifier_steps=60)
    trained = script.train(images, labels, recipe)
    curves = trained.training["curves"]
    decibels, loss = REACHED[family]
    assert curves["tokenizer"][-1]["psnr"] > decibels
    assert curves["transformer"][-1]["loss"] < loss
    assert curves["classifier"][-1]["loss"] < 1.0  # untrained: ln 9 = 2.20
    script.save(trained, tmp_path)
    weights = load_file(tmp_path / "transformer.safetensors")
    assert weights.keys() == trained.transformer.state_dict().keys()
    split = np.load(tmp_path / "split.npz")
    assert int((split["repeats"] == 0).sum()) == 300
    assert int(split["canary"].sum()) == 84
