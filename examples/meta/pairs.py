"""One seed's organism and twin, and the pictures that both are measured on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from iarmem_adapters.organisms import FOLDER
from iarmem_adapters.organisms.split import CALIBRATING, CANARY, UNSEEN, Split
from iarmem_plugin import Candidates, ImageARModel, load
from iarmem_plugin.data.images import Images

Side = Literal["organism", "twin"]
SIDES: tuple[Side, Side] = ("organism", "twin")
FILES = {"organism": "transformer", "twin": "twin"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many pictures, views and steps a model is measured with.

    Attributes:
        fixing: pictures for calibration that fix thresholds and temperatures.
        held_out: reported held-out pictures.
        views: augmented views of each captured picture.
        steps: relearning steps.
        batch_size: pictures of a relearning step.
        sets: random sets beside the selectors.
        fractions: of neurons that random sets are read between, rising.
    """

    fixing: int = 150
    held_out: int = 100
    views: int = 10
    steps: int = 60
    batch_size: int = 32
    sets: int = 5
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class Pictures:
    """What organism and twin of one seed are measured on.

    Attributes:
        canaries: of the organism, named by exposures; the twin has seen none.
        fixing: for calibration: thresholds and temperatures.
        reference: for calibration, too, others: what neurons are contrasted with; as many as there
            are canaries.
        held_out: never seen, and none of the others.
        retained: members that are no canaries, of both trainings.
    """

    canaries: Candidates
    fixing: Candidates
    reference: Images
    held_out: Candidates
    retained: Images

    @classmethod
    def of(cls, split: Split, sizes: Sizes) -> Pictures:
        """Draw them, evenly spaced."""
        pictures, group = Images.from_npz(FOLDER / "pictures.npz"), split.group.astype(str)
        canaries, known = (np.flatnonzero(split.part == one) for one in (CANARY, CALIBRATING))
        fixing = _spread(known, sizes.fixing)
        reference = _spread(np.setdiff1d(known, fixing), len(canaries))
        unseen = _spread(np.flatnonzero(split.part == UNSEEN), sizes.held_out)
        members = np.flatnonzero(np.char.startswith(group, "member"))

        def candidates(rows: np.ndarray) -> Candidates:
            return Candidates(pictures.subset(rows), group[rows])

        return cls(
            *(candidates(canaries), candidates(fixing), pictures.subset(reference)),
            *(candidates(unseen), pictures.subset(members)),
        )


class Pair:
    """A folder with the transformers of one seed, as ``train_organism.py --small`` leaves it.

    Args:
        family: ``"var"`` or ``"rar"``.
        folder: the folder.
    """

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder

    @property
    def trained(self) -> bool:
        """Tell whether both trainings are done."""
        return all((self.folder / f"{FILES[side]}.json").exists() for side in SIDES)

    @property
    def split(self) -> Split:
        """Return which pictures are for what."""
        return Split.load(self.folder / "split.npz")

    def model(self, side: Side) -> ImageARModel:
        """Load the organism or its twin, on the bundled tokenizer."""
        return load(f"{self.family}-organism", self.folder / f"{FILES[side]}.safetensors")

    def made_from(self, *sides: Side) -> dict[str, Any]:
        """Return what tells these weights, and the pictures' split, from others."""
        split = self.split
        parts = hashlib.sha256("\n".join(split.part.tolist()).encode() + split.repeats.tobytes())
        weights = {
            side: json.loads((self.folder / f"{FILES[side]}.json").read_text())["sha256"]
            for side in sides
        }
        return {"weights_sha256": weights, "split_sha256": parts.hexdigest()}


def _spread(positions: np.ndarray, count: int) -> np.ndarray:
    places = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)
    chosen: np.ndarray = positions[places]
    return chosen
