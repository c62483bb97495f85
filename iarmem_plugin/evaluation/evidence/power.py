"""Power before the run: the smallest difference that so many candidates and sets can show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.families import most_as_good

SHARE = 0.5  # greatest standard deviation of a yes or no


def rank_power(
    difference: float, sets: int, *, alpha: float = 0.05, tests: int = 1, unreached: int = 0
) -> float:
    """Return how often the rank among random sets shows a difference.

    The arm's mean outcome and those of R sets are taken as independent normal draws of one spread,
    the arm's moved by the difference: as if the arm were one more random set that is so much
    better. Given the arm's draw z, Binomial(R, Φ(z - difference)) sets are as good; the power is
    the mean over z of the chance that these are few enough for p ≤ α.

    Args:
        difference: how much better the arm is, in standard deviations between random sets.
        sets: R, at least 1.
        alpha: level of the family, in (0, 1).
        tests: hypotheses in the family; the first to be kept is tested at α / tests (Holm).
        unreached: how many of the R curves do not reach the arm's ΔNLL; they are as good.

    Returns:
        in [0, 1]; without a difference floor(α (R + 1)) / (R + 1); 0 where p ≤ α cannot be.
    """
    from scipy.integrate import trapezoid
    from scipy.stats import binom, norm

    allowed = most_as_good(sets, alpha, tests) - unreached
    if allowed < 0:
        return 0.0
    z = np.linspace(-9, 9, 1801)
    few = binom.cdf(allowed, sets - unreached, norm.cdf(z - difference))
    return float(trapezoid(norm.pdf(z) * few, z))


def paired_power(
    difference: float, candidates: int, *, deviation: float = SHARE, alpha: float = 0.05
) -> float:
    """Return how often a paired, one-sided test over candidates shows a mean difference.

    It is that of the t test on independent normal differences, to which the permutation test comes
    close from about 20 candidates on. It takes the random sets as given: see `paired_p`.

    Args:
        difference: mean over candidates, arm against controls, in the direction that is tested.
        candidates: at least 2.
        deviation: standard deviation of a candidate's difference, above 0. That of a yes or no
            against its own expected share is at most 0.5.
        alpha: level of the test, in (0, 1).

    Returns:
        in [0, 1].
    """
    from scipy.stats import nct, t

    critical = t.ppf(1 - alpha, candidates - 1)
    return float(nct.sf(critical, candidates - 1, difference * math.sqrt(candidates) / deviation))


@dataclass(frozen=True, slots=True)
class SmallestDifference:
    """What a comparison can show before it is run.

    Attributes:
        candidates: number of tested candidates.
        sets: random sets, R.
        alpha: level, divided by the number of `tests` in the family.
        tests: hypotheses in the family.
        power: chance to show the differences below.
        ranked: smallest difference of the rank test, in standard deviations between random sets
            (`rank_power`); infinite where p ≤ α cannot be.
        spread: that standard deviation, in the outcome's unit, where it is known.
        paired: smallest mean difference of the paired test, in the outcome's unit
            (`paired_power`).
        deviation: standard deviation of a candidate's difference that this takes.
    """

    candidates: int
    sets: int
    alpha: float
    tests: int
    power: float
    ranked: float
    spread: float | None
    paired: float
    deviation: float

    def __str__(self) -> str:
        """Return both as sentences."""
        level = f"α = {self.alpha:g}" + (f" / {self.tests}" if self.tests > 1 else "")
        ranked = f"{self.ranked:.2f} standard deviations between random sets"
        if self.spread is not None:
            ranked += f" ({self.ranked * self.spread:.3g} at {self.spread:.3g} each)"
        if math.isinf(self.ranked):
            ranked = f"no difference at all, p being 1/{self.sets + 1} at best"
        return (
            f"At {level}, with power {self.power:g}, the rank among {self.sets} random sets shows "
            f"{ranked}; the paired test over {self.candidates} candidates, given the random sets, "
            f"shows a mean difference of {self.paired:.3g} where a candidate's has a standard "
            f"deviation of {self.deviation:g}."
        )


def smallest_difference(
    candidates: int,
    sets: int,
    *,
    spread: float | None = None,
    deviation: float = SHARE,
    tests: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> SmallestDifference:
    """Return the smallest difference that so many candidates and random sets can show.

    Args:
        candidates: tested candidates, at least 2.
        sets: random sets, R, at least 1.
        spread: standard deviation between random sets' mean outcomes, where an earlier run knows
            it; above 0.
        deviation: standard deviation of a candidate's difference; 0.5 is the worst of a share.
        tests: hypotheses in the family, of which the hardest is meant, at α / tests.
        alpha: level of the family, in (0, 1).
        power: chance to show it, from `alpha` to below 1.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> round(smallest_difference(100, 99).ranked, 2)
        2.54
    """
    from scipy.optimize import brentq

    _check(candidates, sets, tests, alpha, power)
    for name, value in (("spread", spread), ("deviation", deviation)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}; expected a finite number above 0")
    ranked, scale = math.inf, deviation / math.sqrt(candidates)
    if most_as_good(sets, alpha, tests) >= 0:
        ranked = brentq(lambda one: rank_power(one, sets, alpha=alpha, tests=tests) - power, -5, 20)
    level = alpha / tests
    paired = brentq(
        lambda one: paired_power(one * scale, candidates, deviation=deviation, alpha=level) - power,
        *(-5, 1e4),
    )
    return SmallestDifference(
        candidates,
        sets,
        alpha,
        tests,
        power,
        float(ranked),
        spread,
        float(paired * scale),
        deviation,
    )


def _check(candidates: int, sets: int, tests: int, alpha: float, power: float) -> None:
    for name, count, least in (
        ("candidates", candidates, 2),
        ("sets", sets, 1),
        ("tests", tests, 1),
    ):
        if count < least:
            raise InputError(f"{name} is {count}; expected {least} or more")
    for name, share in (("alpha", alpha), ("power", power)):
        if not 0 < share < 1:
            raise InputError(f"{name} is {share}; expected a number in (0, 1)")
