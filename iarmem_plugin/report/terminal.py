"""The report's tables as one, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from iarmem_plugin.evaluation.counts import RECOGNISABLE, outcomes
from iarmem_plugin.report.costs import marks_explained
from iarmem_plugin.report.evidence.evidence import evidence_of
from iarmem_plugin.report.evidence.sentences import primary_sentence
from iarmem_plugin.report.published.beside import notes
from iarmem_plugin.report.results import Results
from iarmem_plugin.report.tables import (
    Cell,
    Row,
    columns,
    has_many,
    outcome_rows,
    quality_rows,
    recalibrated_rows,
)
from iarmem_plugin.table import TextTable

OWN = "In brackets: at thresholds fixed anew on each arm's own completions of held-out pictures"


def terminal_table(results: Results) -> TextTable:
    """Return counts by group and arm, and quality: an arm a column, or a row if there are many."""
    measured, judged = quality_rows(results), outcomes(results.extraction)
    texts, many = [["", *columns(results.arms)]], has_many(results.arms)
    pairs = [_in_brackets(results, one) for one in judged]
    for rows in zip(*pairs, strict=True):
        group = rows[0].name
        names = (group, f"{group}, {RECOGNISABLE}" if many else f"  {RECOGNISABLE}")
        texts += [[name, *_texts(row)] for name, row in zip(names, rows, strict=False)]
    for place, row in enumerate(measured, start=1):
        texts.append([f"{row.name.partition(' (')[0]} [{place}]", *_texts(row)])
    if many:
        texts = [list(row) for row in zip(*texts, strict=True)]
    return TextTable(
        f"{results.model}: {' and '.join(judged)} candidates, and image quality",
        texts[0],
        texts[1:],
        numbers=texts[0][1:],
        notes=[
            *_primary(results),
            *_own_thresholds(results),
            *(f"[{place}] {row.name}" for place, row in enumerate(measured, start=1)),
            *marks_explained(results),
            *notes(results),
        ],
    )


def _in_brackets(results: Results, outcome: str) -> tuple[Row, ...]:
    """Return `outcome_rows`, and in brackets what counts at thresholds fixed anew."""
    anew = {row.name: row.cells for row in recalibrated_rows(results, outcome)[1:]}
    return tuple(
        Row(
            row.name,
            {
                name: Cell(f"{cell.text} ({own.text.partition('/')[0]})" if own else cell.text)
                for name, cell in row.cells.items()
                for own in [anew.get(row.name, {}).get(name)]
            },
        )
        for row in outcome_rows(results, outcome)
    )


def _own_thresholds(results: Results) -> Iterator[str]:
    """Say which thresholds were fixed anew, by outcome and arm."""
    for outcome in outcomes(results.extraction):
        for row in recalibrated_rows(results, outcome)[:1]:
            found = ", ".join(f"{name} {cell.text}" for name, cell in row.cells.items())
            yield f"{OWN}, {outcome}: {found}"


def _primary(results: Results) -> Iterator[str]:
    """Say what became of the primary hypothesis, if one was declared."""
    evidence = evidence_of(results)
    said = None if evidence is None else primary_sentence(evidence)
    if said is not None:
        yield said


def _texts(row: Row) -> list[str]:
    return [cell.text for cell in row.cells.values()]
