"""Which pictures an organism was trained on, and how often: canaries, members, held-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HELD_OUT_COUNT = 300
CANARY_REPEATS = (1, 2, 4, 8, 16, 32, 64)
CANARIES_PER_RUNG = 12
NEAR_DUPLICATE = 0.9


@dataclass(frozen=True, slots=True)
class Split:
    """One entry a picture.

    Attributes:
        repeats: int64, how often the picture stands in the training set; 0 is held out.
        canary: bool, whether it is a canary.
        calibration: bool, held-out pictures on which the similarity threshold is fixed.
    """

    repeats: np.ndarray
    canary: np.ndarray
    calibration: np.ndarray

    @property
    def group(self) -> np.ndarray:
        """Name of each picture's group: ``canary x64``, ``member`` or ``held-out``."""
        names = np.where(self.repeats > 0, "member", "held-out").astype(object)
        for index in np.flatnonzero(self.canary):
            names[index] = f"canary x{self.repeats[index]}"
        return names


def distinct(pictures: np.ndarray) -> np.ndarray:
    """Tell which pictures have no near-duplicate.

    Args:
        pictures: uint8 (image, height, width, 3).

    Returns:
        bool (image): no other picture has a pixel correlation above 0.9 with this one.
    """
    rows = pictures.reshape(len(pictures), -1).astype(np.float64)
    rows -= rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    correlation = rows @ rows.T
    np.fill_diagonal(correlation, -1)
    alone: np.ndarray = correlation.max(1) <= NEAR_DUPLICATE
    return alone


def draw_split(pictures: np.ndarray, *, seed: int) -> Split:
    """Draw held-out pictures and canaries among the distinct ones; the rest are members.

    Args:
        pictures: uint8 (image, height, width, 3).
        seed: seed for the draw.
    """
    random = np.random.default_rng(seed)
    drawn = random.permutation(np.flatnonzero(distinct(pictures)))
    held_out, drawn = drawn[:HELD_OUT_COUNT], drawn[HELD_OUT_COUNT:]
    repeats = np.ones(len(pictures), np.int64)
    canary = np.zeros(len(pictures), bool)
    calibration = np.zeros(len(pictures), bool)
    repeats[held_out] = 0
    calibration[held_out[: HELD_OUT_COUNT // 2]] = True
    for rung, times in enumerate(CANARY_REPEATS):
        chosen = drawn[rung * CANARIES_PER_RUNG : (rung + 1) * CANARIES_PER_RUNG]
        repeats[chosen], canary[chosen] = times, True
    return Split(repeats, canary, calibration)
