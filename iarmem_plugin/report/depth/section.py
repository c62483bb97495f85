"""What the page's section on depth shows."""

from __future__ import annotations

from typing import Any

from iarmem_plugin.evaluation.depth.measure import LEAST, Depth, measure_depth
from iarmem_plugin.evaluation.depth.patching import GIVEN
from iarmem_plugin.report.costs import Cost, first_cost
from iarmem_plugin.report.results import Results
from iarmem_plugin.report.tables import Cell, Row
from iarmem_plugin.table import TextTable

UNKNOWN = Cell("–")


def depth_section(results: Results) -> dict[str, Any] | None:
    """Return what the template fills in; None where nothing was measured."""
    if results.depth is None:
        return None
    found, cost = measure_depth(results.depth), first_cost(results)
    return {
        "rows": tuple(Row(one.arm, _cells(one, cost)) for one in found),
        "pictures": found[0].pictures,
        "unseen": found[0].unseen,
        "given": int(results.depth.attrs[GIVEN]),
        "least": LEAST,
        "counted": sum(one.counted for one in found[0].blocks),
        "blocks": len(found[0].blocks),
    }


def depth_table(results: Results) -> TextTable | None:
    """Return the same as a table to print; None where nothing was measured."""
    section = depth_section(results)
    if section is None:
        return None
    heads = ["arm", *section["rows"][0].cells]
    texts = [
        (row.name, *(f"{cell.text} {cell.remark}".rstrip() for cell in row.cells.values()))
        for row in section["rows"]
    ]
    note = (
        f"0: blocks hand on {section['pictures']} pictures as the original's do; 1: no more than "
        "the twin's."
    )
    return TextTable("How deep the edit goes", heads, texts, numbers=heads[1:], notes=[note])


def _cells(one: Depth, cost: Cost | None) -> dict[str, Cell]:
    cells = {}
    if cost is not None:
        value = cost.values.sel(arm=one.arm).item()
        cells["ΔNLL, held-out"] = Cell(cost.written(value), cost.interval(one.arm))
    known = one.low == one.low  # NaN of a single picture
    ends = f"[{_written(one.low)}, {_written(one.high)}]" if known else ""
    cells["depth"] = Cell(_written(one.depth), ends) if one.depth == one.depth else UNKNOWN
    for number, block in enumerate(one.blocks):
        left_out = "" if block.counted else "not counted"
        text = _written(block.share) if block.share == block.share else UNKNOWN.text
        cells[f"block {number}"] = Cell(text, left_out)
    if one.unseen:
        most = max(one.blocks, key=lambda block: block.unseen_change)
        cells["never seen"] = Cell(f"{most.unseen_change:+.3f}")
    return cells


def _written(depth: float) -> str:
    return f"{depth + 0.0:.2f}".replace("-0.00", "0.00")
