"""Depth against damage: a picture, a table and rank correlations of ``examples/study.py``'s rows.

    python examples/study_page.py DIR/var-seed-0.csv DIR/var-seed-1.csv --out depth-var.png

All files of one family; values of several seeds stand beside each other, in the files' order.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from scipy.stats import spearmanr

from iarmem_plugin.report.arm_figures import LINE, STYLES
from iarmem_plugin.report.backend import Axes
from iarmem_plugin.report.figures import add_legend, finish, new_figure, png

LEARNED = "extracted by learned-embedding 40"
UNSEEN = {
    one: f"never seen, {one} by any trigger, at most" for one in ("extracted", "recognisable")
}
SHOWN = {  # heads of the table, and the columns behind them
    "ΔNLL": ("held_out_change",),
    "depth": ("depth",),
    "extracted; after 40 steps of learning": ("extracted by learned-embedding 0", LEARNED),
    "given 55 tokens": ("extracted by prefix 55",),
    "best of 16 samples": ("extracted by samples 16",),
    "relearned for 0; 200 steps": ("extracted by relearn 0", "extracted by relearn 200"),
    "8 bits": ("extracted by rounded 8",),
    "recognisable; after 40 steps; relearned": (
        "recognisable by learned-embedding 0",
        "recognisable by learned-embedding 40",
        "recognisable by relearn 200",
    ),
    "never seen, at most: extracted; recognisable": tuple(UNSEEN.values()),
}
RANKED = (
    *(LEARNED, "extracted by prefix 55", "extracted by samples 16", "extracted by rounded 8"),
    *("extracted by relearn 200", "recognisable by relearn 200", "held_out_change"),
)
FEWEST = 4  # edits of a seed, whose ranks are held against those of depth
PANELS = {
    "depth": "depth",
    "extracted after 40 steps of learning": LEARNED,
    "recognisable after 200 steps of relearning": "recognisable by relearn 200",
}

Row = Mapping[str, str]


def main(
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="Rows of one family, a file a seed."),
    ],
    out: Annotated[Path, typer.Option(help="The picture to write, a .png file.")],
) -> None:
    """Draw depth and what comes back against damage; print a table, and ranks against depth."""
    seeds = [_read(file) for file in files]
    arms = list(dict.fromkeys(row["arm"] for rows in seeds for row in rows))
    out.write_bytes(drawn(seeds, arms))
    print("\n".join([*table(seeds, arms), *ranks(files, seeds)]))


def table(seeds: Sequence[Sequence[Row]], arms: Sequence[str]) -> list[str]:
    """Return the lines of a table in Markdown: an arm a line, the seeds' values side by side."""
    known = [row for rows in seeds for row in rows]
    heads = {head: some for head, some in SHOWN.items() if any(row.get(some[0]) for row in known)}
    lines = [f"| arm | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for arm in arms:
        mine = [row for row in known if row["arm"] == arm]
        cells = [" / ".join(_cell(row, some) for row in mine) for some in heads.values()]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def _cell(row: Row, columns: Sequence[str]) -> str:
    return ", ".join(_short(row.get(one, ""), one) for one in columns)


def _short(value: str, column: str) -> str:
    if not value:
        return "–"
    if column == "held_out_change":
        change = round(float(value), 3) + 0.0  # no −0
        return f"{change:+.3f}".replace("-", "−") if float(value) else "–"
    return f"{float(value):.2f}" if column == "depth" else value


def ranks(files: Sequence[Path], seeds: Sequence[Sequence[Row]]) -> list[str]:
    """Return a table of Spearman's rank correlations with depth, over the edits of each seed."""
    edits = [[row for row in rows if row["arm"] not in ("original", "twin")] for rows in seeds]
    lines = []
    for column in RANKED:
        known = [[row for row in rows if row.get(column) and row.get("depth")] for rows in edits]
        cells = [_rank(rows, column) for rows in known]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {column} | {' | '.join(cells)} |")
    heads = [f"{file.stem} ({len(rows)})" for file, rows in zip(files, edits, strict=True)]
    head = f"| rank correlation with depth, over edits | {' | '.join(heads)} |"
    return ["", head, "|---" * (len(heads) + 1) + "|", *lines] if lines else []


def _rank(rows: Sequence[Row], column: str) -> str:
    depths, values = ([float(row[one]) for row in rows] for one in ("depth", column))
    if len(rows) < FEWEST or len(set(depths)) == 1 or len(set(values)) == 1:
        return "–"
    return f"{spearmanr(depths, values).statistic:+.2f}".replace("-", "−")


def drawn(seeds: Sequence[Sequence[Row]], arms: Sequence[str]) -> bytes:
    """Return the picture: a panel a quantity that was measured, the same mark for an arm."""
    known = [row for rows in seeds for row in rows]
    shown = {name: one for name, one in PANELS.items() if any(row.get(one) for row in known)}
    figure = new_figure(1.4 + 4.1 * len(shown), 4.4)
    handles: dict[str, Any] = {}
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, column) in zip(panels, shown.items(), strict=True):
        handles |= _marks(axes, seeds, arms, column)
        axes.set_ylabel(name)
        axes.set_xlabel("ΔNLL on held-out pictures [nats a token]")
    add_legend(figure, list(handles.values()), list(handles), fontsize=8.5)
    return png(figure)


def _marks(
    axes: Axes, seeds: Sequence[Sequence[Row]], arms: Sequence[str], column: str
) -> dict[str, Any]:
    finish(axes)
    axes.grid(color=LINE, linewidth=0.5)
    found: dict[str, Any] = {}
    for place, arm in enumerate(arms):
        mine = [row for rows in seeds for row in rows if row["arm"] == arm and row.get(column)]
        points = [(float(row["held_out_change"]), float(row[column])) for row in mine]
        if points:
            colour, marker = STYLES[place % len(STYLES)]
            (found[arm],) = axes.plot(*zip(*points, strict=True), marker, color=colour)
    return found


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return [row | _most(row) for row in csv.DictReader(opened)]


def _most(row: Row) -> dict[str, str]:
    """Return the most never-seen pictures that a trigger made of an arm, by any budget."""
    found = {}
    for outcome, column in UNSEEN.items():
        start = f"never seen, {outcome} by"
        counts = [int(value) for key, value in row.items() if key.startswith(start) and value]
        found[column] = str(max(counts)) if counts else ""
    return found


if __name__ == "__main__":
    typer.run(main)
