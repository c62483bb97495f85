"""Which pictures an organism and its twin were trained on, and how often: one split for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

NEAR_DUPLICATE = 0.8
"""Pixel correlation above which two pictures are near-duplicates, at 32 or at 24 pixels."""

ROUNDS = 20
"""How often a training goes through its pool; so often a picture that stands there once is seen."""

RUNGS: Mapping[int, int] = {2: 12, 8: 24, 12: 24, 17: 24, 21: 24, 25: 24, 34: 12, 68: 12}
"""How many canaries stand in the pool so often; `ROUNDS` times as often they are seen."""

CALIBRATION = HELD_OUT = 300
NEAR_DUPLICATES = 200

CANARY, SUBSTITUTE = "canary", "substitute"
DISTINCT, DUPLICATE = "member, distinct", "member, near-duplicate"
UNSEEN, CALIBRATING, ASIDE = "held-out", "calibration", "aside"


@dataclass(frozen=True, slots=True)
class Split:
    """One entry a picture.

    Attributes:
        part: what the picture is for: a canary (the organism is trained on it) or a substitute (the
            twin is, in a canary's place), a member of both trainings, distinct or with a
            near-duplicate in them, held out, for calibration, or aside: in no training of a
            transformer, but in those of tokenizer and classifier.
        repeats: int64, how often the picture stands in the pool of a training that has it; 0 where
            none has.
    """

    part: np.ndarray
    repeats: Int64[np.ndarray, " image"]

    def pool(self, *, twin: bool) -> Int64[np.ndarray, " image"]:
        """Return how often each picture stands in the organism's pool, or in its twin's."""
        other = CANARY if twin else SUBSTITUTE
        return np.where(self.part == other, 0, self.repeats)

    def exposures(self, *, twin: bool) -> Int64[np.ndarray, " image"]:
        """Return how often each picture was seen in the organism's training, or in its twin's."""
        return ROUNDS * self.pool(twin=twin)

    @property
    def group(self) -> np.ndarray:
        """Name of each picture's group, by exposures: ``canary 340``, ``member, distinct``, …."""
        names = self.part.astype(object)
        for index in np.flatnonzero(np.isin(self.part, (CANARY, SUBSTITUTE))):
            names[index] = f"{self.part[index]} {ROUNDS * self.repeats[index]}"
        return names

    @property
    def learns_tokenizer(self) -> Bool[np.ndarray, " image"]:
        """Which pictures the tokenizer is trained on: members, and those aside."""
        return np.isin(self.part, (DISTINCT, DUPLICATE, ASIDE))


def draw_split(
    alike: Bool[np.ndarray, "image image"], *, seed: int, canaries: Mapping[int, int] = RUNGS
) -> Split:
    """Draw what each picture is for.

    Canaries, substitutes and pictures held out are drawn among those without a near-duplicate;
    members, and pictures aside, are the others.

    Args:
        alike: which pairs are near-duplicates; no picture is its own.
        seed: seed for the draw.
        canaries: how many canaries stand in the pool so often.

    Returns:
        the split; of a canary and a substitute of one rung, nothing else differs.
    """
    alone = ~alike.any(axis=1)
    random = np.random.default_rng(seed)
    part = np.full(len(alike), ASIDE, dtype="U24")
    repeats = np.zeros(len(alike), np.int64)
    drawn = iter(random.permutation(np.flatnonzero(alone)))

    def take(count: int, name: str, times: int) -> None:
        chosen = [next(drawn) for _ in range(count)]
        part[chosen], repeats[chosen] = name, times

    take(CALIBRATION, CALIBRATING, 0)
    take(HELD_OUT, UNSEEN, 0)
    for times, count in canaries.items():
        take(count, CANARY, times)
        take(count, SUBSTITUTE, times)
    member = _members(alike, np.flatnonzero(~alone))
    lonely = np.logical_not(alike[:, member].any(axis=1))
    part[member] = np.where(lonely[member], DISTINCT, DUPLICATE)
    repeats[member] = 1
    return Split(part, repeats)


def _members(
    alike: Bool[np.ndarray, "image image"], among: Int64[np.ndarray, " some"]
) -> Int64[np.ndarray, " member"]:
    """Choose members: no two alike, and then near-duplicates of as few of these as can be."""
    first: list[int] = []
    for one in among:
        if not alike[one, first].any():
            first.append(int(one))
    others = np.setdiff1d(among, first)
    touched = alike[others][:, first]  # of which of the first each is a near-duplicate
    open_to = np.zeros(len(first), bool)
    chosen = np.zeros(len(others), bool)
    while chosen.sum() < NEAR_DUPLICATES and not chosen.all():
        lacking = touched & ~open_to
        single = (lacking.sum(axis=1) <= 1) & ~chosen
        gain = lacking[single].sum(axis=0)
        if not gain.any():  # all that are left have two or more
            gain = lacking[~chosen].sum(axis=0)
        open_to[gain.argmax()] = True
        chosen |= ~(touched & ~open_to).any(axis=1)
    extra = others[chosen][:NEAR_DUPLICATES]
    return np.sort(np.concatenate((np.asarray(first), extra)))
