"""What triggers find, each in the unmodified model and all together, and what rounding changes.

    python examples/study_triggers.py DIR/var-seed-1 DIR/rar-seed-1

Of reports that ``examples/study.py`` made. The first table has, for each trigger at its largest
budget, what is extracted and recognisable of the unmodified model and of its twin; the second, what
all triggers together find in each arm. The third holds rounded weights against the same single
attempt before rounding: where the best of several attempts counts, never-seen pictures come closer,
too, and thresholds are higher, so that columns of triggers cannot be compared as they stand.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr

HIGHEST = "canary 1360"
OUTCOMES = {"extracted": "similarity", "recognisable": "agreement"}
COLUMNS = (  # of the first table: arm and group
    *(("original", HIGHEST), ("original", "all tried"), ("twin", "all tried")),
    *(("original", "held-out"), ("twin", "held-out")),
)
HEADS = ("report", "trigger", HIGHEST, "all tried", "by the twin", "never seen", "by the twin")

Row = Mapping[str, str]


def main(
    reports: Annotated[
        list[Path], typer.Argument(exists=True, file_okay=False, help="Folders of reports.")
    ],
) -> None:
    """Print tables in Markdown; counts are of extracted, then of recognisable pictures."""
    for report in reports:
        if not (report / "recovery.nc").is_file():
            raise typer.BadParameter(f"{report} has no recovery.nc; give what study.py has written")
    tables = {
        HEADS: triggers,
        ("report", "arm", "canaries", "never seen"): together,
        ("report", "arm", "one attempt before", "8 bits", "equal tokens"): rounding,
    }
    for heads, lines in tables.items():
        found = [line for report in reports for line in lines(report)]
        print("\n".join([_line(*heads), "|---" * len(heads) + "|", *found, ""]))


def triggers(report: Path) -> Iterator[str]:
    """Yield a line for each trigger: both counts of each column, by the largest budget."""
    with (report / "tables" / "recovery.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    for name in dict.fromkeys(row["trigger"] for row in rows):
        mine = [row for row in rows if row["trigger"] == name]
        most = max((row["budget"] for row in mine), key=int)
        last = [row for row in mine if row["budget"] == most]
        yield _line(report.name, name, *(_counts(last, *column) for column in COLUMNS))


def together(report: Path) -> Iterator[str]:
    """Yield a line for each arm: found by any trigger and budget, of canaries and never-seen."""
    found = _recovery(report)
    tried = ~found.calibrates.values
    canary = found.group.str.startswith("canary").values
    for arm in found.arm.values:
        any_of = [found[one].sel(arm=arm).any("attempt").values for one in OUTCOMES]
        groups = [[int(one[tried & of].sum()) for one in any_of] for of in (canary, ~canary)]
        yield _line(report.name, str(arm), *(", ".join(map(str, one)) for one in groups))


def rounding(report: Path) -> Iterator[str]:
    """Yield a line for each arm: found by one attempt, before and after rounding, if both were run.

    The threshold before lets as many of the fixing pictures through as the one after; the change
    of the share of equal tokens is a mean over the tried canaries.
    """
    found = _recovery(report)
    if not {"relearn", "rounded"} <= set(found.trigger.values.tolist()):
        return  # the study was run with triggers of the user's own
    canaries = found.group.str.startswith("canary") & ~found.calibrates
    for arm in found.arm.values:
        of = found.sel(arm=arm)
        before = of.isel(attempt=_attempt(of, "relearn", 0))
        after = of.isel(attempt=_attempt(of, "rounded", 8))
        counts = [
            [_again(before, after, one, canaries) for one in OUTCOMES],
            [int(after[one].values[canaries].sum()) for one in OUTCOMES],
        ]
        change = float((after.agreement - before.agreement).values[canaries].mean())
        yield _line(report.name, str(arm), *(", ".join(map(str, one)) for one in counts), change)


def _recovery(report: Path) -> xr.Dataset:
    with xr.open_datatree(report / "recovery.nc") as opened:
        return opened.to_dataset().load()


def _again(before: xr.Dataset, after: xr.Dataset, outcome: str, tried: xr.DataArray) -> int:
    """Count what one attempt before rounding finds, at a threshold as strict as the one after."""
    fixing = before.calibrates.values
    through = int(after[outcome].values[fixing].sum())
    values = before[OUTCOMES[outcome]].values
    threshold = np.sort(values[fixing])[-1 - through]
    return int((values[tried] > threshold).sum())


def _attempt(found: xr.Dataset, trigger: str, budget: int) -> int:
    (places,) = np.nonzero((found.trigger.values == trigger) & (found.budget.values == budget))
    return int(places[0])


def _counts(rows: Sequence[Row], arm: str, group: str) -> str:
    by = {row["outcome"]: row for row in rows if (row["arm"], row["group"]) == (arm, group)}
    return ", ".join(f"{by[one]['recovered']} of {by[one]['pictures']}" for one in OUTCOMES)


def _line(*cells: str | float) -> str:
    shown = [_signed(one) if isinstance(one, float) else one for one in cells]
    return f"| {' | '.join(shown)} |"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")


if __name__ == "__main__":
    typer.run(main)
