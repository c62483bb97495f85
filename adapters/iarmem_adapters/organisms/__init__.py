"""Small models trained here on known pictures, so that what they memorized is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iarmem_plugin.images import Images
from iarmem_plugin.organism import Organism

from .split import Split

if TYPE_CHECKING:
    from torch import nn

    from iarmem_adapters.var.tokenizer import VQVAEConfig
    from iarmem_adapters.var.transformer import VARConfig

VAR_ORGANISM = "var-organism"
FOLDER = Path(__file__).parent


def var_organism() -> Organism:
    """Return the truth about the VAR organism's training."""
    with np.load(FOLDER / "split.npz", allow_pickle=False) as data:
        split = Split(data["repeats"], data["canary"], data["calibration"])
    return Organism(
        pictures=Images.from_npz(FOLDER / "pictures.npz"),
        repeats=split.repeats,
        group=split.group,
        calibration=split.calibration,
        classifier=load_classifier,
        classifier_name="emoji classifier",
        training=json.loads((FOLDER / "training.json").read_text()),
    )


def weight_files() -> tuple[Path, Path]:
    """Return the VAR organism's transformer and tokenizer files."""
    return FOLDER / "transformer.safetensors", FOLDER / "tokenizer.safetensors"


def var_configs() -> tuple[VARConfig, VQVAEConfig]:
    """Return the VAR organism's sizes, as its training recorded them."""
    from iarmem_adapters.var.tokenizer import VQVAEConfig
    from iarmem_adapters.var.transformer import VARConfig

    recipe = json.loads((FOLDER / "training.json").read_text())["recipe"]
    transformer, tokenizer = recipe["transformer"], recipe["tokenizer"]
    transformer["patch_nums"] = tuple(transformer["patch_nums"])
    for key in ("patch_nums", "ch_mult"):
        tokenizer[key] = tuple(tokenizer[key])
    return VARConfig(**transformer), VQVAEConfig(**tokenizer)


def load_classifier() -> nn.Module:
    """Return the class network whose features measure image quality, in float32."""
    from safetensors.torch import load_file

    from .classifier import PictureClassifier

    state = {k: v.float() for k, v in load_file(FOLDER / "classifier.safetensors").items()}
    network = PictureClassifier(len(state["head.bias"]))
    network.load_state_dict(state)
    return network.eval()
