"""Which pictures an organism and its twin were trained on, and how often: one split for all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int64

from iarmem_adapters.organisms.split import (
    ASIDE,
    CALIBRATING,
    CANARY,
    DISTINCT,
    DUPLICATE,
    SIMILAR,
    SUBSTITUTE,
    UNSEEN,
    UNUSED,
    Split,
)

NEAR_DUPLICATE = 0.8
"""Pixel correlation above which two pictures are near-duplicates, at 32 or at 24 pixels."""

ROUNDS = 20
"""How often a training goes through its pool; so often a picture that stands there once is seen."""

RUNGS: Mapping[int, int] = {2: 12, 17: 24, 21: 24, 25: 24, 34: 12, 68: 12}
"""How many canaries stand in the pool so often; `ROUNDS` times as often they are seen."""

SMALL_ROUNDS = 10
"""Rounds of the trainings for studies of many seeds: members are seen half as often."""

SMALL: Mapping[int, int] = {4: 4, 34: 6, 42: 6, 50: 6, 136: 3}
"""How many canaries stand in their pools so often: one in three or four, seen as often."""

CALIBRATION = HELD_OUT = 300
ALONE = 96
"""Members that have no near-duplicate anywhere, as canaries and held-out pictures have none."""
NEAR_DUPLICATES = 200


def draw_split(
    alike: Bool[np.ndarray, "image image"], *, seed: int, canaries: Mapping[int, int] = RUNGS
) -> Split:
    """Draw what each picture is for.

    Canaries, substitutes, distinct members and pictures held out are drawn among those without a
    near-duplicate. The other members, and pictures aside, are what is left: of those with
    near-duplicates a greedy set of which no two are alike, and others that resemble them.

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
    take(ALONE, DISTINCT, 1)
    member = _members(alike, np.flatnonzero(~alone))
    lonely = np.logical_not(alike[:, member].any(axis=1))
    part[member] = np.where(lonely[member], SIMILAR, DUPLICATE)
    repeats[member] = 1
    return Split(part, repeats, ROUNDS)


def redraw_canaries(split: Split, *, seed: int) -> Split:
    """Draw `SMALL` canaries and substitutes, among those of a split; all else stays as it is.

    Args:
        split: the split whose tokenizer is shared.
        seed: seed for the draw.

    Returns:
        the split, of `SMALL_ROUNDS` rounds; canaries and substitutes that were not drawn again are
        in no training.
    """
    part, repeats = split.part.copy(), split.repeats.copy()
    open_to = np.flatnonzero(np.isin(part, (CANARY, SUBSTITUTE)))
    part[open_to], repeats[open_to] = UNUSED, 0
    drawn = iter(np.random.default_rng(seed).permutation(open_to))
    for times, count in SMALL.items():
        for name in (CANARY, SUBSTITUTE):
            chosen = [next(drawn) for _ in range(count)]
            part[chosen], repeats[chosen] = name, times
    return Split(part, repeats, SMALL_ROUNDS)


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
