"""Depth as a stage of a comparison: how deep each arm's edit goes, beside the twin's."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from iarmem_plugin.errors import InputError
from iarmem_plugin.jobs.compare import cells as arm_cells
from iarmem_plugin.jobs.compare.estimate import estimate
from iarmem_plugin.jobs.compare.job import compare
from iarmem_plugin.jobs.plan.plan import Plan
from iarmem_plugin.report.depth.section import depth_table
from iarmem_plugin.report.page import render
from iarmem_plugin.report.report import Report

pytestmark = pytest.mark.filterwarnings("ignore:the threshold .* was fixed on 3 held-out images")

ROOT = Path(__file__).parents[4]
SPLIT, VALUES, NOISE = "gradient-weight, split", "values", "noise"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A plan with depth and no triggers, on 5 pictures and 6 held-out ones."""
    place, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, count in (("tried", 5), ("held-out", 6)):
        for number in range(count):
            file = place / name / str(number % 2) / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    split = {"name": SPLIT, "selector": "gradient-weight", "intervention": "scale-weights"}
    values = {"name": VALUES, "selector": "weight-norm", "intervention": "zero"}
    noise = {"name": NOISE, "edit": "logit-noise:std=2.0"}
    return {
        "model": {"name": "var-organism"},
        "twin": {"name": "var-organism-twin"},
        "pictures": {"candidates": str(place / "tried"), "held-out": str(place / "held-out")},
        "attack": {"recalibrate": False, "few-held-out": True, "batch-size": 4},
        "quality": {"losses": False},
        "recovery": {"depth": True, "pictures": 4},
        "arm": [split | {"fraction": 0.3}, values | {"fraction": 0.3}, noise],
    }


@pytest.fixture(scope="module")
def out(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compared") / "out"
    compare(Plan.from_document(document), place)
    return place


@pytest.fixture(scope="module")
def depth(out: Path) -> xr.Dataset:
    found = Report.load(out).depth
    assert found is not None
    return found


def test_every_arm_has_the_losses_of_the_pictures_that_are_tried(depth: xr.Dataset) -> None:
    assert depth["arm"].values.tolist() == ["original", SPLIT, VALUES, NOISE, "twin"]
    assert dict(depth.sizes) == {"arm": 5, "block": 4, "candidate": 4 + 3}
    assert depth["role"].values.tolist() == ["candidate"] * 4 + ["held-out"] * 3
    assert depth.attrs["prefix_tokens"] == 14


def test_the_original_is_0_deep_and_the_twin_1(out: Path) -> None:
    written = {one["arm"]: one for one in json.loads((out / "report.json").read_text())["depth"]}
    assert [written["original"][name] for name in ("depth", "low", "high")] == [0, 0, 0]
    assert [written["twin"][name] for name in ("depth", "low", "high")] == [1, 1, 1]
    assert written[NOISE]["depth"] == 0  # logits alone bear it
    assert written[VALUES]["depth"] not in (0, 1)
    assert written[SPLIT]["depth"] not in (0, 1)


def test_a_split_arm_has_its_pictures_in_the_order_of_the_others(depth: xr.Dataset) -> None:
    own = depth["loss"].transpose("arm", "candidate").values
    np.testing.assert_allclose(own[1], own[0], rtol=1e-5)
    assert len(np.unique(own[0].round(3))) == 7


def test_tables_and_page_hold_it(out: Path) -> None:
    with (out / "tables" / "depth.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    written = json.loads((out / "report.json").read_text())["depth"]
    assert [float(row["share"]) for row in table] == [
        block["share"] for one in written for block in one["blocks"]
    ]
    assert [float(row["depth"]) for row in table[::4]] == [one["depth"] for one in written]
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    jsonschema.validate(json.loads((out / "report.json").read_text()), schema)
    page = (out / "report.html").read_text()
    assert "How deep does the edit go?" in page
    assert "on 4 pictures that were to be forgotten" in page
    assert "the loss of 3 pictures never seen rises" in page


def test_a_terminal_shows_it(out: Path) -> None:
    said = str(depth_table(Report.load(out)))
    assert "How deep the edit goes" in said
    assert "1.00 [1.00, 1.00]" in said
    assert depth_table(replace(Report.load(out), depth=None)) is None


def test_all_of_it_is_recomputed_from_the_folder(out: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "recompute.py")]
    ended = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    written = json.loads((out / "report.json").read_text())
    written["depth"][1]["blocks"][2]["change"] += 0.001
    (out / "report.json").write_text(json.dumps(written))
    ended = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert "depth of gradient-weight, split: block 2: change" in ended.stdout


def test_finished_depths_are_not_measured_again(
    out: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More pictures are other depths, and the same completions."""
    ran: list[Any] = []
    known = arm_cells.run_stages

    def told(*given: Any) -> object:
        ran.append((given[1].name, *given[-1]))
        return known(*given)

    monkeypatch.setattr(arm_cells, "run_stages", told)
    compare(Plan.from_document(document), out)
    assert ran == []
    fewer = {**document, "arm": [], "recovery": {"depth": True, "pictures": 2}}
    compare(Plan.from_document(fewer), out)
    assert ran == [("original", "depth"), ("twin", "depth")]


def test_what_it_takes_is_said_before(document: dict[str, Any]) -> None:
    taken = estimate(Plan.from_document(document))
    (step,) = (one for one in taken.steps if one.name == "depth")
    assert (step.arms, step.passes) == (5, 5 * (4 + 4) * (4 + 2))  # pictures, and blocks + 2


def test_depth_needs_a_twin(document: dict[str, Any]) -> None:
    alone = {key: part for key, part in document.items() if key != "twin"}
    with pytest.raises(InputError, match=r"\[recovery\] depth is true, which is told by a model"):
        Plan.from_document(alone)


def test_without_pictures_never_seen_none_stand_beside(out: Path, depth: xr.Dataset) -> None:
    report = Report.load(out)
    alone = replace(report, depth=depth.isel(candidate=depth["role"].values != "held-out"))
    assert "never seen" in str(depth_table(report))
    assert "never seen" not in str(depth_table(alone))
    assert "pictures never seen rises" not in render(alone, {})
