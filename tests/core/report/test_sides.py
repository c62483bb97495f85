"""Two reports side by side: the same candidates and arms, with numbers counted by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from iarmem_plugin import InputError, Report, side_by_side
from iarmem_plugin.report.results import ArmResult
from iarmem_plugin.report.sides.paired import PairedOutcome
from iarmem_plugin.report.sides.reports import SideBySide
from iarmem_plugin.report.sides.settings import changes
from iarmem_plugin.report.sides.showing import NOTES, OTHER_TOKENS, notes

from .conftest import HOSTILE
from .grids import make_grid


@pytest.fixture(scope="module")
def grid() -> Report:
    """60 candidates, 40 of them canaries; two treatments and three random sets, and a twin."""
    return make_grid(selectors=1, sets=3)


def of(found: SideBySide, arm: str, group: str, outcome: str) -> PairedOutcome:
    (one,) = [
        one for one in found.outcomes if (one.arm, one.group, one.outcome) == (arm, group, outcome)
    ]
    return one


def moved(report: Report, **paths: str) -> Report:
    """Return a report whose candidates have other paths."""
    names = [paths.get(path, path) for path in report.extraction["path"].values.tolist()]
    extraction = report.extraction.assign_coords(path=("candidate", names))
    return replace(report, extraction=extraction)


def by(report: Report, tokenizer: str | None) -> Report:
    return replace(report, provenance={**report.provenance, "tokenizer_sha256": tokenizer})


def test_a_report_beside_itself_differs_in_nothing(report: Report) -> None:
    found = side_by_side(report, report)
    assert (found.both, found.alone, found.renamed, found.unlike) == (59, (0, 0), 0, 0)
    assert found.arms == tuple((arm.name, arm.name) for arm in report.arms)
    assert found.arms_alone == ((), ())
    assert found.settings == ()
    assert {one.difference for one in found.outcomes} == {0.0}
    assert {one.p for one in found.outcomes} == {1.0, None}


def test_the_same_candidates_are_paired_and_counted(report: Report) -> None:
    # the second: half of the canaries in reverse order; highest extracts 2 others and loses 1
    extracted = report.extraction["extracted"].copy(deep=True)
    row = extracted.sel(arm="highest").values
    assert row[32:44].tolist() == [True] * 3 + [False] * 9  # canary 1360
    row[32], row[40], row[41] = False, True, True
    changed = report.extraction.assign(extracted=extracted)
    kept = replace(report, extraction=changed.isel(candidate=[43, 42, 41, 40, 33, 32, 0]))
    found = side_by_side(report, kept)
    assert (found.both, found.alone) == (7, (52, 0))
    one = of(found, "highest", "canary 1360", "extracted")
    assert (one.candidates, one.only_first, one.only_second) == (6, 1, 2)
    assert (one.first, one.second) == (2 / 6, 3 / 6)
    assert one.difference == pytest.approx(1 / 6)
    assert one.p == pytest.approx(binomtest(1, 3).pvalue)
    low, high = one.low, one.high
    assert low is not None
    assert high is not None
    assert -0.5 <= low < 1 / 6 < high <= 1
    # all canaries: those and the first of canary 40, which both extract
    assert of(found, "highest", "all canaries", "extracted").second == pytest.approx(4 / 7)
    alone = of(found, "highest", "canary 40", "extracted")
    assert (alone.candidates, alone.low, alone.high) == (1, None, None)


def test_random_sets_are_joined_candidate_by_candidate(report: Report) -> None:
    one = of(side_by_side(report, report), "random (3 sets)", "canary 1360", "extracted")
    assert (one.arms, one.first, one.p) == (3, pytest.approx((9 + 11 + 10) / 36), None)


def test_arms_are_told_by_their_settings_and_not_by_their_names(report: Report) -> None:
    names = {"highest": "mine", "lowest": "highest"}
    arms = tuple(replace(arm, name=names.get(arm.name, arm.name)) for arm in report.arms)
    extraction = report.extraction.assign_coords(arm=[arm.name for arm in arms])
    other = replace(report, arms=arms, extraction=extraction)
    found = side_by_side(report, other)
    assert dict(found.arms)["highest"] == "mine"
    assert dict(found.arms)["lowest"] == "highest"
    stronger = replace(arms[1], intervention={**(arms[1].intervention or {}), "factor": 0.1})
    changed = replace(other, arms=(arms[0], stronger, *arms[2:]))
    assert side_by_side(report, changed).arms_alone == (("highest",), ("mine",))


def test_all_outcomes_and_costs_of_a_grid_stand_side_by_side(grid: Report) -> None:
    loss = grid.extraction["loss"] + 0.25
    found = side_by_side(grid, replace(grid, extraction=grid.extraction.assign(loss=loss)))
    assert {one.outcome for one in found.outcomes} == {
        *("agreement", "extracted", "recognisable", "loss")
    }
    arm = "selector-0 × 0.5, 10%"
    one = of(found, arm, "all canaries", "loss")
    assert (one.candidates, one.difference) == (40, pytest.approx(0.25))
    assert (one.low, one.high) == (pytest.approx(0.25), pytest.approx(0.25))
    (cost,) = [cost for cost in found.costs if cost.arm == arm]
    assert grid.losses is not None
    known = grid.losses.sel(arm=arm, group="held-out")
    assert cost.first == known["change"].item()
    assert (cost.first_low, cost.first_high) == (known["low"].item(), known["high"].item())
    assert cost.second == pytest.approx(cost.first)  # against its own original
    assert "original" not in {cost.arm for cost in found.costs}
    agreed = of(found, arm, "canary 500", "agreement")
    tokens = grid.extraction.sel(arm=arm)["equal_tokens"].values[:20]
    assert agreed.first == pytest.approx(((tokens - 4) / 36).mean())


def test_pictures_are_told_by_their_tokens_where_one_tokenizer_made_them(grid: Report) -> None:
    ours = by(grid, "a")
    found = side_by_side(ours, by(moved(grid, **{"3.png": "elsewhere/3.png"}), "a"))
    assert (found.both, found.renamed, found.alone) == (60, 1, (0, 0))
    assert side_by_side(ours, by(moved(grid, **{"3.png": "x"}), "b")).alone == (1, 1)
    swapped = moved(grid, **{"3.png": "4.png", "4.png": "3.png"})
    found = side_by_side(ours, by(swapped, "a"))
    assert (found.both, found.unlike, found.renamed) == (60, 2, 2)
    # without that, names alone tell
    assert side_by_side(ours, by(swapped, "b")).unlike == 0
    labels = grid.extraction["label"].values + (np.arange(60) == 5)
    relabelled = grid.extraction.assign_coords(label=("candidate", labels))
    assert side_by_side(grid, replace(grid, extraction=relabelled)).both == 59


def test_what_a_model_drew_itself_is_not_paired_by_its_name(grid: Report) -> None:
    roles = np.where(np.arange(60) == 7, "generated", grid.extraction["role"].values)
    drawn = replace(grid, extraction=grid.extraction.assign_coords(role=("candidate", roles)))
    assert side_by_side(drawn, drawn).both == 59
    assert side_by_side(by(drawn, "a"), by(drawn, "a")).both == 60


def test_reports_on_other_pictures_are_refused(grid: Report) -> None:
    names = {f"{place}.png": f"other/{place}.png" for place in range(60)}
    with pytest.raises(InputError, match="no candidate is in both reports: the first begins with"):
        side_by_side(grid, moved(grid, **names))


def test_settings_that_differ_are_named_and_what_a_run_took_is_not() -> None:
    old = {"seed": 0, "cost": {"hours": 1}, "plan": {"grid": [{"fractions": [0.1]}, {"seeds": 3}]}}
    new = {"seed": 1, "cost": {"hours": 2}, "plan": {"grid": [{"fractions": [0.2]}, {"seeds": 3}]}}
    found = [(one.key, one.old, one.new) for one in changes(old, {**new, "note": "x"})]
    assert found == [
        ("note", "", '"x"'),
        ("plan.grid.0.fractions", "[0.1]", "[0.2]"),
        ("seed", "0", "1"),
    ]


def test_thresholds_and_models_are_among_the_settings(report: Report) -> None:
    extraction = report.extraction.assign_attrs(threshold=0.8)
    other = replace(report, model="rar-organism", extraction=extraction)
    found = {one.key: (one.old, one.new) for one in side_by_side(report, other).settings}
    assert found == {
        "extraction.threshold": ("0.9", "0.8"),
        "model": ('"var-organism"', '"rar-organism"'),
    }


def test_other_tokens_in_the_two_reports_are_pointed_out(report: Report) -> None:
    other = replace(report, provenance=report.provenance | {"tokenizer_sha256": "0" * 64})
    assert notes(side_by_side(report, other)) == (*NOTES, OTHER_TOKENS)
    assert notes(side_by_side(report, report)) == NOTES


def test_it_is_written_as_json_tables_and_a_page(report: Report, tmp_path: Path) -> None:
    arms = (*report.arms[:2], replace(report.arms[2], fraction=0.2), *report.arms[3:])
    other = replace(report, arms=arms, provenance={**report.provenance, "note": f"2 {HOSTILE}"})
    found = side_by_side(report, other, names=("a", HOSTILE))
    folder = found.save(tmp_path / "sides")
    found.save(folder)  # in place of itself
    assert json.loads((folder / "comparison.json").read_text()) == found.to_dict()
    with (folder / "tables" / "outcomes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.outcomes)
    first = found.outcomes[0]
    assert rows[0]["arm"] == first.arm
    assert float(rows[0]["first"]) == first.first
    arms_csv = (folder / "tables" / "arms.csv").read_text().splitlines()
    assert arms_csv[-2:] == ["lowest,", ",lowest"]
    page = (folder / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds other files, such as 'notes.txt'"):
        found.save(tmp_path / "mine")


def test_a_terminal_shows_all_canaries_of_each_arm(report: Report) -> None:
    text = StringIO()
    Console(file=text, width=200).print(side_by_side(report, report).table())
    shown = text.getvalue()
    assert "all canaries" in shown
    assert "canary 40" not in shown
    assert "13 (0.542)" in shown  # 2 + 11 of 24
    assert "11.7 (0.486)" in shown  # random: 11, 12 and 12 of 24
    assert "-0.000" not in shown


def test_a_report_without_a_known_arm_in_the_other_still_has_its_original(report: Report) -> None:
    alone = replace(
        report,
        arms=(ArmResult("original", None, None, None, (), "original"),),
        extraction=report.extraction.isel(arm=[0]),
        neurons=None,
        gallery=(),
    )
    found = side_by_side(report, alone)
    assert found.arms == (("original", "original"),)
    assert len(found.arms_alone[0]) == len(report.arms) - 1
