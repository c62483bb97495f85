"""Several hypotheses at once: Holm's correction, and how many so many random sets can bear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.errors import InputError


def smallest_p(sets: int) -> float:
    """Return the smallest p that so many random sets can give: 1 / (sets + 1)."""
    _check(sets=sets)
    return 1 / (sets + 1)


def sets_needed(tests: int, alpha: float = 0.05) -> int:
    """Return how many random sets a family needs for its first test to be kept.

    Returns:
        ceil(tests / alpha) - 1, which at α = 0.05 is 20 tests - 1.

    >>> [sets_needed(tests) for tests in (1, 5)]
    [19, 99]
    """
    _check(alpha, tests=tests)
    return math.ceil(tests / Fraction(str(alpha))) - 1


def most_tests(sets: int, alpha: float = 0.05) -> int:
    """Return how many tests a family can have at so many random sets.

    >>> [most_tests(sets) for sets in (5, 19, 99)]
    [0, 1, 5]
    """
    return most_as_good(sets, alpha) + 1


def most_as_good(sets: int, alpha: float = 0.05, tests: int = 1) -> int:
    """Return how many of the sets may be as good as an arm for p ≤ α / tests; -1: not even none.

    >>> most_as_good(99)
    4
    """
    _check(alpha, sets=sets, tests=tests)
    return math.floor(Fraction(str(alpha)) / tests * (sets + 1)) - 1


def holm(
    p_values: Sequence[float] | np.ndarray,
) -> Float64[np.ndarray, " test"]:
    """Adjust the p-values of one family, so that any at most α holds with all others.

    Args:
        p_values: each in [0, 1].

    Returns:
        in the same order: of m sorted ones, the greatest of (m - i) p_i, i from 0, so far, at
        most 1.

    Raises:
        InputError: without p-values, or with others.

    Reference:
        Holm 1979.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not given.size or not ((given >= 0) & (given <= 1)).all():
        raise InputError(f"p-values are {given.tolist()}; expected at least one, each in [0, 1]")
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(given.size, 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


@dataclass(frozen=True, slots=True)
class HolmLimit:
    """Whether a declared family of hypotheses can be tested with so many random sets.

    Attributes:
        tests: hypotheses in the family, at least 1.
        sets: random sets, R, at least 1.
        alpha: level of the family, in (0, 1).
    """

    tests: int
    sets: int
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Refuse counts below 1 and an impossible level."""
        _check(self.alpha, tests=self.tests, sets=self.sets)

    @property
    def possible(self) -> bool:
        """Return whether the first hypothesis can be kept."""
        return self.tests <= most_tests(self.sets, self.alpha)

    def __str__(self) -> str:
        """Return the limit as a sentence."""
        one = self.tests == 1
        family = "one hypothesis needs" if one else f"a family of {self.tests} hypotheses needs"
        first = "" if one else " for the first to be kept (Holm)"
        asked = f"{family} p ≤ {self.alpha / self.tests:.4g}{first}"
        given = f"{self.sets} random sets give p = 1/{self.sets + 1} at best"
        if self.possible:
            return f"{asked}; {given}."
        needed, most = sets_needed(self.tests, self.alpha), most_tests(self.sets, self.alpha)
        return f"{asked}; {given}: none can be kept. R = {needed} or more sets are needed" + (
            f", or {most} of them at most." if most else "."
        )


def _check(alpha: float = 0.5, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is {count}; expected 1 or more")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; expected a level in (0, 1), such as 0.05")
