"""Small models trained here on known pictures, so that what they memorized is known.

One folder a family: weights of organism, twin, tokenizer and classifier, and beside each the sizes
and the curve that its training recorded; ``sampler.json`` is what `tune_sampling` found.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces import TunedSampling
from iarmem_plugin.interfaces.organism import Organism

from .split import CALIBRATING, Split

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent

Sizes = dict[str, Any]


def organism(family: str, *, twin: bool = False) -> Organism:
    """Return the truth about the training of a family's organism, or of its twin."""
    split = Split.load(FOLDER / "split.npz")
    return Organism(
        pictures=Images.from_npz(FOLDER / "pictures.npz"),
        exposures=split.exposures(twin=twin),
        group=split.group,
        calibration=split.part == CALIBRATING,
        classifier=partial(load_classifier, family),
        classifier_name="emoji classifier",
        training={part: _record(family, part) for part in _parts(twin=twin)},
        hashes={
            "pictures_sha256": _digest(FOLDER / "pictures.npz"),
            "split_sha256": _digest(FOLDER / "split.npz"),
            "classifier_sha256": _digest(_file(family, "classifier", "safetensors")),
        },
        sampler=TunedSampling.of(_record(family, "sampler")),
        classifier_saw={
            "held-out": "which no network has seen",
            "member": "near-duplicates of which the classifier has seen",
        },
    )


def weight_files(family: str, *, twin: bool = False) -> tuple[Path, Path]:
    """Return the transformer's and the tokenizer's file of a family's organism, or its twin."""
    transformer, tokenizer, _ = _parts(twin=twin)
    return _file(family, transformer, "safetensors"), _file(family, tokenizer, "safetensors")


def recorded_sizes(family: str) -> tuple[Sizes, Sizes]:
    """Return the transformer's and the tokenizer's sizes, by name, as the training recorded them.

    JSON has lists where the families have tuples; they are tuples again.
    """
    transformer, tokenizer = (
        {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
        for sizes in (_record(family, part)["network"] for part in ("transformer", "tokenizer"))
    )
    return transformer, tokenizer


def load_classifier(family: str) -> nn.Module:
    """Return the class network whose features measure image quality, in float32."""
    from safetensors.torch import load_file

    from .classifier import PictureClassifier

    stored = load_file(_file(family, "classifier", "safetensors"))
    state = {key: tensor.float() for key, tensor in stored.items()}
    network = PictureClassifier(len(state["head.bias"]))
    network.load_state_dict(state)
    return network.eval()


def _parts(*, twin: bool) -> tuple[str, str, str]:
    return "twin" if twin else "transformer", "tokenizer", "classifier"


def _record(family: str, part: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(_file(family, part, "json").read_text())
    return record


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _file(family: str, part: str, ending: str) -> Path:
    return FOLDER / family / f"{part}.{ending}"
