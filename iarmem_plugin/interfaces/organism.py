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
        repeats: how often each picture stood in the training set, int; 0 is held out.
        group: name of each picture's group: ``"canary x64"`` down to ``"canary x1"``, ``"member"``
            or ``"held-out"``; ``""`` for pictures that may not serve as candidates.
        calibration: which pictures are those held out to fix the similarity threshold, bool;
            they are not reported.
        classifier: function that loads the small class network whose features measure image
            quality.
        classifier_name: name of that network in the labels of quality values, such as
            ``"emoji classifier"``.
        training: settings and curves of the training run, as stored with the weights.
    """

    pictures: Images
    repeats: np.ndarray
    group: np.ndarray
    calibration: np.ndarray
    classifier: Callable[[], nn.Module]
    classifier_name: str
    training: Mapping[str, Any]
