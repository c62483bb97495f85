"""What was expected, and that it was written down before anything was extracted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import xarray as xr

from iarmem_plugin.stages import Cell, Cells

if TYPE_CHECKING:
    from iarmem_plugin.jobs.plan.plan import Plan


def declaration(plan: Plan, cells: Cells, weights: str) -> dict[str, Any]:
    """Write down what a plan expects when that is first run, and return it.

    Expectations that are changed afterwards are another declaration, which says how much was known
    by then.

    Args:
        plan: the plan.
        cells: where it is kept.
        weights: hash of the model's weights.

    Returns:
        the ``date`` in UTC, and how many ``completions`` of arms, of any plan in this folder, were
        finished by then; nothing where nothing is expected.
    """
    if not plan.expect:
        return {}
    document = plan.to_document()
    inputs = {"expect": document["expect"], "evidence": document["evidence"], "weights": weights}

    def make(_: Cell) -> xr.DataTree:
        known = sum(1 for _ in cells.folder.glob("completions-*.nc"))
        date = datetime.now(UTC).strftime("%Y-%m-%d")
        return xr.DataTree(xr.Dataset(attrs={"date": date, "completions": known}))

    found = cells.one(Cell("declared", "what is expected", inputs), make)
    return {"date": str(found.attrs["date"]), "completions": int(found.attrs["completions"])}
