"""An organism: a small model trained on known pictures, so that its memory is known."""

from __future__ import annotations

import re
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
        pictures: all pictures, with labels.
        exposures: how often each picture was shown in the training, int.
        group: name of each picture's group: ``"canary 1360"`` down to ``"canary 40"``, by
            exposures, ``"member, distinct"``, ``"member, similar"``, ``"member, near-duplicate"``
            or ``"held-out"``; ``""`` for pictures that may not serve as candidates. A twin's groups
            are those of its organism, whose canaries it never saw.
        calibration: which of the held-out pictures are for fixing the similarity threshold, bool;
            they are not reported.
        classifier: function that loads the small class network whose features measure image
            quality.
        classifier_name: name of that network in the labels of quality values, such as
            ``"emoji classifier"``.
        training: settings and curve of each network's training, as stored with the weights.
    """

    pictures: Images
    exposures: np.ndarray
    group: np.ndarray
    calibration: np.ndarray
    classifier: Callable[[], nn.Module]
    classifier_name: str
    training: Mapping[str, Any]

    def exposures_by_group(self) -> dict[str, dict[str, int]]:
        """Return of each group how many pictures it has, and how often they were shown; in order.

        Returns:
            ``pictures``, and the ``least`` and the ``most`` exposures of one, by group: canaries
            first, and last those that may not serve as candidates, as ``"others"``.
        """
        names = sorted(set(self.group.tolist()), key=_reading_order)
        shown = {name or "others": self.exposures[self.group == name] for name in names}
        return {
            name: {"pictures": len(each), "least": int(each.min()), "most": int(each.max())}
            for name, each in shown.items()
        }


def _reading_order(group: str) -> tuple[bool, int, str]:
    often = re.search(r" (\d+)$", group)
    return not group, -int(often[1]) if often else 0, group
