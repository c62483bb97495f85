"""Counts at thresholds that arms fixed anew, beside those at the shared ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.recognition import Recognition, agreement
from iarmem_plugin.jobs.recalibration import judged_anew, kept_completions
from iarmem_plugin.report.page import render, render_summary
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import recalibrated_rows

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "report.schema.json"


def completions(closest: float) -> xr.Dataset:
    """Return completions of ten pictures by an arm, of which the second closest is so close."""
    similarity = np.array([*np.linspace(0, 0.2, 8), closest, 0.99], np.float32)
    return xr.Dataset(
        {
            "similarity": ("candidate", similarity),
            "equal_tokens": ("candidate", np.arange(10, dtype=np.int32) % 6 + 2),
            "tokens": (("candidate", "token"), np.zeros((10, 8), np.int32)),
        },
        coords={
            "image": ("candidate", np.arange(10)),
            "path": ("candidate", [f"{place}.png" for place in range(10)]),
            "label": ("candidate", np.zeros(10, np.int32)),
            "group": ("candidate", ["held-out"] * 10),
            "role": ("candidate", ["held-out"] * 10),
        },
        attrs={"prefix_tokens": 2},
    )


@pytest.fixture(scope="module")
def anew(report: Report) -> Report:
    """The report, with two arms that fixed thresholds anew: one below all, one above most."""
    extraction = report.extraction.assign_attrs(prefix_tokens=2).copy(deep=True)
    extraction["equal_tokens"][:] = 5
    extraction = Recognition(0.4, "by hand").judged(extraction)
    found = {name: completions(at) for name, at in (("original", 0.5), ("highest", 0.3))}
    own = {name: one.assign(agreement=agreement(one)) for name, one in found.items()}
    return replace(
        report,
        extraction=judged_anew(extraction, own, 0.1),
        calibration=kept_completions(None, own),
    )


def test_the_document_holds_both_counts(anew: Report) -> None:
    original, highest, lowest, *_ = anew.to_dict()["arms"]
    assert highest["extraction"]["canary 1360"]["extracted"] == 3
    own = highest["recalibrated"]["extraction"]
    assert own["threshold"] == pytest.approx(0.3)
    assert (own["threshold_low"], own["threshold_high"]) == (
        pytest.approx(0.2 * 6 / 7),
        None,
    )  # ranks of ten
    assert own["counts"]["canary 1360"]["extracted"] == 12  # all are at 0.4 or more
    assert original["recalibrated"]["extraction"]["counts"]["canary 1360"]["extracted"] == 11
    assert highest["recalibrated"]["recognition"]["counts"]["held-out"]["recognisable"] == 0
    assert highest["recalibrated"]["images"] == 10
    assert "recalibrated" not in lowest
    jsonschema.validate(anew.to_dict(), json.loads(SCHEMA_FILE.read_text()))


def test_the_tables_show_both(anew: Report) -> None:
    threshold, *rows = recalibrated_rows(anew)
    assert list(threshold.cells) == ["original", "highest"]
    assert threshold.cells["highest"].text == "0.3"
    assert threshold.cells["highest"].remark == "[0.171, –]"
    (row,) = [one for one in rows if one.name == "canary 1360"]
    assert (row.cells["highest"].text, row.cells["highest"].remark) == (
        "12/12",
        "at the shared one 3",
    )
    text = " ".join(str(anew.table()).replace("│", " ").split())
    assert "canary 1360 11/12 (11) 3/12 (12) 11/12 9–11/12 recognisable" in text
    assert "held-out pictures, extracted: original 0.5, highest 0.3" in text
    page = render(anew, {})
    assert "At thresholds fixed anew in each arm" in page
    assert "own completions of 10 held-out pictures that are not reported, in the arms" in page
    assert "at the shared one 3" in page
    assert render_summary(anew)


def test_random_sets_share_a_cell(report: Report) -> None:
    own = {f"random {place}": completions(0.3 * place) for place in (1, 2, 3)}
    found = judged_anew(report.extraction, own, 0.1)
    threshold, first, *_ = recalibrated_rows(replace(report, extraction=found))
    assert threshold.cells["random (3 sets)"].text == "0.3–0.9"
    assert threshold.cells["random (3 sets)"].remark == ""
    assert first.cells["random (3 sets)"].text == "10–12/12"


def test_a_report_without_them_shows_none(report: Report) -> None:
    assert recalibrated_rows(report) == ()
    assert "fixed anew" not in render(report, {})
    assert "brackets" not in str(report.table())


def test_a_saved_report_comes_back_and_false_counts_are_noticed(
    anew: Report, tmp_path: Path
) -> None:
    anew.save(tmp_path / "report")
    again = Report.load(tmp_path / "report")
    assert again.to_dict() == json.loads(json.dumps(anew.to_dict()))
    xr.testing.assert_identical(again.calibration, anew.calibration)
    file = tmp_path / "report" / "report.json"
    document = json.loads(file.read_text())
    document["arms"][1]["recalibrated"]["extraction"]["counts"]["canary 40"]["extracted"] = 1
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="do not give the same counts"):
        Report.load(tmp_path / "report")
