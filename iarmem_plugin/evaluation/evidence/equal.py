"""An arm held against random sets: at the same ΔNLL, or at the same fraction of neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.curves import Curve, read, read_last, spans, stacked
from iarmem_plugin.evaluation.evidence.effects import TIE, Direction, interval, paired_p
from iarmem_plugin.evaluation.evidence.smooth import read_smooth

RESAMPLES = 2000
MOST_UNREACHED = 0.1  # share of the curves that may end before the arm's ΔNLL


@dataclass(frozen=True, slots=True)
class EqualFraction:
    """An arm against R sets that edit as many neurons.

    Attributes:
        direction: "fewer" where a lower outcome is better, else "more".
        candidates: number of candidates.
        value: the arm's mean outcome over them.
        controls: mean over the sets of their mean outcome; NaN where there are none to read.
        spread: standard deviation of the sets' mean outcomes (R - 1); NaN for fewer than two.
        control_low: least of the sets' mean outcomes.
        control_high: greatest of them.
        sets: R.
        as_good: how many sets are as good as the arm or better, ties included.
        p: (1 + as_good) / (R + 1), in (0, 1].
        effect: `value` minus `controls`, candidate by candidate against its mean over the sets.
        effect_low: lower end of the effect's 95% interval over candidates; NaN for a single one.
        effect_high: upper end.
        paired_p: one-sided p of the effect over candidates, given these sets.
    """

    direction: Direction
    candidates: int
    value: float
    controls: float
    spread: float
    control_low: float
    control_high: float
    sets: int
    as_good: int
    p: float
    effect: float
    effect_low: float
    effect_high: float
    paired_p: float

    @property
    def comparable(self) -> bool:
        """Return whether enough sets can be held against the arm."""
        return True

    @property
    def judged_p(self) -> float:
        """Return the rank's p that a hypothesis is judged by."""
        return self.p

    @property
    def agrees(self) -> bool:
        """Tell whether the effect is in the direction that is good, however it is read."""
        return all(one < 0 if self.direction == "fewer" else one > 0 for one in self.effects)

    @property
    def effects(self) -> tuple[float, ...]:
        """Return the effect in every way that it is read; NaN where it is not known."""
        return (self.effect,)


@dataclass(frozen=True, slots=True)
class EqualQuality(EqualFraction):
    """An arm against R nested curves, each read at the arm's ΔNLL.

    The attributes of `EqualFraction`, of readings in place of sets, and:

    Attributes:
        change: the arm's ΔNLL, nats a token.
        change_low: lower end of its 95% interval (paired bootstrap over held-out pictures, as
            `count_losses`); NaN for a single picture.
        change_high: upper end.
        unreached: how many curves end before `change`; they count as as good as the arm, and are
            left out of `controls`, `spread` and `effect`.
        from_original: how many are read between the unmodified model and their smallest set.
        to_all: how many are read between a set and all neurons, one edit for every curve.
        raised: how many are read from a set that costs less than a smaller one or than the
            unmodified model, and is taken to cost as much as that.
        as_good_last: how many are as good where they last cost as little (`read_last`): a larger
            set may cost no more than the arm, although a smaller one did.
        p_last: p of these.
        effect_last: `value` minus the mean of these readings.
        p_smooth: p where the curves are read along a smooth monotone line (`read_smooth`): a
            straight line lies above a hollow curve, so that any edit between its points looks good.
        effect_smooth: `value` minus the mean of these readings.
        p_low: p where the curves are read at `change_low`; NaN where that is not known.
        p_high: p where they are read at `change_high`.
    """

    change: float
    change_low: float
    change_high: float
    unreached: int
    from_original: int
    to_all: int
    raised: int
    as_good_last: int
    p_last: float
    effect_last: float
    p_smooth: float
    effect_smooth: float
    p_low: float
    p_high: float

    @property
    def comparable(self) -> bool:
        """Return whether at most a tenth of the curves ends before the arm's ΔNLL."""
        return self.unreached <= MOST_UNREACHED * self.sets

    @property
    def judged_p(self) -> float:
        """Return the largest of `p`, `p_smooth` and `p_last`, by which a hypothesis is judged."""
        return max(self.p, self.p_smooth, self.p_last)

    @property
    def effects(self) -> tuple[float, ...]:
        """Return the effect in every way that it is read; NaN where it is not known."""
        return (self.effect, self.effect_smooth, self.effect_last)


def equal_quality(
    outcome: Float64[np.ndarray, " candidate"],
    change: Float64[np.ndarray, " picture"],
    curves: Sequence[Curve],
    direction: Direction,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> EqualQuality:
    """Hold an arm against random curves, each read where it costs as much as the arm.

    Args:
        outcome: of each candidate in the arm, averaged over splits where there are several.
        change: the arm's loss minus the unmodified model's on each held-out picture, nats a token;
            averaged over splits likewise.
        curves: of R random sets under the arm's intervention, on the same candidates.
        direction: "fewer" where a lower outcome is better, else "more".
        seed: of bootstrap and permutation.
        resamples: bootstrap samples, and at most as many permutations; 0 for neither.

    Raises:
        InputError: without curves, candidates or pictures, with values that are not finite, or
            with curves of other candidates.
    """
    _check("change", change)
    groups = stacked(curves)
    means = [(changes, outcomes.mean(axis=2)) for changes, outcomes in groups]
    at, value = float(change.mean()), float(outcome.mean())
    low, high = interval(change, seed=seed, resamples=resamples)
    readings = np.concatenate([read(*group, at) for group in groups])
    smooth = np.concatenate([read_smooth(*group, at) for group in means])
    last = np.concatenate([read_last(*group, at) for group in means])

    def p_at(end: float) -> float:
        if math.isnan(end):
            return math.nan
        read_there = [read(changes, mean[..., None], end) for changes, mean in means]
        return rank_p(value, np.concatenate(read_there)[:, 0], direction)

    reached = ~np.isnan(smooth)
    shared = _against(outcome, readings, direction, seed, resamples) | spans(curves, at)
    return EqualQuality(
        **shared,
        change=at,
        change_low=low,
        change_high=high,
        unreached=int(np.count_nonzero(~reached)),
        as_good_last=as_good(value, last, direction),
        p_last=rank_p(value, last, direction),
        effect_last=value - float(last.mean()),
        p_smooth=rank_p(value, smooth, direction),
        effect_smooth=value - float(smooth[reached].mean()) if reached.any() else math.nan,
        p_low=p_at(low),
        p_high=p_at(high),
    )


def equal_fraction(
    outcome: Float64[np.ndarray, " candidate"],
    controls: Float64[np.ndarray, "set candidate"],
    direction: Direction,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> EqualFraction:
    """Hold an arm against random sets of as many neurons, or against one other arm.

    Args:
        outcome: of each candidate in the arm.
        controls: the same of each of R random sets, or of one other arm.
        direction: "fewer" where a lower outcome is better, else "more".
        seed: of bootstrap and permutation.
        resamples: bootstrap samples, and at most as many permutations; 0 for neither.

    Raises:
        InputError: without candidates or sets, or with values that are not finite.
    """
    _check("control", controls)
    return EqualFraction(**_against(outcome, controls, direction, seed, resamples))


def _against(
    outcome: np.ndarray, readings: np.ndarray, direction: Direction, seed: int, resamples: int
) -> dict[str, Any]:
    """Return the fields of `EqualFraction`; rows of NaN are curves that were not reached."""
    _check("outcome", outcome)
    if readings.shape[1] != len(outcome):
        raise InputError(
            f"the arm has {len(outcome)} candidates and its controls {readings.shape[1]}; "
            "a paired comparison needs the same candidates in both"
        )
    means = readings.mean(axis=1)
    reached = readings[~np.isnan(means)]
    known = reached.mean(axis=1)
    expected = reached.mean(axis=0) if len(reached) else np.full(len(outcome), np.nan)
    difference = outcome - expected
    low, high = interval(difference, seed=seed, resamples=resamples)
    return {
        "direction": direction,
        "candidates": len(outcome),
        "value": float(outcome.mean()),
        "controls": float(expected.mean()),
        "spread": float(known.std(ddof=1)) if len(known) > 1 else math.nan,
        "control_low": float(known.min()) if len(known) else math.nan,
        "control_high": float(known.max()) if len(known) else math.nan,
        "sets": len(means),
        "as_good": as_good(float(outcome.mean()), means, direction),
        "p": rank_p(float(outcome.mean()), means, direction),
        "effect": float(difference.mean()),
        "effect_low": low,
        "effect_high": high,
        "paired_p": paired_p(difference, direction, seed=seed, resamples=resamples),
    }


def as_good(value: float, readings: Float64[np.ndarray, " set"], direction: Direction) -> int:
    """Count the sets that are as good as an arm or better; NaN, not reached, is as good."""
    worse = readings > value + TIE if direction == "fewer" else readings < value - TIE
    return int(np.count_nonzero(~worse))


def rank_p(value: float, readings: Float64[np.ndarray, " set"], direction: Direction) -> float:
    """Return (1 + sets as good as an arm) / (sets + 1)."""
    return (1 + as_good(value, readings, direction)) / (len(readings) + 1)


def _check(name: str, values: np.ndarray) -> None:
    if not values.size or not np.isfinite(values).all():
        raise InputError(
            f"{values.size} values of {name} were given, "
            f"{np.count_nonzero(~np.isfinite(values))} of them not finite; "
            "expected at least one, and finite numbers"
        )
