"""An organism: a small model trained on known pictures, so that its memory is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from iarmem_plugin.data.images import Images


@dataclass(frozen=True, slots=True)
class Organism:
    """The truth about one small model's training.

    Attributes:
        pictures: all pictures, members and held-out ones, with labels.
        repeats: int, one for each picture: how often it stood in the training set; 0 is held out.
        group: one name for each picture: ``"canary x64"`` down to ``"canary x1"``, ``"member"``
            or ``"held-out"``; ``""`` for pictures that may not serve as candidates.
        calibration: bool, one for each picture: held-out pictures on which the similarity
            threshold is fixed; they are not reported.
        classifier: loads the small class network whose features measure image quality.
        classifier_name: how labels of quality values call it, such as ``"emoji classifier"``.
        training: settings and curves of the training run, as stored with the weights.
    """

    pictures: Images
    repeats: np.ndarray
    group: np.ndarray
    calibration: np.ndarray
    classifier: Callable[[], nn.Module]
    classifier_name: str
    training: Mapping[str, Any]
