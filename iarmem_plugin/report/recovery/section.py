"""What the page's section on recovery shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iarmem_plugin.evaluation.recovery.curves import OUTCOMES
from iarmem_plugin.report.recovery.rows import TRIED, UNSEEN, Recovered, recovered_rows
from iarmem_plugin.report.results import Results
from iarmem_plugin.report.tables import Cell, Row


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


def recovery_sentences(results: Results) -> Iterator[str]:
    """Yield a sentence a trigger of some budgets: what came back of what each edit hid."""
    rows = () if results.recovery is None else recovered_rows(results.recovery)
    for one in rows:
        if one.group == TRIED and one.outcome == "extracted" and len(one.budgets) > 1:
            yield (
                f"{one.arm}, {one.trigger}: {one.counts[0]} of {one.pictures} extracted at "
                f"{one.budgets[0]} {one.unit}, {one.counts[-1]} by {one.budgets[-1]}"
            )


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
