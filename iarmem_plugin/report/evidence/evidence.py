"""From a report's arms to evidence: each treatment against random neurons that cost as much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from iarmem_plugin.evaluation.evidence.effects import Direction
from iarmem_plugin.evaluation.evidence.equal import (
    EqualFraction,
    EqualQuality,
    equal_fraction,
    equal_quality,
)
from iarmem_plugin.evaluation.evidence.expectations import At
from iarmem_plugin.evaluation.losses import LOSS
from iarmem_plugin.report.evidence.checks import Check, checks_of
from iarmem_plugin.report.evidence.controls import (
    at_fraction,
    bracketing,
    controls_of,
    curve_of,
    nested,
    uniform,
)
from iarmem_plugin.report.evidence.hypotheses import (
    Hypothesis,
    Settings,
    hypotheses_of,
    planned,
)
from iarmem_plugin.report.evidence.intervals import intervals
from iarmem_plugin.report.evidence.lines import Line, Lines, Point, lines_of
from iarmem_plugin.report.evidence.treatments import Treatment, treatments_of
from iarmem_plugin.report.results import Results

FORGOTTEN: Mapping[str, Direction] = {LOSS: "more"}  # the way of forgetting; of all others, fewer


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One treatment, one outcome, one kind of random sets, held against each other one way.

    Attributes:
        treatment: name of the treatment.
        outcome: what is compared.
        against: kind of the random sets.
        at: where they are compared.
        found: what came of it; its intervals are known, its p-values are not, since nothing was
            declared.
        curves: the random curves.
    """

    treatment: str
    outcome: str
    against: str
    at: At
    found: EqualFraction | EqualQuality
    curves: tuple[Line, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a report shows of whether it is the neurons.

    Attributes:
        settings: what was declared of tests before the run.
        lines: the arms that all of it is made from.
        treatments: in the report's order, one with splits once.
        cells: exploratory, in that order; by outcome, kind of random sets, quality before fraction.
        hypotheses: what was expected, and what came of it; the primary first.
        checks: whether arms that only harm read as worse.
    """

    settings: Settings
    lines: Lines
    treatments: tuple[Treatment, ...]
    cells: tuple[Cell, ...]
    hypotheses: tuple[Hypothesis, ...]
    checks: tuple[Check, ...]

    @property
    def primary(self) -> Hypothesis | None:
        """Return the primary hypothesis, if one was declared."""
        return next((one for one in self.hypotheses if one.primary), None)


def evidence_of(results: Results) -> Evidence | None:
    """Hold every treatment against random neurons, and judge what was expected.

    Args:
        results: arms, what they did to each candidate and each held-out picture, and the plan.

    Returns:
        the evidence; None where nothing was expected and no random sets form curves.
    """
    return _made(_Same(results))


class _Same:
    """Results that are equal to themselves alone, since evidence is asked for again and again."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.results is other.results

    def __hash__(self) -> int:
        return id(self.results)


@lru_cache(maxsize=1)
def _made(of: _Same) -> Evidence | None:
    results = of.results
    lines, settings = lines_of(results), planned(results.provenance)
    if not settings.expected and not nested(uniform(lines.controls)):
        return None
    treatments = tuple(treatments_of(results, lines))
    return Evidence(
        settings,
        lines,
        treatments,
        tuple(_with_intervals(list(_cells(lines)), treatments)),
        tuple(hypotheses_of(lines, settings, str(results.scores.attrs["metric"]))),
        tuple(checks_of(lines)),
    )


def _cells(lines: Lines) -> Iterator[tuple[Cell, np.ndarray]]:
    """Yield each cell, and the difference of each candidate."""
    for line in lines.treatments:
        controls = controls_of(line, lines)
        for point in line.points:
            for outcome in lines.outcomes:
                for kind, curves in controls.items():
                    yield from _held(lines, point, outcome, kind, curves)


def _held(
    lines: Lines, point: Point, outcome: str, kind: str, curves: Sequence[Line]
) -> Iterator[tuple[Cell, np.ndarray]]:
    mine, way = point.outcomes[outcome], FORGOTTEN.get(outcome, "fewer")
    if lines.measured:
        near = bracketing(curves, point.cost)
        read = [curve_of(lines.original, one, outcome) for one in near]
        found = equal_quality(mine, point.change, read, way, resamples=0)
        at = [one.read(found.change) for one in read]
        reached = [one for one in at if one is not None]
        cell = Cell(point.arms[0], outcome, kind, "equal quality", found, tuple(curves))
        yield cell, mine - np.mean(reached, axis=0) if reached else np.full(len(mine), np.nan)
    sets = at_fraction(curves, point.fraction, outcome)
    if sets is not None:
        alike = equal_fraction(mine, sets, way, resamples=0)
        cell = Cell(point.arms[0], outcome, kind, "equal fraction", alike, tuple(curves))
        yield cell, mine - sets.mean(axis=0)


def _with_intervals(
    cells: Sequence[tuple[Cell, np.ndarray]], treatments: Sequence[Treatment]
) -> Iterator[Cell]:
    """Yield the cells with the intervals of their effects, and of what their treatment costs."""
    if not cells:
        return
    known = {one.name: (one.low, one.high) for one in treatments}
    ends = intervals(np.stack([difference for _, difference in cells])).tolist()
    for (cell, _), (low, high) in zip(cells, ends, strict=True):
        found: EqualFraction = replace(cell.found, effect_low=low, effect_high=high)
        if isinstance(found, EqualQuality):
            begin, end = known[cell.treatment]
            found = replace(found, change_low=begin, change_high=end)
        yield replace(cell, found=found)
