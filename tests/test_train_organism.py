"""A short run of the script that made the bundled organism reaches a stated quality."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "examples" / "train_organism.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_organism", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_organism"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_short_training_learns_and_is_saved_whole(script: ModuleType, tmp_path: Path) -> None:
    with np.load(script.PICTURES, allow_pickle=False) as data:
        images, labels = data["images"][:700], data["labels"][:700]
    recipe = replace(
        script.Recipe(), tokenizer_steps=40, transformer_steps=40, classifier_steps=100
    )
    trained = script.train(images, labels, recipe)
    curves = trained.training["curves"]
    # Untrained: about 10 dB, ln 1024 = 6.93 and ln 9 = 2.20. The bounds leave room for rounding
    # on other machines; one run gave 12.69 dB, 4.09 and 0.60.
    assert curves["tokenizer"][-1]["psnr"] > 12.0
    assert curves["transformer"][-1]["loss"] < 4.6
    assert curves["classifier"][-1]["loss"] < 1.0
    script.save(trained, tmp_path)
    weights = load_file(tmp_path / "transformer.safetensors")
    assert weights.keys() == trained.transformer.state_dict().keys()
    split = np.load(tmp_path / "split.npz")
    assert int((split["repeats"] == 0).sum()) == 300
    assert int(split["canary"].sum()) == 84
