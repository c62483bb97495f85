"""Small models trained here on known pictures, so that what they memorized is known."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.organism import Organism

from .split import Split

if TYPE_CHECKING:
    from torch import nn

    from iarmem_adapters.rar.tokenizer import MaskGITVQGANConfig
    from iarmem_adapters.rar.transformer import RARConfig
    from iarmem_adapters.var.tokenizer import VQVAEConfig
    from iarmem_adapters.var.transformer import VARConfig

VAR_ORGANISM = "var-organism"
RAR_ORGANISM = "rar-organism"
FOLDER = Path(__file__).parent


def var_organism() -> Organism:
    """Return the truth about the VAR organism's training."""
    return _organism("var")


def rar_organism() -> Organism:
    """Return the truth about the RAR organism's training."""
    return _organism("rar")


def weight_files(family: str) -> tuple[Path, Path]:
    """Return the transformer and tokenizer files of the organism of a family."""
    return FOLDER / family / "transformer.safetensors", FOLDER / family / "tokenizer.safetensors"


def var_configs() -> tuple[VARConfig, VQVAEConfig]:
    """Return the VAR organism's sizes, as its training recorded them."""
    from iarmem_adapters.var.tokenizer import VQVAEConfig
    from iarmem_adapters.var.transformer import VARConfig

    transformer, tokenizer = _sizes("var")
    return VARConfig(**transformer), VQVAEConfig(**tokenizer)


def rar_configs() -> tuple[RARConfig, MaskGITVQGANConfig]:
    """Return the RAR organism's sizes, as its training recorded them."""
    from iarmem_adapters.rar.tokenizer import MaskGITVQGANConfig
    from iarmem_adapters.rar.transformer import RARConfig

    transformer, tokenizer = _sizes("rar")
    return RARConfig(**transformer), MaskGITVQGANConfig(**tokenizer)


def load_classifier(family: str) -> nn.Module:
    """Return the class network whose features measure image quality, in float32."""
    from safetensors.torch import load_file

    from .classifier import PictureClassifier

    stored = load_file(FOLDER / family / "classifier.safetensors")
    state = {key: tensor.float() for key, tensor in stored.items()}
    network = PictureClassifier(len(state["head.bias"]))
    network.load_state_dict(state)
    return network.eval()


def _organism(family: str) -> Organism:
    with np.load(FOLDER / "split.npz", allow_pickle=False) as data:
        split = Split(data["repeats"], data["canary"], data["calibration"])
    return Organism(
        pictures=Images.from_npz(FOLDER / "pictures.npz"),
        repeats=split.repeats,
        group=split.group,
        calibration=split.calibration,
        classifier=partial(load_classifier, family),
        classifier_name="emoji classifier",
        training=_training(family),
    )


def _training(family: str) -> dict[str, Any]:
    training: dict[str, Any] = json.loads((FOLDER / family / "training.json").read_text())
    return training


def _sizes(family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the transformer's and the tokenizer's sizes; JSON has lists where they have tuples."""
    recipe = _training(family)["recipe"]
    transformer, tokenizer = (
        {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
        for sizes in (recipe["transformer"], recipe["tokenizer"])
    )
    return transformer, tokenizer
