"""What the page's section on recovery shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr

from iarmem_plugin.evaluation.recovery.curves import OUTCOMES
from iarmem_plugin.report.recovery.rows import TRIED, UNSEEN, Recovered, recovered_rows
from iarmem_plugin.report.results import Results
from iarmem_plugin.report.tables import Cell, Row
from iarmem_plugin.table import TextTable


def recovery_section(results: Results) -> dict[str, Any] | None:
    """Return what the template fills in; None where no triggers were tried."""
    if results.recovery is None:
        return None
    rows = recovered_rows(results.recovery)
    calibrating = int(results.recovery["calibrates"].sum())
    return {
        "rate": float(results.recovery.attrs["rate"]),
        "calibrating": calibrating,
        "pictures": next(one.pictures for one in rows if one.group == TRIED),
        "tables": [
            (trigger, outcome, tuple(_table(rows, trigger, outcome)))
            for trigger in dict.fromkeys(one.trigger for one in rows)
            for outcome in OUTCOMES
        ],
    }


def recovery_table(recovery: xr.Dataset | None) -> TextTable | None:
    """Return what is extracted by each budget as a table to print; None without triggers."""
    if recovery is None:
        return None
    rows = recovered_rows(recovery)
    texts = []
    for trigger in dict.fromkeys(one.trigger for one in rows):
        for row in _table(rows, trigger, "extracted"):
            *by, median, beside = [cell.text for cell in row.cells.values()]
            budgets = [name.removeprefix("by ").split()[0] for name in row.cells]
            steps = ", ".join(f"{one} {text}" for one, text in zip(budgets, by, strict=False))
            texts.append((trigger, row.name, steps, median, beside))
    heads = ("trigger", "arm", "extracted by each budget", "median", "never seen, by the last")
    return TextTable("How much work brings pictures back", heads, texts, numbers=heads[3:])


def _table(rows: tuple[Recovered, ...], trigger: str, outcome: str) -> Iterator[Row]:
    mine = [one for one in rows if (one.trigger, one.outcome) == (trigger, outcome)]
    unseen = {one.arm: one for one in mine if one.group == UNSEEN}
    for one in mine:
        if one.group != TRIED:
            continue
        cells = {
            f"by {budget} {one.unit}": _count(one, place)
            for place, budget in enumerate(one.budgets)
        }
        cells["median budget"] = Cell("not reached" if one.median is None else str(one.median))
        if (beside := unseen.get(one.arm)) is not None:
            cells["never seen, by the last"] = _count(beside, len(beside.budgets) - 1)
        yield Row(one.arm, cells)


def _count(one: Recovered, place: int) -> Cell:
    low, high = one.interval(place)
    return Cell(f"{one.counts[place]}/{one.pictures}", f"{100 * low:.1f}–{100 * high:.1f}%")
