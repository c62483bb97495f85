"""What the page's section on evidence shows."""

from __future__ import annotations

from typing import Any

from iarmem_plugin.evaluation.counts import canary_word, having_role
from iarmem_plugin.report.evidence.checks import not_run
from iarmem_plugin.report.evidence.controls import nested, uniform
from iarmem_plugin.report.evidence.evidence import Evidence
from iarmem_plugin.report.evidence.sentences import (
    KINDS,
    MARK,
    cell_rows,
    check_rows,
    declared_sentence,
    hypothesis_rows,
    limits,
    marked,
    power_of,
    primary_sentence,
    reading_sentence,
    seeds,
)
from iarmem_plugin.report.results import Results
from iarmem_plugin.report.tables import Row

LONG = 24  # rows that are shown at once


def section(results: Results, evidence: Evidence | None) -> dict[str, Any] | None:
    """Return what the template fills in; None where there is no evidence."""
    if evidence is None:
        return None
    power = power_of(evidence)
    return {
        "primary": primary_sentence(evidence),
        "declared": declared_sentence(results.provenance),
        "reading": reading_sentence(evidence),
        "hypotheses": hypothesis_rows(evidence),
        "limits": list(limits(evidence)),
        "power": None if power is None else str(power),
        "quality": _tables(evidence, "equal quality"),
        "fraction": _tables(evidence, "equal fraction"),
        "all": any(one.fraction == 1 for one in evidence.treatments),
        "checks": check_rows(evidence),
        "not_run": (*not_run(evidence.checks), *_unmeasured(results)),
        "seeds": seeds(evidence, results.model),
        "mark": MARK if marked(evidence) else "",
        "candidates": canary_word(results.extraction),
        "long": LONG,
    }


def banded(evidence: Evidence | None) -> bool:
    """Tell whether random curves can be drawn as a band."""
    if evidence is None or not evidence.lines.measured:
        return False
    return nested(uniform(evidence.lines.controls))


def _unmeasured(results: Results) -> tuple[str, ...]:
    """Say that the members' loss is not known, the other side of the axis."""
    known = having_role(results.extraction, "member").any()
    return () if known else ("the loss on members that are no canaries",)


def splits(evidence: Evidence | None) -> dict[str, int] | None:
    """Return the first arm of each treatment with the number of its splits, the others with 0."""
    if evidence is None:
        return None
    every = [one.arms for one in evidence.treatments]
    return {arm: len(arms) * (arm == arms[0]) for arms in every for arm in arms}


def _tables(evidence: Evidence, at: str) -> list[tuple[str, tuple[Row, ...]]]:
    found = [(word, cell_rows(evidence, at, kind)) for kind, word in KINDS.items()]
    return [(word, rows) for word, rows in found if rows]
