"""Tables: rows of counts and quality, whatever the names of arms and groups."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from iarmem_plugin.evaluation.candidates import role_of
from iarmem_plugin.evaluation.counts import canaries, count_extracted
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import columns


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
