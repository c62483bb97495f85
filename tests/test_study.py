"""The study of training seeds: its plan for a seed, and its rows from a report's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import xarray as xr

import iarmem_plugin as iarmem

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, as a module."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import study as program

    return program


def test_a_trained_seed_takes_its_own_weights_and_fewer_arms(study: Any, tmp_path: Path) -> None:
    folder = tmp_path / "rar" / "seed-1"
    folder.mkdir(parents=True)
    for name in ("transformer", "twin"):
        (folder / f"{name}.safetensors").touch()
    file = study.planned("rar", folder, tmp_path / "plan.toml", ["rounded"])
    plan = iarmem.read_plan(file)
    assert plan.model.name == "rar-organism"
    assert plan.model.weights == folder / "transformer.safetensors"
    assert plan.twin is not None
    assert plan.twin.weights == folder / "twin.safetensors"
    assert {one.whole_name for one in plan.arms()} == set(study.ARMS)
    assert plan.recovery.triggers == ("rounded",)


def test_the_bundled_seed_takes_all_arms_of_the_preset(study: Any, tmp_path: Path) -> None:
    plan = iarmem.read_plan(study.planned("var", None, tmp_path / "plan.toml"))
    assert plan.model.weights is None
    assert set(study.ARMS) < {one.whole_name for one in plan.arms()}


def write(file: Path, heads: str, *rows: str) -> None:
    file.write_text("\n".join([heads, *rows]) + "\n", encoding="utf-8")


def test_a_row_holds_what_an_edit_costs_and_what_comes_back(study: Any, tmp_path: Path) -> None:
    write(tmp_path / "arms.csv", "arm,held_out_change,held_out_low,held_out_high", "a,0.1,0.0,0.2")
    write(
        tmp_path / "recovery.csv",
        "arm,trigger,outcome,group,budget,recovered",
        "a,prefix,extracted,all tried,0,5",
        "a,prefix,extracted,canary 40,0,2",
        "a,prefix,extracted,held-out,0,1",
        "b,prefix,extracted,all tried,0,7",
    )
    assert study.rows(tmp_path, "var", 2) == [
        {
            "family": "var",
            "seed": 2,
            "arm": "a",
            "held_out_change": "0.1",
            "held_out_low": "0.0",
            "held_out_high": "0.2",
            "depth": "",
            "depth_low": "",
            "depth_high": "",
            "extracted by prefix 0": "5",
            "never seen, extracted by prefix 0": "1",
        }
    ]


def test_what_was_not_measured_of_an_arm_is_empty(study: Any, tmp_path: Path) -> None:
    study.write([{"arm": "a"}, {"arm": "b", "depth": "0.5"}], tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8").split() == [
        "arm,depth",
        "a,",
        "b,0.5",
    ]


def test_a_trigger_is_named_without_options_where_it_is_tried_once(
    study: Any, tmp_path: Path
) -> None:
    write(tmp_path / "arms.csv", "arm,held_out_change,held_out_low,held_out_high", "a,0.1,0.0,0.2")
    write(
        tmp_path / "recovery.csv",
        "arm,trigger,outcome,group,budget,recovered",
        "a,samples(temperature=0.6),extracted,all tried,16,5",
        "a,rounded(budgets=[8]),extracted,all tried,8,4",
        "a,rounded(budgets=[4]),extracted,all tried,4,3",
    )
    (row,) = study.rows(tmp_path, "var", 0)
    counts = {name: value for name, value in row.items() if name.startswith("extracted")}
    assert counts == {
        "extracted by samples 16": "5",
        "extracted by rounded(budgets=[8]) 8": "4",
        "extracted by rounded(budgets=[4]) 4": "3",
    }


def test_the_page_of_several_seeds_has_their_values_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import study_page

    learned = "extracted by learned-embedding 40"
    counts = ("extracted by prefix 5", "extracted by rounded 8", "recognisable by prefix 5")
    unseen = ",".join(f'"never seen, {one}"' for one in counts)
    heads = f"arm,held_out_change,depth,extracted by learned-embedding 0,{learned},{unseen}"
    write(
        tmp_path / "0.csv",
        heads,
        "original,0.0,0.0,9,10,1,2,4",
        '"random, halved",0.125,0.5,3,8,0,,1',
    )
    write(tmp_path / "1.csv", heads, "original,0.0,0.0,8,9,3,0,0")
    study_page.main([tmp_path / "0.csv", tmp_path / "1.csv"], tmp_path / "page.png")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "| arm | ΔNLL | depth | extracted; after 40 steps of learning "
        "| never seen, at most: extracted; recognisable |"
    )
    assert said[2] == "| original | – / – | 0.00 / 0.00 | 9, 10 / 8, 9 | 2, 4 / 3, 0 |"
    assert said[3] == "| random, halved | +0.125 | 0.50 | 3, 8 | 0, 1 |"
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_tells_what_relearning_makes_recognisable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import study_page

    drawn: list[Any] = []
    monkeypatch.setattr(study_page, "png", lambda figure: drawn.append(figure) or b"picture")
    budgets = ("learned-embedding 0", "learned-embedding 40", "relearn 200")
    heads = ",".join(f"recognisable by {one}" for one in budgets)
    write(tmp_path / "0.csv", f"arm,held_out_change,depth,{heads}", "ascent,0.5,0.72,1,24,59")
    study_page.main([tmp_path / "0.csv"], tmp_path / "page.png")
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("| recognisable; after 40 steps; relearned |")
    assert said[2] == "| ascent | +0.500 | 0.72 | 1, 24, 59 |"
    panels = {axes.get_ylabel(): axes.lines[0].get_xydata().tolist() for axes in drawn[0].axes}
    assert panels == {
        "depth": [[0.5, 0.72]],
        "recognisable after 200 steps of relearning": [[0.5, 59.0]],
    }


def test_the_page_ranks_edits_by_depth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import study_page

    heads = "arm,held_out_change,depth,extracted by rounded 8"
    edits = ("a,0.1,0.1,9", "b,0.1,0.2,7", "c,0.1,0.3,8", "d,0.1,0.4,1")
    write(tmp_path / "0.csv", heads, "original,0.0,0.0,0", *edits, "twin,0.0,1.0,90")
    write(tmp_path / "1.csv", heads, *edits[:3])
    study_page.main([tmp_path / "0.csv", tmp_path / "1.csv"], tmp_path / "page.png")
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == [
        "| rank correlation with depth, over edits | 0 (4) | 1 (3) |",
        "|---|---|---|",
        "| extracted by rounded 8 | −0.80 | – |",
    ]


def test_rounded_weights_are_held_against_one_attempt_as_strict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import study_triggers

    def values(before: list[float], middle: list[float], after: list[float]) -> tuple[Any, Any]:
        return ("arm", "attempt", "candidate"), np.array([[before, middle, after]])

    similarity = values(
        [0.9, 0.5, 0.1, 0.3, 0.4, 0.2],
        [0.1, 0.1, 0.7, 0.1, 0.1, 0.1],
        [0.8, 0.7, 0.1, 0.3, 0.6, 0.2],
    )
    agreement = values(
        [0.5, 0.5, 0.5, 0.0, 0.1, 0.9],
        [0.1, 0.9, 0.1, 0.1, 0.1, 0.1],
        [0.6, 0.5, 0.4, 0.0, 0.1, 0.7],
    )
    found = xr.Dataset(
        {
            "similarity": similarity,
            "agreement": agreement,
            "extracted": (similarity[0], similarity[1] > 0.55),  # one fixing picture through
            "recognisable": (agreement[0], agreement[1] > 0.65),  # one
        },
        coords={
            "arm": ["original"],
            "trigger": ("attempt", ["relearn", "relearn", "rounded"]),
            "budget": ("attempt", [0, 200, 8]),
            "group": ("candidate", ["canary 40", "canary 40", "held-out", *["held-out"] * 3]),
            "calibrates": ("candidate", [False, False, False, True, True, True]),
        },
    )
    xr.DataTree(found).to_netcdf(tmp_path / "recovery.nc", engine="h5netcdf")
    assert list(study_triggers.rounding(tmp_path)) == [
        f"| {tmp_path.name} | original | 2, 2 | 2, 0 | +0.050 |"
    ]
    assert list(study_triggers.together(tmp_path)) == [
        f"| {tmp_path.name} | original | 2, 1 | 1, 0 |"
    ]


def test_each_trigger_is_told_at_its_largest_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import study_triggers

    (tmp_path / "tables").mkdir()
    asked = [
        f"{arm},relearn,{outcome},{group},{budget},{count + (outcome == 'recognisable')},9"
        for budget, more in ((20, 0), (200, 3))
        for count, (arm, group) in enumerate(study_triggers.COLUMNS, more)
        for outcome in study_triggers.OUTCOMES
    ]
    write(
        tmp_path / "tables" / "recovery.csv",
        "arm,trigger,outcome,group,budget,recovered,pictures",
        *asked,
    )
    counts = " | ".join(f"{count} of 9, {count + 1} of 9" for count in range(3, 8))
    assert list(study_triggers.triggers(tmp_path)) == [f"| {tmp_path.name} | relearn | {counts} |"]


def test_a_folder_without_triggers_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import study_triggers

    with pytest.raises(typer.BadParameter, match=r"has no recovery\.nc; give what study\.py"):
        study_triggers.main([tmp_path])
