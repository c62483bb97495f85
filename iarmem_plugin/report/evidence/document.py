"""Evidence as plain values, for ``report.json`` and for tables as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from iarmem_plugin.evaluation.evidence.equal import EqualFraction
from iarmem_plugin.report.evidence.evidence import Cell, Evidence
from iarmem_plugin.report.evidence.hypotheses import Hypothesis
from iarmem_plugin.report.evidence.intervals import RESAMPLES, SEED
from iarmem_plugin.report.evidence.lines import Line
from iarmem_plugin.report.evidence.sentences import power_of, primary_sentence

TESTS = ("p_straight", "p_smooth", "p_last", "p_low", "p_high", "paired_p")
FOUND = (
    *("direction", "candidates", "value", "controls", "spread", "control_low", "control_high"),
    *("sets", "as_good", "unreached", "from_original", "to_all", "raised", "as_good_last"),
    *("effect", "effect_low", "effect_high", "effect_smooth", "effect_last"),
    *("change", "change_low", "change_high"),
)
CELLS = (
    *("treatment", "splits", "fraction", "chosen_on_tested", "outcome", "against", "at"),
    *("comparable", *FOUND),
)
HYPOTHESES = (
    *("number", "family", "declared", "treatment", "outcome", "against", "at", "verdict", "why"),
    *(*FOUND, "p", *TESTS, "adjusted", "limit"),
)


def evidence_document(evidence: Evidence) -> dict[str, Any]:
    """Return what ``report.json`` says of the evidence; NaN where a number is not known."""
    groups = _groups(evidence)
    power = power_of(evidence)
    return {
        "settings": {
            "alpha": evidence.settings.alpha,
            "sets": evidence.settings.sets,
            "splits": evidence.settings.splits,
            "seed": SEED,
            "resamples": RESAMPLES,
        },
        "primary": primary_sentence(evidence),
        "power": None if power is None else asdict(power),
        "hypotheses": [_hypothesis(one, groups) for one in evidence.hypotheses],
        "treatments": [_treatment(one) for one in map(asdict, evidence.treatments)],
        "cells": [_cell(one, groups) for one in evidence.cells],
        "controls": [[_curve(line) for line in one] for one in groups.values()],
        "checks": [{**asdict(one), "passed": one.passed} for one in evidence.checks],
    }


def cell_rows(document: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield the rows of ``tables/evidence.csv``, with the columns of `CELLS`."""
    found = document.get("evidence", {})
    treatments = {one["name"]: one for one in found.get("treatments", ())}
    for cell in found.get("cells", ()):
        mine = treatments[cell["treatment"]]
        row = {**mine, **cell, "splits": len(mine["arms"])}
        yield [row.get(name) for name in CELLS]


def hypothesis_rows(document: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield the rows of ``tables/hypotheses.csv``, with the columns of `HYPOTHESES`."""
    for one in document.get("evidence", {}).get("hypotheses", ()):
        yield [one.get(name) for name in HYPOTHESES]


def _groups(evidence: Evidence) -> dict[tuple[str, ...], tuple[Line, ...]]:
    """Return what treatments are held against, each list of curves once, by their first arms."""
    every = [one.curves for one in evidence.cells]
    every += [one.curves for one in evidence.hypotheses]
    return {_key(curves): curves for curves in every if curves}


def _key(curves: Sequence[Line]) -> tuple[str, ...]:
    return tuple(line.points[0].arms[0] for line in curves)


def _of(one: Cell | Hypothesis, groups: Mapping[tuple[str, ...], Any]) -> int | None:
    return list(groups).index(_key(one.curves)) if one.curves else None


def _curve(line: Line) -> dict[str, Any]:
    points = [{"fraction": one.fraction, "arms": list(one.arms)} for one in line.points]
    return {"seed": line.seed, "points": points}


def _treatment(values: dict[str, Any]) -> dict[str, Any]:
    renamed = {"low": "change_low", "high": "change_high"}
    return {renamed.get(key, key): value for key, value in values.items()}


def _cell(cell: Cell, groups: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    return {
        "treatment": cell.treatment,
        "outcome": cell.outcome,
        "against": cell.against,
        "at": cell.at,
        "curves": _of(cell, groups),
        "comparable": cell.found.comparable,
        **_found(cell.found, FOUND),
    }


def _hypothesis(one: Hypothesis, groups: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    expected = one.declared.expectation
    tests = () if math.isnan(one.p) else TESTS if one.against_sets else TESTS[-1:]
    found = {} if one.found is None else _found(one.found, (*FOUND, *tests))
    return {
        "number": one.number,
        "family": one.declared.family or None,
        "declared": one.declared.subject,
        "treatment": one.treatment,
        "outcome": expected.outcome,
        "against": expected.against,
        "at": expected.at,
        "direction": expected.direction,
        "verdict": one.verdict,
        "why": one.why or None,
        "curves": _of(one, groups),
        **found,
        **({"p": one.p, "adjusted": one.adjusted} if tests else {}),
        "limit": one.limit or None,
    }


def _found(found: EqualFraction, names: Sequence[str]) -> dict[str, Any]:
    values = asdict(found)
    values["p_straight"] = values["p"]  # a hypothesis has the largest of all ways as its p
    return {name: values[name] for name in names if name in values}
