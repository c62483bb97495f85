"""Recompute what a report says of its treatments against random neurons.

Part of ``examples/recompute.py``, which calls it. From ``extraction.nc`` and the lists of arms in
``report.json`` it makes again, with numpy and scipy alone: what each treatment costs, which random
curves are read and where, values, effects, intervals, ranks, p-values, Holm's correction, verdicts,
checks and power.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from recompute_curves import UNREACHED, Point, bracketing, read, read_last, read_smooth, spans
from scipy.stats import binom, bootstrap, nct, norm, permutation_test, t

TIE = 1e-9  # differences below it are none
RANDOM = ("random", "random-matched")
Found = tuple[str, float | None, float | None]  # what it is, as written, and as made again
Number = Any  # a number, or None where it is not known


class Arms:
    """What every arm did to each held-out picture and each tested candidate.

    Args:
        found: arrays of ``extraction.nc``.
        prefix: tokens that were given.
        tested: which candidates are tested.
        judged: what counts, [arm, candidate], by outcome.
    """

    def __init__(
        self,
        found: Mapping[str, np.ndarray],
        prefix: float,
        tested: np.ndarray,
        judged: Mapping[str, np.ndarray],
    ) -> None:
        self.rows = {str(name): row for row, name in enumerate(found["arm"])}
        tokens = found["tokens"].shape[2]
        agreement = (found["equal_tokens"].astype(np.float64) - prefix) / (tokens - prefix)
        every = {"agreement": agreement, **judged}
        unseen = found["role"].astype(str) == "held-out"
        self.pictures = np.zeros((len(self.rows), 0))
        if "loss" in found:
            every["loss"] = found["loss"]
            self.pictures = found["loss"][:, unseen] - found["loss"][0, unseen]
        self.outcomes = {name: one[:, tested].astype(float) for name, one in every.items()}

    def change(self, arms: Sequence[str]) -> np.ndarray:
        """Return the change of each held-out picture's loss, the mean over splits."""
        mean: np.ndarray = self.pictures[[self.rows[name] for name in arms]].mean(axis=0)
        return mean

    def outcome(self, name: str, arms: Sequence[str]) -> np.ndarray:
        """Return an outcome of each tested candidate, the mean over splits."""
        mean: np.ndarray = self.outcomes[name][[self.rows[arm] for arm in arms]].mean(axis=0)
        return mean

    def curve(self, written: Mapping[str, Any], outcome: str) -> list[Point]:
        """Return a curve that ``report.json`` lists, from the original on."""
        points = [(0.0, ["original"])]
        points += [(one["fraction"], one["arms"]) for one in written["points"]]
        return [
            (fraction, float(self.change(arms).mean()), self.outcome(outcome, arms))
            for fraction, arms in points
        ]


def interval(values: np.ndarray) -> tuple[Number, Number]:
    """Return the 95% interval of a mean: percentiles of 2 000 bootstrap samples, seed 0."""
    if len(values) < 2 or np.isnan(values).any():
        return None, None
    found = bootstrap((values,), np.mean, method="percentile", n_resamples=2000, rng=0)
    return found.confidence_interval.low, found.confidence_interval.high


def rank(value: float, readings: Sequence[float | None], direction: str) -> int:
    """Count the readings that are as good as a value; what is not reached is."""
    sign = 1 if direction == "fewer" else -1
    return sum(one is None or sign * one <= sign * value + TIE for one in readings)


def signs(difference: np.ndarray, direction: str) -> float:
    """Return the one-sided p of a mean paired difference: its signs drawn, seed 0."""
    changed = difference[np.abs(difference) > TIE]
    if not changed.size:
        return 1.0
    side = "less" if direction == "fewer" else "greater"
    return float(
        permutation_test(
            (np.append(changed, 0.0),),
            lambda one, axis: one.sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=2000,
            alternative=side,
            rng=0,
        ).pvalue
    )


def evidence(written: Mapping[str, Any], arms: Arms) -> Iterator[Found]:
    """Yield every number of a report's evidence, and the same made again."""
    treatments = {one["name"]: one for one in written["treatments"]}
    known = {point["arms"][0]: point["arms"] for point in _points(written)}
    known |= {name: one["arms"] for name, one in treatments.items()}
    shares = {point["arms"][0]: point["fraction"] for point in _points(written)}
    shares |= {name: one["fraction"] for name, one in treatments.items()}
    for name, one in treatments.items():
        if arms.pictures.size:
            change = arms.change(one["arms"])
            made = {"change": change.mean()} | _ends("change", change)
            yield from _numbers(f"evidence: {name}", one, made)
    for kind in ("cells", "hypotheses"):
        for one in written[kind]:
            about = f"evidence: {kind}: {one['treatment']}: {one['outcome']}: {one['at']}"
            if "value" in one:
                made = _compared(one, written["controls"], known, shares, arms)
                yield from _numbers(f"{about}: {one['against']}", one, made)
    yield from _families(written)
    for one in written["checks"]:
        change = np.mean([arms.change([name]) for name in one["arms"]], axis=0)
        low, high = interval(change)
        made = {"change": change.mean(), "low": low, "high": high, "passed": float(low > 0)}
        made["costless"] = sum(arms.change([name]).mean() <= 0 for name in one["arms"])
        yield from _numbers(f"evidence: {one['what']}", one, made)
    if written["power"] is not None:
        yield from _power(written["power"])


def numbers(row: Mapping[str, Any]) -> dict[str, Number]:
    """Return the numbers of a row, without what is a text, a list or true."""
    hidden = ("curves", "chosen_on_tested", "comparable")
    return {
        name: value
        for name, value in row.items()
        if name not in hidden
        and (value is None or isinstance(value, int | float))
        and name not in ("why", "limit", "family")
    }


def _points(written: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for group in written["controls"]:
        for curve in group:
            yield from curve["points"]


def _compared(
    one: Mapping[str, Any],
    controls: Sequence[Any],
    known: Mapping[str, Sequence[str]],
    shares: Mapping[str, Number],
    arms: Arms,
) -> dict[str, Number]:
    """Return the numbers of one comparison."""
    mine, direction = known[one["treatment"]], one["direction"]
    outcome = arms.outcome(one["outcome"], mine)
    value, made = float(outcome.mean()), dict[str, Number]()
    group = [] if one["curves"] is None else controls[one["curves"]]
    curves = [arms.curve(each, one["outcome"]) for each in group]
    ends: tuple[Number, Number] = (None, None)
    if one["at"] == "equal quality":
        change = arms.change(mine)
        cost, ends = float(change.mean()), interval(change)
        curves = bracketing(curves, cost)
        readings = [read(each, cost) for each in curves]
        made = {"change": cost, "change_low": ends[0], "change_high": ends[1]}
        made["unreached"] = sum(each is None for each in readings)
        made |= spans(curves, cost)
    elif one["against"] in RANDOM:
        share = shares[one["treatment"]]
        readings = [each[2] for curve in curves for each in curve[1:] if each[0] == share]
    else:
        readings = [arms.outcome(one["outcome"], known.get(one["against"], [one["against"]]))]
    if one["at"] == "equal quality":
        last = [read_last(curve, made["change"]) for curve in curves]
        made["as_good_last"] = rank(value, last, direction)
        made["effect_last"] = value - float(np.mean(last))
    made |= _against(outcome, value, readings, direction, tested="paired_p" in one)
    sets = len(readings)
    if "p_low" in one:
        for end, at in zip(("p_low", "p_high"), ends, strict=True):
            again = [_mean(read(each, at)) for each in curves] if at is not None else []
            made[end] = (1 + rank(value, again, direction)) / (sets + 1) if again else None
        smooth = read_smooth(curves, made["change"])
        made["p_smooth"] = (1 + rank(value, smooth, direction)) / (sets + 1)
        made["p_last"] = (1 + made["as_good_last"]) / (sets + 1)
    if one["at"] == "equal quality":
        left = [each for each in read_smooth(curves, made["change"]) if each is not None]
        made["effect_smooth"] = value - float(np.mean(left)) if left else None
    if "p_straight" in one:
        made["p_straight"] = (1 + made["as_good"]) / (sets + 1)
    if "comparable" in one:
        made["comparable"] = float(made.get("unreached", 0) <= UNREACHED * sets)
    if "p" in one:
        ways = [made[way] for way in ("p_straight", "p_smooth", "p_last") if way in made]
        made["p"] = max(ways) if one["against"] in RANDOM else made["paired_p"]
    return made


def _against(
    outcome: np.ndarray,
    value: float,
    readings: Sequence[np.ndarray | None],
    direction: str,
    *,
    tested: bool,
) -> dict[str, Number]:
    """Return what becomes of values and readings."""
    reached = [one for one in readings if one is not None]
    means = [float(one.mean()) for one in reached]
    made: dict[str, Number] = {
        "candidates": len(outcome),
        "value": value,
        "sets": len(readings),
        "as_good": rank(value, [_mean(one) for one in readings], direction),
        **dict.fromkeys(("controls", "control_low", "control_high", "effect", "paired_p")),
        **dict.fromkeys(("spread", "effect_low", "effect_high")),
    }
    if reached:
        difference = outcome - np.mean(reached, axis=0)
        made |= {"controls": np.mean(means), "effect": difference.mean()}
        made |= {"control_low": min(means), "control_high": max(means)}
        made |= _ends("effect", difference)
        made["paired_p"] = signs(difference, direction) if tested else None
    if len(means) > 1:
        made["spread"] = np.std(means, ddof=1)
    return made


def _ends(name: str, values: np.ndarray) -> dict[str, Number]:
    low, high = interval(values)
    return {f"{name}_low": low, f"{name}_high": high}


def _mean(values: np.ndarray | None) -> float | None:
    return None if values is None else float(values.mean())


def _numbers(about: str, written: Mapping[str, Any], made: Mapping[str, Number]) -> Iterator[Found]:
    for name, value in made.items():
        if name in written:
            as_written = written[name]
            yield (
                f"{about}: {name}",
                None if as_written is None else float(as_written),
                None if value is None else float(value),
            )


def _families(written: Mapping[str, Any]) -> Iterator[Found]:
    """Yield Holm's correction within each family, and whether each verdict follows."""
    alpha = written["settings"]["alpha"]
    families: dict[str, list[Mapping[str, Any]]] = {}
    for one in written["hypotheses"]:
        families.setdefault(one["family"] or "", []).append(one)
    for family, members in families.items():
        p = [one.get("p", 1.0) for one in members]
        sets = [one["sets"] for one in members if "value" in one and one["against"] in RANDOM]
        possible = not sets or len(members) / (min(sets) + 1) <= alpha * (1 + TIE)
        order, highest = np.argsort(p, kind="stable"), 0.0
        for step, place in enumerate(order.tolist()):
            one = members[place]
            highest = max(highest, (len(members) - step) * p[place])
            about = f"evidence: hypothesis {one['number']}"
            if "adjusted" in one:
                yield f"{about}: adjusted", one["adjusted"], min(highest, 1.0)
            made = _verdict(one, family, min(highest, 1.0) <= alpha + TIE, possible)
            yield f"{about}: is {one['verdict']}", 1.0, float(made == one["verdict"])


def _verdict(one: Mapping[str, Any], family: str, kept: bool, possible: bool) -> str:
    fewer, ended = one["direction"] == "fewer", one.get("unreached", 0)
    if "value" not in one or ended > UNREACHED * one["sets"] or one["effect_low"] is None:
        return "not comparable"
    if not family:
        sign = -1 if fewer else 1
        every = (one.get(name) for name in ("effect", "effect_smooth", "effect_last"))
        kept = all(sign * effect > 0 for effect in every if effect is not None)  # all readings
        kept = kept and (one["effect_high"] < 0 if fewer else one["effect_low"] > 0)
    elif one["against"] in RANDOM and not possible:
        return "not comparable"
    return "kept" if kept else "broken"


def _power(one: Mapping[str, Any]) -> Iterator[Found]:
    """Yield the power at the smallest differences."""
    level, sets = one["alpha"] / one["tests"], one["sets"]
    z = np.linspace(-9, 9, 1801)
    if one["ranked"] is not None:
        few = binom.cdf(math.floor(level * (sets + 1) + TIE) - 1, sets, norm.cdf(z - one["ranked"]))
        made = float(np.trapezoid(norm.pdf(z) * few, z))
        yield "evidence: power of the rank", one["power"], made
    free = one["candidates"] - 1
    apart = one["paired"] * math.sqrt(one["candidates"]) / one["deviation"]
    made = float(nct.sf(t.ppf(1 - level, free), free, apart))
    yield "evidence: power of the paired test", one["power"], made
