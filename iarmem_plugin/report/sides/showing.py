"""Two reports side by side as tables for a terminal, as files, and as a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from iarmem_plugin.evaluation.counts import EXTRACTED, RECOGNISABLE
from iarmem_plugin.report.grid.csv_tables import csv_file
from iarmem_plugin.report.page import environment
from iarmem_plugin.report.sides.folder import write_folder
from iarmem_plugin.report.sides.paired import PairedCost, PairedOutcome, Sides
from iarmem_plugin.report.sides.settings import Change
from iarmem_plugin.table import TextTable

FILES = (
    *("comparison.json", "comparison.html"),
    *("tables/outcomes.csv", "tables/costs.csv", "tables/arms.csv", "tables/settings.csv"),
)
OUTCOME_COLUMNS = (
    *("arm", "group", "n", "outcome", "A", "B", "B − A", "95% interval"),
    *("only A", "only B", "p"),
)
COST_COLUMNS = ("arm", "A", "95% interval of A", "B", "95% interval of B")
NOTES = (
    "agreement: share of the completed tokens that equal the target's; loss: nats a token, at each "
    "arm's fitted temperature; intervals: paired bootstrap over the candidates that are in both; "
    "p: exact McNemar, not corrected for the number of rows",
    "each report counts by its own thresholds and prefix; two edits compare only at equal cost, "
    "see the change of the held-out loss",
)
OTHER_TOKENS = (
    "two tokenizers made the targets: agreement, recognisable and loss are of other tokens in A "
    "than in B, so their B − A does not say which model remembers more"
)


def terminal_tables(found: Sides) -> Iterator[TextTable]:
    """Yield what a terminal shows: all canaries of each arm; files hold every group."""
    yield TextTable("Two reports side by side", ("", "A", "B"), summary(found))
    pooled = next((one.group for one in found.outcomes), "")
    rows = [outcome_row(one) for one in found.outcomes if one.group == pooled]
    numbers = OUTCOME_COLUMNS[2:3] + OUTCOME_COLUMNS[4:]
    yield TextTable(
        "The same candidates", OUTCOME_COLUMNS, rows, numbers=numbers, notes=notes(found)
    )
    if found.costs:
        title = "Change of the held-out loss (nats a token)"
        costs = map(cost_row, found.costs)
        yield TextTable(title, COST_COLUMNS, costs, numbers=COST_COLUMNS[1:])
    if found.settings:
        rows = [(one.key, one.old, one.new) for one in found.settings]
        yield TextTable("Settings and versions that differ", ("setting or version", "A", "B"), rows)


def notes(found: Sides) -> tuple[str, ...]:
    """Return what is to be known to read the outcomes."""
    other = any(one.key == "tokenizer_sha256" for one in found.settings)
    return (*NOTES, OTHER_TOKENS) if other else NOTES


def summary(found: Sides) -> list[tuple[str, str, str]]:
    """Return how much of the two reports is in both, a row a fact."""
    rows = [
        ("report", *found.names),
        ("model", *found.models),
        ("candidates in both", str(found.both), str(found.both)),
        ("candidates in this one alone", str(found.alone[0]), str(found.alone[1])),
        ("arms with the same settings", str(len(found.arms)), str(len(found.arms))),
        ("arms in this one alone", _named(found.arms_alone[0]), _named(found.arms_alone[1])),
    ]
    told = (
        ("candidates under two names", found.renamed),
        ("names of two pictures, left out", found.unlike),
        ("candidates in another group in B", found.regrouped),
    )
    return rows + [(what, str(count), str(count)) for what, count in told if count]


def outcome_row(one: PairedOutcome) -> tuple[str, ...]:
    """Return a row of `OUTCOME_COLUMNS`; of what is counted, the number (of sets, their mean)."""
    ends = [f"{end:.3f}" for end in (one.first, one.second)]
    if one.outcome in (EXTRACTED, RECOGNISABLE):
        numbers = [
            f"{end * one.candidates:.{int(one.arms > 1)}f}" for end in (one.first, one.second)
        ]
        ends = [f"{number} ({end})" for number, end in zip(numbers, ends, strict=True)]
    counts = ["" if number is None else str(number) for number in (one.only_first, one.only_second)]
    p = "" if one.p is None else f"{one.p:.2g}"
    change = (_signed(one.difference), _interval(one.low, one.high))
    return (one.arm, one.group, str(one.candidates), one.outcome, *ends, *change, *counts, p)


def cost_row(one: PairedCost) -> tuple[str, ...]:
    """Return a row of `COST_COLUMNS`."""
    ours = _interval(one.first_low, one.first_high)
    theirs = _interval(one.second_low, one.second_high)
    return (one.arm, _signed(one.first), ours, _signed(one.second), theirs)


def save(found: Sides, folder: Path) -> Path:
    """Write the comparison as a folder; see `SideBySide.save`."""
    document = json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
    contents = {
        "comparison.json": document.encode(),
        "comparison.html": page(found).encode(),
        "tables/outcomes.csv": _csv(PairedOutcome, found.outcomes),
        "tables/costs.csv": _csv(PairedCost, found.costs),
        "tables/arms.csv": csv_file(("first", "second"), _arms(found)),
        "tables/settings.csv": _csv(Change, found.settings),
    }
    return write_folder(folder, contents, FILES)


def page(found: Sides) -> str:
    """Return the page: one file that needs no network, with text from data escaped."""
    groups = dict.fromkeys(one.group for one in found.outcomes)
    outcomes = {
        group: [outcome_row(one) for one in found.outcomes if one.group == group]
        for group in groups
    }
    template = environment().get_template("sides.html.j2")
    return template.render(
        found=found,
        summary=summary(found),
        outcomes=outcomes,
        outcome_columns=OUTCOME_COLUMNS,
        costs=list(map(cost_row, found.costs)),
        cost_columns=COST_COLUMNS,
        notes=notes(found),
    )


def _csv(kind: Callable[..., object], rows: Sequence[object]) -> bytes:
    """Return a table whose columns are the fields of its rows."""
    header = [one.name for one in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    return csv_file(header, [list(asdict(row).values()) for row in rows])  # type: ignore[call-overload]  # likewise


def _arms(found: Sides) -> Iterator[tuple[str | None, str | None]]:
    yield from found.arms
    yield from ((name, None) for name in found.arms_alone[0])
    yield from ((None, name) for name in found.arms_alone[1])


def _named(names: Sequence[str]) -> str:
    few = ", ".join(names[:6])
    return f"{few} and {len(names) - 6} more" if len(names) > 6 else few or "–"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{_signed(low)}, {_signed(high)}]"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 3) + 0.0:+.3f}"  # no -0.000
