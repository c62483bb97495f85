"""How much work brings pictures back: a stage of a comparison, and a command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iarmem_plugin.cli import compare as cli
from iarmem_plugin.cli.attack import attack
from iarmem_plugin.errors import InputError
from iarmem_plugin.jobs.compare import cells as arm_cells
from iarmem_plugin.jobs.compare.estimate import estimate
from iarmem_plugin.jobs.compare.job import compare
from iarmem_plugin.jobs.plan.plan import Plan
from iarmem_plugin.jobs.plan.writing import as_toml
from iarmem_plugin.jobs.triggers.job import attack_plan
from iarmem_plugin.report.recovery.rows import TRIED, UNSEEN, recovered_rows
from iarmem_plugin.report.recovery.section import recovery_table
from iarmem_plugin.report.report import Report

pytestmark = pytest.mark.filterwarnings("ignore:the threshold .* was fixed on 21 held-out images")

MODEL = "var-organism"
PREFIX, EMBEDDING = "prefix:budgets='1,5'", "learned-embedding:budgets='0,1'"
DRAWN = "samples:budgets='1'"
SPLIT = "gradient-weight, split"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 4 pictures that are ``tried`` and 42 ``held-out`` ones."""
    place, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, count in (("tried", 4), ("held-out", 42)):
        for number in range(count):
            file = place / name / str(number % 2) / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    return place


def document(folder: Path, **recovery: Any) -> dict[str, Any]:
    return {
        "model": {"name": MODEL},
        "pictures": {"candidates": str(folder / "tried"), "held-out": str(folder / "held-out")},
        "attack": {"recalibrate": False},
        "quality": {"losses": False},
        "recovery": {"triggers": [PREFIX, EMBEDDING], "pictures": 3, "calibration": 20} | recovery,
        "arm": [
            {
                "name": SPLIT,
                "selector": "gradient-weight",
                "intervention": "scale-weights",
                "fraction": 0.2,
            },
            {
                "name": "largest",
                "selector": "weight-norm",
                "intervention": "zero-weights",
                "fraction": 0.1,
                "role": "control",
            },
        ],
    }


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison with triggers, tried in the original and in the split arm."""
    plan = Plan.from_document(document(folder, arms=["original", SPLIT], membership=True))
    place = tmp_path_factory.mktemp("compared") / "out"
    compare(plan, place)
    return place


def test_triggers_are_tried_on_candidates_and_beside_them_on_as_many_never_seen(out: Path) -> None:
    found = Report.load(out).recovery
    assert found is not None
    assert found["arm"].values.tolist() == ["original", SPLIT]
    assert found["budget"].values.tolist() == [1, 5, 0, 1]
    fixing = found["calibrates"].values.astype(bool)
    assert fixing.sum() == 20
    assert found["group"].values[~fixing].tolist() == ["candidate"] * 3 + ["held-out"] * 3
    assert len(set(found["image"].values.tolist())) == found.sizes["candidate"]


def test_no_more_never_seen_pictures_than_stated_are_above_thresholds(out: Path) -> None:
    found = Report.load(out).recovery
    assert found is not None
    fixing = found.isel(candidate=found["calibrates"].values.astype(bool))
    assert not fixing["extracted"].any()  # 1% of 20
    assert not fixing["recognisable"].any()


def test_a_split_arm_has_its_pictures_in_the_order_of_the_others(out: Path) -> None:
    """What each half gives is put back to its own picture: VAR's first token is the true one."""
    found = Report.load(out).recovery
    assert found is not None
    longer = found.sel(arm=SPLIT).isel(attempt=1)["similarity"].values
    other = found.sel(arm="original").isel(attempt=1)["similarity"].values
    assert np.corrcoef(longer, other)[0, 1] > 0.8  # halved neurons change completions a little


def test_tables_and_document_hold_the_same_counts(out: Path) -> None:
    report = Report.load(out)
    assert report.recovery is not None
    rows = recovered_rows(report.recovery)
    written = report.to_dict()["recovery"]
    assert [one["recovered"] for one in written] == [list(one.counts) for one in rows]
    with (out / "tables" / "recovery.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [int(one["recovered"]) for one in table] == [n for one in rows for n in one.counts]
    assert {one["group"] for one in table} == {TRIED, "candidate", UNSEEN}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Forgotten, or only hidden?" in page
    assert (out / "figures" / "recovery.png").stat().st_size > 1000


def test_finished_attempts_are_not_repeated(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(arm_cells, "run_stages", lambda *given: ran.append(str(given[-1])))
    before = Report.load(out)
    compare(Plan.from_document(document(folder, arms=["original", SPLIT], membership=True)), out)
    after = Report.load(out)
    assert ran == []
    assert before.recovery is not None
    assert after.recovery is not None
    assert before.recovery.identical(after.recovery)


def test_a_further_trigger_is_tried_alone_and_each_has_its_own_cell(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []
    run = arm_cells.run_stages

    def told(model: Any, arm: Any, neurons: Any, attack: Any, *rest: Any) -> Any:
        if rest[-1] == ("recovery",):
            tried.append([one.name for one in attack.recovery.triggers])
        return run(model, arm, neurons, attack, *rest)

    monkeypatch.setattr(arm_cells, "run_stages", told)
    known = document(folder, triggers=[PREFIX, EMBEDDING], arms=["original"]) | {"arm": []}
    before = compare(Plan.from_document(known), tmp_path / "out").recovery
    assert tried == [["prefix"], ["learned-embedding"]]
    known["recovery"]["triggers"] = ["rounded", PREFIX, EMBEDDING]
    after = compare(Plan.from_document(known), tmp_path / "out").recovery
    assert tried[2:] == [["rounded"]]
    assert before is not None
    assert after is not None
    assert after.isel(attempt=slice(1, None)).identical(before)


def test_every_arm_says_by_how_much_it_takes_candidates_for_members(out: Path) -> None:
    report = Report.load(out)
    assert report.membership is not None
    assert report.membership["arm"].values.tolist() == ["original", SPLIT, "largest"]
    assert report.membership["image"].values.tolist() == report.extraction["image"].values.tolist()
    with (out / "tables" / "membership.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert {(one["group"], one["against"]) for one in table} == {("candidate", "held-out")}
    assert "Does the model still take them for members?" in (out / "report.html").read_text()


def test_all_of_it_is_recomputed_from_the_folder(out: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[4] / "examples" / "recompute.py")]
    ended = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert len(report["recovery"]) == 2 * 2 * 2 * 3  # arms, triggers, outcomes, groups


def test_what_it_takes_is_said_before(folder: Path) -> None:
    taken = estimate(Plan.from_document(document(folder, arms=["original"])))
    (step,) = (one for one in taken.steps if one.name == "recovery")
    assert (step.arms, step.images) == (1, 3 + 3 + 20)
    assert step.passes == 26 * (2 + 3 + 2)  # two prefixes; a step of three, and two completions


@pytest.mark.parametrize(
    ("recovery", "message"),
    [
        ({"arms": ["nothing"]}, r"\[recovery\] arms has 'nothing'"),
        ({"triggers": ["nothing"]}, "no trigger named 'nothing'; installed: learned-embedding"),
        ({"triggers": ["prefix:budgets='5,1'"]}, "expected numbers that rise"),
        ({"triggers": ["learned-embedding:lr=0"]}, "expected a number above 0"),
    ],
)
def test_triggers_that_cannot_be_are_refused(
    folder: Path, recovery: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Plan.from_document(document(folder, **recovery))


def test_triggers_need_pictures_never_seen(folder: Path) -> None:
    given = document(folder)
    del given["pictures"]["held-out"]
    with pytest.raises(InputError, match="thresholds are fixed on pictures never seen"):
        Plan.from_document(given)


def test_one_trigger_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    plan = Plan.from_document(document(folder, triggers=["prefix", "prefix"]))
    with pytest.raises(InputError, match="'prefix' was given twice"):
        compare(plan, tmp_path / "out")


def test_the_command_attacks_a_model_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Plan] = []
    monkeypatch.setattr(cli, "run_and_show", lambda plan, *_, **__: ran.append(plan))
    pictures = {"candidates": folder / "tried", "held_out": folder / "held-out"}
    attack(MODEL, out=tmp_path / "out", trigger=[PREFIX], pictures=2, **pictures)
    (plan,) = ran
    compare(plan, tmp_path / "out")
    report = Report.load(tmp_path / "out")
    said = str(recovery_table(report.recovery))
    assert report.recovery is not None
    assert "How much work brings pictures back" in said
    assert "original" in said


def test_the_command_needs_a_folder() -> None:
    with pytest.raises(InputError, match="--out is missing"):
        attack(MODEL)


def test_the_edits_of_a_comparison_are_attacked(out: Path) -> None:
    plan = attack_plan({"name": MODEL}, mitigated=out, arms=[SPLIT], triggers=["rounded"])
    assert plan.recovery.arms == (SPLIT,)
    assert plan.recovery.triggers == ("rounded",)
    assert [one.name for one in plan.arms()] == [SPLIT]
    assert Plan.from_document(plan.to_document()) == plan


def test_arms_that_are_not_named_are_not_run_again(folder: Path, tmp_path: Path) -> None:
    """Of splits and grids, the named ones alone, as they were; no twin, and no images."""
    given = document(folder, triggers=[]) | {
        "evidence": {"splits": 3},
        "scores": {},
        "twin": {"name": "var-organism-twin"},
        "pictures": {"organism": True, "members": 0},
        "quality": {"images": "fid", "generated": 2},
        "grid": [{"fractions": [0.1, 0.2], "random-sets": 2}],
    }
    file, whole = tmp_path / "plan.toml", Plan.from_document(given)
    file.write_text(whole.to_toml(), encoding="utf-8")
    drawn = [one.name for one in whole.arms() if one.name.startswith("random 2")]
    wanted = [SPLIT, drawn[-1]]
    plan = attack_plan({"name": MODEL}, mitigated=file, arms=["original", *wanted])
    before = {one.name: one for one in whole.arms()}
    assert {one.name: replace(one, stands_for=()) for one in plan.arms()} == {
        name: replace(before[name], stands_for=()) for name in wanted
    }
    assert plan.twin is None
    assert plan.quality.images is None
    third = attack_plan({"name": MODEL}, mitigated=file, arms=[f"{SPLIT}, split 2", "twin"])
    assert [one.name for one in third.arms()] == [SPLIT, f"{SPLIT}, split 2"]
    assert third.twin == whole.twin


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arms": ["nothing"]}, "has no arm 'nothing'; it has: original, 'gradient-weight"),
        ({"candidates": "x"}, "has pictures of its own"),
    ],
)
def test_what_a_comparison_does_not_have_is_refused(
    out: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        attack_plan({"name": MODEL}, mitigated=out, **given)


def test_a_comparison_of_another_model_is_refused(out: Path) -> None:
    with pytest.raises(InputError, match="not of rar-organism; name that model"):
        attack_plan({"name": "rar-organism"}, mitigated=out)


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("var-d16", {}, "comes without pictures"),
        (MODEL, {"candidates": "x"}, "give both"),
    ],
)
def test_pictures_are_asked_for(model: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack_plan({"name": model}, **given)


def test_triggers_draw_as_the_plan_draws_images(folder: Path, tmp_path: Path) -> None:
    written = document(folder, triggers=[DRAWN, f"{DRAWN},temperature=0.7", PREFIX]) | {"arm": []}
    written["quality"] |= {"temperature": 0.5}
    report = compare(Plan.from_document(written), tmp_path / "drawn")
    assert report.recovery is not None
    assert list(dict.fromkeys(report.recovery["trigger"].to_numpy().tolist())) == [
        "samples(budgets=[1],temperature=0.5)",
        "samples(budgets=[1],temperature=0.7)",
        "prefix(budgets=[1,5])",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "recorded"), [("var", 0.6), ("rar", 0.9)])
def test_triggers_draw_as_an_organism_was_tuned(
    family: str, recorded: float, tmp_path: Path
) -> None:
    planned = attack_plan({"name": f"{family}-organism"}, triggers=[DRAWN], pictures=2)
    written = planned.to_document() | {"twin": None, "quality": {"losses": False}}
    written["recovery"] |= {"calibration": 20}
    report = compare(Plan.from_document(written), tmp_path / "organism")
    assert report.recovery is not None
    assert report.recovery["trigger"].to_numpy()[0] == (
        f"samples(budgets=[1],temperature={recorded})"
    )


def test_an_attack_on_a_comparison_draws_as_it_does(folder: Path, tmp_path: Path) -> None:
    written = document(folder)
    written["quality"] |= {"temperature": 0.5, "generated": 100}
    file = tmp_path / "plan.toml"
    file.write_text(as_toml(Plan.from_document(written)), encoding="utf-8")
    planned = attack_plan({"name": MODEL}, mitigated=file)
    assert (planned.quality.temperature, planned.quality.images) == (0.5, None)
