"""Tables: rows of counts and quality, whatever the names of arms and groups."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from iarmem_plugin.evaluation.counts import canaries, count_extracted
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.interfaces.organism import role_of
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import Cell, columns, findings, headline, quality_rows


def test_candidates_without_canaries_are_paired_over_all_but_held_out(report: Report) -> None:
    groups = [group.replace("canary", "rank") for group in report.extraction["group"].values]
    roles = [role_of(group) for group in groups]
    extraction = report.extraction.assign_coords(
        group=("candidate", groups), role=("candidate", roles)
    )
    shown = replace(report, extraction=extraction)
    assert set(shown.to_dict()["arms"][0]["extraction"]) == set(groups)
    assert int(count_extracted(extraction, canaries(extraction))["candidates"][0]) == 39


def test_the_terminal_table_gives_counts_ranges_and_quality(report: Report) -> None:
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(report.table())
    text = console.export_text()
    assert "11/12" in text
    assert "9–11/12" in text
    assert "13–15" in text
    assert "FID (emoji classifier" in text


def test_markup_in_names_is_printed_and_not_obeyed(report: Report) -> None:
    groups = [group.replace("member", "[red]") for group in report.extraction["group"].values]
    extraction = report.extraction.assign_coords(group=("candidate", groups))
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(replace(report, extraction=extraction).table())
    assert "[red]" in console.export_text()


def test_controls_are_told_by_their_role_and_not_by_their_selector(report: Report) -> None:
    names = ("original", "highest", "lowest", "random 1", "random 2", "random 3")
    assert list(columns(report.arms)) == [*names[:3], "random (3 sets)"]
    treated = tuple(replace(arm, role="treatment") for arm in report.arms)
    assert list(columns(treated)) == list(names)


def test_controls_of_another_setting_are_shown_apart(report: Report) -> None:
    arms = (*report.arms[:-1], replace(report.arms[-1], fraction=0.2))
    assert columns(arms)["random (2 sets)"] == ("random 1", "random 2")
    assert columns(arms)["random 3"] == ("random 3",)


def test_print_shows_the_table_at_80_columns(
    report: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print(report.table())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line.replace("│", " ").split() for line in lines if "canary 1360" in line]
    assert row == ["canary", "1360", "11/12", "3/12", "11/12", "9–11/12"]
    assert "FID [1]" in "\n".join(lines)


def test_of_many_arms_each_has_a_row(many: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = str(many.table()).splitlines()
    rows = [line.replace("│", " ").split() for line in lines]
    assert ["highest", "35", "3/12", "1/12", "1/15", "0/20", "11"] in rows
    assert ["random", "(3", "sets)", "9–11/12", "1–2/12", "2–3/15", "0/20", "13–15"] in rows


def test_the_headline_tells_many_arms_together(many: Report) -> None:
    assert headline(many) == (
        "original: 11 of 12 “canary 1360” candidates extracted; 36 arms: 3 of 12; "
        "random (3 sets): 9–11 of 12."
    )


def test_sets_are_called_by_what_they_are(report: Report) -> None:
    drawn = [
        replace(arm, selector={**(arm.selector or {}), "name": "quietest"})
        for arm in report.arms[3:]
    ]
    other = replace(report, arms=(*report.arms[:3], *drawn))
    assert "control (3 sets)" in columns(other.arms)
    assert "Of 3 control sets at equal fraction, which left 11–12 extracted" in next(
        findings(other)
    )


def test_an_arm_named_as_sets_are_is_kept(report: Report) -> None:
    arms = list(report.arms)
    arms[1] = replace(arms[1], name="random (3 sets)")
    assert [len(names) for names in columns(tuple(arms)).values()] == [1, 1, 1, 3]


def test_a_report_says_in_a_line_what_it_is(report: Report) -> None:
    assert repr(report) == (
        "<Report of var-organism: 59 candidates, 6 arms: original, highest, lowest, random 1, "
        "random 2, random 3>"
    )


def test_image_quality_shows_errors_deviations_floors_and_marks(report: Report) -> None:
    label = "KID (features, reference pictures n=9, generated n=9)"
    kid = QualityValue(f"{label}, temperature 1, mean of 3 seeds", 0.02, 9, 0.004, 0.001)
    low = replace(kid, value=-0.03, mark="sharper, not better")
    values = (kid, kid, low, kid, low, low)
    arms = tuple(replace(arm, quality=(one,)) for arm, one in zip(report.arms, values, strict=True))
    floors = {"one half": (QualityValue(label, -0.01, 9, 0.002),)}
    (row,) = quality_rows(shown := replace(report, arms=arms, floors=floors))
    assert row.name == f"{kid.label}; real pictures: -0.01 ± 0.002"
    assert row.cells["original"] == Cell("0.02", "± 0.004, sd 0.001")
    assert row.cells["lowest"] == Cell("-0.03*", "± 0.004, sd 0.001, sharper, not better")
    assert row.cells["random (3 sets)"] == Cell("-0.03–0.02*", "2 of 3 sharper, not better")
    table = str(shown.table())
    assert "* below real pictures held against real pictures: sharper, not better" in table
    assert "sharper" not in str(report.table())
    assert shown.to_dict()["floors"]["one half"][0]["error"] == 0.002
    assert shown.to_dict()["arms"][2]["quality"][0]["mark"] == "sharper, not better"
