"""What was expected before the run, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from iarmem_plugin.evaluation.evidence.equal import (
    EqualFraction,
    EqualQuality,
    equal_fraction,
    equal_quality,
)
from iarmem_plugin.evaluation.evidence.expectations import Expectation
from iarmem_plugin.evaluation.evidence.families import HolmLimit, holm
from iarmem_plugin.report.evidence.controls import at_fraction, bracketing, controls_of, curve_of
from iarmem_plugin.report.evidence.lines import MATCHED, RANDOM, Line, Lines, Point
from iarmem_plugin.report.evidence.naming import chosen_as, edited_as

PRIMARY = "primary"
SETS, SPLITS, ALPHA = 99, 5, 0.05
Verdict = Literal["kept", "broken", "not comparable"]
Held = tuple[EqualFraction | EqualQuality | None, str, Sequence[Line]]  # or why nothing is, of what


@dataclass(frozen=True, slots=True)
class Declared:
    """One expectation of a plan.

    Attributes:
        of: what was declared of the arm: its name, or selector, intervention and fraction.
        expectation: what is expected of it.
        family: of hypotheses that are tested together; empty where it is not tested.
    """

    of: Mapping[str, Any]
    expectation: Expectation
    family: str

    @property
    def subject(self) -> str:
        """Return the arm as it was declared."""
        if "arm" in self.of:
            return str(self.of["arm"])
        fraction = self.of.get("fraction")
        share = f"{100 * fraction:g}%" if isinstance(fraction, int | float) else ""
        said = (self.of.get("selector"), self.of.get("intervention"))
        return ", ".join(filter(None, [*(str(one) for one in said if one), share]))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a plan declares of tests.

    Attributes:
        alpha: level of each family.
        sets: random sets, R, that were asked for.
        splits: of what is scored on candidates.
        expected: the expectations, in their order.
    """

    alpha: float
    sets: int | None
    splits: int | None
    expected: tuple[Declared, ...]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One expectation, and what came of it.

    Attributes:
        number: from 1, the primary first.
        declared: the expectation.
        treatment: name of the arm that it means; what was declared where there is none.
        found: the arm against its controls; None where they cannot be compared.
        p: of the expectation alone; NaN where it is not tested.
        adjusted: p by Holm within its family; likewise.
        verdict: what came of it.
        why: what the verdict rests on, where it is not the p-value.
        limit: what the family's random sets can show; empty without a family.
        curves: what it was held against.
    """

    number: int
    declared: Declared
    treatment: str
    found: EqualFraction | EqualQuality | None
    p: float
    adjusted: float
    verdict: Verdict
    why: str
    limit: str
    curves: tuple[Line, ...] = ()

    @property
    def against_sets(self) -> bool:
        """Tell whether it is held against random sets, and not against one other arm."""
        return self.declared.expectation.against in (RANDOM, MATCHED)

    @property
    def primary(self) -> bool:
        """Tell whether this is the primary hypothesis."""
        return self.declared.family == PRIMARY


def planned(provenance: Mapping[str, Any]) -> Settings:
    """Return what a report's plan declares of tests.

    Raises:
        InputError: an expectation of another outcome, direction or place.
    """
    plan = provenance.get("plan")
    given = plan if isinstance(plan, Mapping) else {}
    asked = given.get("evidence")
    asked = asked if isinstance(asked, Mapping) else {}
    expected = given.get("expect")
    entries = expected if isinstance(expected, list | tuple) else ()
    declared = [_declared(one) for one in entries if isinstance(one, Mapping)]
    return Settings(
        float(asked.get("alpha", ALPHA)),
        asked.get("sets"),
        asked.get("splits"),
        tuple(sorted(declared, key=lambda one: one.family != PRIMARY)),
    )


def hypotheses_of(lines: Lines, settings: Settings, metric: str) -> list[Hypothesis]:
    """Return every expectation with what came of it, the primary first.

    Args:
        lines: the arms.
        settings: what was declared.
        metric: of the scores that all arms share.
    """
    judged = [
        _judged(lines, one, metric, number) for number, one in enumerate(settings.expected, start=1)
    ]
    found: list[Hypothesis] = []
    for family in dict.fromkeys(one.declared.family for one in judged):
        members = [one for one in judged if one.declared.family == family]
        found += _tested(members, settings.alpha) if family else map(_by_interval, members)
    return sorted(found, key=lambda one: one.number)


def _declared(entry: Mapping[str, Any]) -> Declared:
    expectation = Expectation(
        entry.get("outcome", ""),
        entry.get("against", ""),
        entry.get("direction", ""),
        str(entry.get("at") or "equal quality").replace("-", " "),  # type: ignore[arg-type]  # it checks
    )
    keys = ("arm", "selector", "intervention", "fraction")
    of = {key: entry[key] for key in keys if entry.get(key) is not None}
    return Declared(of, expectation, str(entry.get("family") or ""))


def _judged(lines: Lines, declared: Declared, metric: str, number: int) -> Hypothesis:
    found = _meant(lines, declared.of, metric)
    name = found[1].arms[0] if found else declared.subject
    held, why, curves = _held(lines, found, declared.expectation)
    if isinstance(held, EqualQuality) and not held.comparable:
        why = f"{held.unreached} of {held.sets} random curves end before this ΔNLL"
    verdict: Verdict = "not comparable"
    unknown = math.nan
    return Hypothesis(
        number, declared, name, held, unknown, unknown, verdict, why, "", tuple(curves)
    )


def _meant(lines: Lines, of: Mapping[str, Any], metric: str) -> tuple[Line, Point] | None:
    """Return the treatment that was declared; of split and unsplit ones, the split one."""
    if "arm" in of:
        return lines.found(str(of["arm"]))
    found = [
        (line, point)
        for line in lines.treatments
        for point in line.points
        if point.fraction == of.get("fraction")
        and chosen_as(str(of.get("selector")), line.selector, metric)
        and edited_as(str(of.get("intervention")), line.intervention)
    ]
    return min(found, key=lambda one: "cross_fit" not in one[0].selector, default=None)


def _held(lines: Lines, found: tuple[Line, Point] | None, expected: Expectation) -> Held:
    if found is None:
        return None, "no arm of the report is the one that was declared", ()
    line, point = found
    if expected.outcome not in lines.outcomes:
        return None, f"{expected.outcome} was not measured", ()
    if expected.against in (RANDOM, MATCHED):
        curves = controls_of(line, lines).get(expected.against, [])
        sets = at_fraction(curves, point.fraction, expected.outcome)
    else:
        curves, one = lines.alone(expected.against)
        sets = None if one is None else one.outcomes[expected.outcome][None]
    if expected.at == "equal quality":
        return _at_equal_quality(lines, point, curves, expected)
    if sets is None:
        return None, "nothing of that fraction was run to hold it against", ()
    mine = point.outcomes[expected.outcome]
    return equal_fraction(mine, sets, expected.direction), "", curves


def _at_equal_quality(
    lines: Lines, point: Point, curves: Sequence[Line], expected: Expectation
) -> Held:
    if not lines.measured:
        return None, "the held-out loss was not measured", ()
    nested = [one for one in curves if one.points[0].fraction is not None]
    if not nested:
        return None, "no curve of it was run to hold it against", ()
    near = bracketing(nested, point.cost)
    read = [curve_of(lines.original, one, expected.outcome) for one in near]
    mine = point.outcomes[expected.outcome]
    return equal_quality(mine, point.change, read, expected.direction), "", nested


def _tested(members: Sequence[Hypothesis], alpha: float) -> Iterator[Hypothesis]:
    """Judge a family by Holm's correction; what cannot be compared counts as p = 1."""
    p = [_alone(one) for one in members]
    adjusted = holm([1.0 if math.isnan(one) else one for one in p]).tolist()
    sets = [one.found.sets for one in members if one.found and one.against_sets]
    limit = HolmLimit(len(members), min(sets), alpha) if sets else None
    said = "" if limit is None else str(limit)
    for one, alone, together in zip(members, p, adjusted, strict=True):
        if math.isnan(alone) or one.found is None:
            yield replace(one, limit=said)
        elif limit is not None and one.against_sets and not limit.possible:
            why = "there are too few random sets for a test of this family"
            yield replace(one, p=alone, adjusted=together, why=why, limit=said)
        else:
            kept = one.declared.expectation.judged(one.found, p=together, alpha=alpha).kept
            verdict: Verdict = "kept" if kept else "broken"
            yield replace(one, p=alone, adjusted=together, verdict=verdict, limit=said)


def _alone(one: Hypothesis) -> float:
    """Return the p of an expectation before any correction; NaN where it cannot be compared."""
    if one.found is None or not one.found.comparable:
        return math.nan
    return one.declared.expectation.p_of(one.found)


def _by_interval(one: Hypothesis) -> Hypothesis:
    """Judge what belongs to no family: by its effect's interval, without a p-value."""
    if one.found is None or not one.found.comparable or math.isnan(one.found.effect_low):
        return replace(one, why=one.why or "the effect has no interval")
    fewer = one.declared.expectation.direction == "fewer"
    apart = one.found.effect_high < 0 if fewer else one.found.effect_low > 0
    kept = apart and one.found.agrees
    why = "by the effect's interval, since it belongs to no family of tests"
    if apart and not kept:
        why += "; read where curves last cost as little, or along the bend, there is no such effect"
    return replace(one, verdict="kept" if kept else "broken", why=why)
