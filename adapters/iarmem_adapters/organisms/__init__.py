"""Small models trained here on known pictures, so that what they memorized is known.

One folder a family: weights, sizes and curves as its training recorded them.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces.organism import Organism

from .split import Split

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent

Sizes = dict[str, Any]


def organism(family: str) -> Organism:
    """Return the truth about the training of a family's organism."""
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


def weight_files(family: str) -> tuple[Path, Path]:
    """Return the transformer's and the tokenizer's file of a family's organism."""
    return FOLDER / family / "transformer.safetensors", FOLDER / family / "tokenizer.safetensors"


def recorded_sizes(family: str) -> tuple[Sizes, Sizes]:
    """Return the transformer's and the tokenizer's sizes, by name, as the training recorded them.

    JSON has lists where the families have tuples; they are tuples again.
    """
    recipe = _training(family)["recipe"]
    transformer, tokenizer = (
        {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
        for sizes in (recipe["transformer"], recipe["tokenizer"])
    )
    return transformer, tokenizer


def load_classifier(family: str) -> nn.Module:
    """Return the class network whose features measure image quality, in float32."""
    from safetensors.torch import load_file

    from .classifier import PictureClassifier

    stored = load_file(FOLDER / family / "classifier.safetensors")
    state = {key: tensor.float() for key, tensor in stored.items()}
    network = PictureClassifier(len(state["head.bias"]))
    network.load_state_dict(state)
    return network.eval()


def _training(family: str) -> dict[str, Any]:
    training: dict[str, Any] = json.loads((FOLDER / family / "training.json").read_text())
    return training
