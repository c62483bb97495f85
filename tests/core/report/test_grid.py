"""A report of many arms: tables as CSV, the table grouped, the figure, and the plan."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iarmem_plugin.report.grid.csv_tables import COLUMNS, csv_tables
from iarmem_plugin.report.grid.figure import series
from iarmem_plugin.report.page import render
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import columns

from .conftest import HOSTILE
from .grids import make_grid

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def grid() -> Report:
    return make_grid()


@pytest.fixture(scope="module")
def folder(grid: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grid.save(tmp_path_factory.mktemp("grid") / "report")


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))


def test_every_table_is_a_file_with_its_columns(folder: Path) -> None:
    found = {file.stem: file.read_bytes() for file in (folder / "tables").iterdir()}
    assert sorted(found) == sorted(
        {*COLUMNS} - {"depth", "published", "recovery"}
    )  # nothing was, of an organism
    for name, content in found.items():
        assert tuple(rows(content)[0]) == COLUMNS[name]


def test_the_docs_name_every_table_and_column() -> None:
    text = (ROOT / "docs" / "report.md").read_text()
    section = text[text.index("## tables/*.csv") :].partition("\n## ")[0]
    for name, names in COLUMNS.items():
        (line,) = re.findall(rf"^\| `{name}\.csv` \| .*$", section, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", line)) == set(names)


def test_numbers_are_written_in_full(grid: Report, folder: Path) -> None:
    losses = rows((folder / "tables" / "losses.csv").read_bytes())
    change = grid.losses["change"].sel(arm=grid.arms[3].name, group="held-out").item()  # type: ignore[index]  # it has losses
    (found,) = (
        row for row in losses if (row["arm"], row["group"]) == (grid.arms[3].name, "held-out")
    )
    assert float(found["change"]) == change
    assert found["role"] == "held-out"


def test_foreign_text_is_no_formula_and_what_is_not_known_is_empty(grid: Report) -> None:
    found = csv_tables(grid, grid.to_dict())
    (dropped,) = rows(found["tables/dropped.csv"])
    assert dropped == {"name": "'=1+1", "before": "images", "why": f"loss above 0.5 {HOSTILE}"}
    original = rows(found["tables/arms.csv"])[0]
    assert {original[name] for name in ("fraction", "selector", "neurons_edited")} == {""}


def test_a_table_without_rows_is_left_out(report: Report) -> None:
    found = csv_tables(report, report.to_dict())
    assert not {"tables/losses.csv", "tables/dropped.csv", "tables/failed.csv"} & set(found)


def test_the_tables_are_checked_from_the_folder(folder: Path) -> None:
    command = [sys.executable, ROOT / "examples" / "recompute.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    file = folder / "tables" / "arms.csv"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b",0.02,", b",0.03,", 1))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    file.write_bytes(whole)
    assert (done.returncode, done.stdout.split(":")[:3]) == (
        1,
        ["arms.csv", " line 3", " fraction"],
    )


def test_a_report_without_tables_is_still_read(folder: Path) -> None:
    for file in (folder / "tables").iterdir():
        file.rename(folder / file.name)
    assert len(Report.load(folder).arms) == 62
    for name in {*COLUMNS} - {"depth", "published", "recovery"}:
        (folder / f"{name}.csv").rename(folder / "tables" / f"{name}.csv")


def test_random_sets_stand_beside_the_treatments_they_are_held_against(grid: Report) -> None:
    found = list(columns(tuple(reversed(grid.arms[1:-1]))).items())
    arms = {arm.name: arm for arm in grid.arms}
    edits = [(str(arms[names[0]].intervention), arms[names[0]].fraction) for _, names in found]
    assert len(found) == 2 * 3 * (5 + 1)
    assert len(set(edits)) == 6
    assert edits == sorted(edits, key=edits.index)  # each edit's rows stand together
    assert [len(names) for _, names in found] == [1, 1, 1, 1, 1, 5] * 6


def test_the_original_comes_first_and_the_twin_last(grid: Report) -> None:
    assert list(columns(grid.arms))[:: len(columns(grid.arms)) - 1] == ["original", "twin"]


def test_treatments_that_differ_in_their_fraction_are_one_line(grid: Report) -> None:
    found = series(grid.arms)
    assert [[arm.fraction for arm in same] for same in found.values()] == [[0.02, 0.05, 0.1]] * 10


def test_the_figure_is_drawn_where_losses_are_known(folder: Path, report: Report) -> None:
    assert (folder / "figures" / "outcomes_against_loss.png").exists()
    assert "outcomes_against_loss" not in render(report, {})


def test_the_page_says_what_was_planned_dropped_and_failed(grid: Report, report: Report) -> None:
    page = render(grid, {})
    plan = page[page.index('id="plan"') : page.index('id="extraction"')]
    assert HOSTILE not in plan
    for text in ("grid 1.fractions", "0.02, 0.05, 0.1", "dropped before its images", "failed in"):
        assert text in plan
    assert 'id="plan"' not in render(report, {})


def test_sets_that_are_matched_to_something_stand_apart(grid: Report) -> None:
    sets = [arm for arm in grid.arms if arm.role == "control"][:4]
    matched = [
        replace(arm, name=f"matched {arm.name}", selector={**(arm.selector or {}), "matched": 1})
        for arm in sets
    ]
    assert [len(names) for names in columns((*sets, *matched)).values()] == [4, 4]
