"""Published numbers stand beside the arms of the same model and edit, and beside no others."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report.published.beside import edits_of, facts, published, published_lines
from iarmem_plugin.report.report import Report

RECOMPUTE = Path(__file__).parents[3] / "examples" / "recompute.py"
FID = "FID (Inception v3, reference {} n=not recorded, generated n=50000)"


def of_model(report: Report, model: str, fraction: float = 0.1, **changed: Any) -> Report:
    """The report as if of another model, its treatments at another fraction."""
    arms = [report.arms[0]]
    for arm in report.arms[1:]:
        selector = {**(arm.selector or {}), **changed}
        arms.append(replace(arm, fraction=fraction, selector=selector))
    return replace(report, model=model, arms=tuple(arms))


def test_the_papers_arms_stand_beside_its_numbers(report: Report) -> None:
    original, highest = published(of_model(report, "var-d30"))
    assert (original.arm, original.published_extracted, original.published_fid) == (
        *("original", 672),
        1.97,
    )
    assert (highest.arm, highest.published_extracted, highest.published_fid) == (
        *("highest", 110),
        2.58,
    )
    assert (original.extracted, highest.extracted, original.candidates) == (16, 5, 39)
    assert original.source == "arXiv 2509.00488; FID: VAR's repository, table of models"


@pytest.mark.parametrize(
    ("fraction", "extracted", "fid"), [(0.01, 68, 3.21), (0.05, 26, 5.12), (0.1, 13, 7.3)]
)
def test_each_fraction_has_its_own(
    report: Report, fraction: float, extracted: int, fid: float
) -> None:
    original, arm = published(of_model(report, "rar-xxl", fraction))
    assert (original.published_extracted, original.published_fid) == (75, 1.48)
    assert (arm.published_extracted, arm.published_fid) == (extracted, fid)


@pytest.mark.parametrize(
    "changed",
    [{"pool": "block"}, {"by": "mean_activation"}, {"scales": "max"}, {"scores": "mean_activation"},
     {"name": "lowest"}, {"cross_fit": {"halves": 2}}],
)  # fmt: skip
def test_another_selection_was_not_published(report: Report, changed: dict[str, Any]) -> None:
    found = published(of_model(report, "var-d30", **changed))
    assert [one.arm for one in found] == ["original"]


def test_another_edit_fraction_or_model_was_not_published(report: Report) -> None:
    found = published(of_model(report, "var-d30", 0.05))
    assert [one.arm for one in found] == ["original"]
    assert published(report) == ()  # of an organism
    arm = replace(report.arms[1], intervention={"name": "scale-weights", "factor": 0.25})
    arms = (report.arms[0], arm, *report.arms[2:])
    found = published(of_model(replace(report, arms=arms), "var-d30"))
    assert [one.arm for one in found] == ["original"]


def test_of_models_without_an_edit_the_unmodified_fid_is_known(report: Report) -> None:
    (original,) = published(of_model(report, "rar-b"))
    assert (original.published_extracted, original.published_fid) == (None, 1.95)
    assert original.source == "RAR's repository, table of models"


def test_the_fid_against_published_statistics_is_shown(report: Report) -> None:
    values = [QualityValue(FID.format(name), value, 50000) for name, value in
              (("held-out images", 4.0), ("statistics sha256 0123456789ab", 2.0))]  # fmt: skip
    first = replace(report.arms[0], quality=tuple(values))
    made = of_model(replace(report, arms=(first, *report.arms[1:])), "var-d30")
    assert [one.fid for one in published(made)] == [2.0, 11.0]


def test_it_is_in_every_form_of_a_report(report: Report, tmp_path: Path) -> None:
    import jsonschema

    made = of_model(report, "var-d30")
    made.save(tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    schema = Path(__file__).parents[3] / "docs" / "report.schema.json"
    jsonschema.validate(document, json.loads(schema.read_text()))
    assert [one["published_extracted"] for one in document["published"]] == [672, 110]
    with (tmp_path / "tables/published.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(one["extracted"], one["published_fid"]) for one in rows] == [
        ("16", "1.97"),
        ("5", "2.58"),
    ]
    page = (tmp_path / "report.html").read_text()
    assert '<td class="number">16/39</td><td class="number">672</td>' in page
    assert "Published of highest: 110 extracted, FID 2.58" in " ".join(str(made.table()).split())
    assert Report.load(tmp_path).to_dict()["published"] == document["published"]


def test_its_table_is_recomputed(report: Report, tmp_path: Path) -> None:
    first = replace(report.arms[0], quality=())
    made = of_model(replace(report, arms=(first, *report.arms[1:])), "var-d30").save(tmp_path)
    table = made / "tables" / "published.csv"
    table.write_text(table.read_text().replace("original,16,39", "original,17,39"))
    command = [sys.executable, RECOMPUTE, made]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "published.csv: line 2: extracted: 17.0 in report.json, 16 made again" in said


def test_nothing_is_said_of_organisms(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    assert "published" not in json.loads((tmp_path / "report.json").read_text())
    assert not (tmp_path / "tables/published.csv").exists()
    assert "Beside the published numbers" not in (tmp_path / "report.html").read_text()


def test_published_numbers_are_consistent() -> None:
    for one in facts()["edit"]:
        assert one["fid"][0] == facts()["fid"][one["model"]]
        assert one["extracted"][0] == edits_of(one["model"])[0]["extracted"][0]
    assert published_lines("rar-b") == [
        "unmodified: FID 1.95 (RAR's repository, table of models); no edit"
    ]
    assert published_lines("var-d30") == [
        "10%: extracted 672 to 110, FID 1.97 to 2.58 "
        "(arXiv 2509.00488, sections 1, 4.3, appendix A)"
    ]
