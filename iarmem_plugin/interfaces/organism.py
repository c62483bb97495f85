"""An organism: a small model trained on known pictures, so that its memory is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from iarmem_plugin.data.images import Images
    from iarmem_plugin.interfaces.evaluation import TunedSampling

Role = Literal["canary", "member", "generated", "held-out", "candidate"]
"""What is known of a group: whether its pictures were shown in training, and more than others."""


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
        hashes: SHA-256 of the files that hold its pictures, its split and its classifier.
        sampler: the sampling temperature with the least KID against the pictures for calibration,
            as `tune_sampling` found it, of a twin its organism's; None for the variant's own.
        classifier_saw: what the classifier has seen of the pictures of a role, as labels of quality
            values say it, such as ``"which no network has seen"``.
    """

    pictures: Images
    exposures: np.ndarray
    group: np.ndarray
    calibration: np.ndarray
    classifier: Callable[[], nn.Module]
    classifier_name: str
    training: Mapping[str, Any]
    hashes: Mapping[str, str] = field(default_factory=dict)
    sampler: TunedSampling | None = None
    classifier_saw: Mapping[Role, str] = field(default_factory=dict)

    def exposures_by_group(self) -> list[GroupExposures]:
        """Return of each group how many pictures it has, and how often they were shown; in order.

        Returns:
            a row a group, canaries first and held-out pictures last; pictures for calibration
            apart from those that are reported; and then, by exposures, those that may not serve
            as candidates.
        """
        groups = sorted(set(map(str, self.group)) - {""}, key=reading_order)
        purposes = {"": ~self.calibration, ", for calibration": self.calibration}
        rows = [
            _exposures(f"{name}{purpose}", self.exposures[(self.group == name) & chosen])
            for name in groups
            for purpose, chosen in purposes.items()
        ]
        nameless = self.exposures[self.group == ""]
        rows += [
            _exposures("no candidates", nameless[nameless == often])
            for often in sorted(set(nameless.tolist()), reverse=True)
        ]
        return [row for row in rows if row.pictures]


class GroupExposures(NamedTuple):
    """How often the pictures of a group were shown.

    Attributes:
        group: its name, and what it is for.
        pictures: how many there are.
        least: exposures of the one that was shown least.
        most: exposures of the one that was shown most.
    """

    group: str
    pictures: int
    least: int
    most: int


def role_of(group: str) -> Role:
    """Return the role of a group that is named as an organism's groups are.

    >>> [role_of(name) for name in ("canary 500", "member, distinct", "held-out", "ranked")]
    ['canary', 'member', 'held-out', 'candidate']
    """
    if group in ("held-out", "generated"):
        return "held-out" if group == "held-out" else "generated"
    if group.startswith("canary"):
        return "canary"
    return "member" if group.partition(",")[0] == "member" else "candidate"


def reading_order(group: str, role: str | None = None) -> tuple[int, int, str]:
    """Return what groups are sorted by: canaries by falling exposures, held-out pictures last.

    Args:
        group: name of the group; reports of earlier releases have canaries such as "canary x64".
        role: its role; by default the one that its name has in an organism.
    """
    role = role_of(group) if role is None else role
    often = re.search(r"[ x×](\d{1,12})$", group) if role == "canary" else None
    place = {"canary": 0, "generated": 2, "held-out": 3}.get(role, 1)
    return (place, -int(often[1]) if often else 0, group)


def _exposures(name: str, shown: np.ndarray) -> GroupExposures:
    if not len(shown):
        return GroupExposures(name, 0, 0, 0)
    return GroupExposures(name, len(shown), int(shown.min()), int(shown.max()))
