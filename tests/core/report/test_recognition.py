"""The second outcome in document, table, page and folder: what is still recognisable."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.report.page import render, render_summary
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import findings, headline

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def judged(report: Report) -> Report:
    """The report, with eight tokens of which two were given; so many of the others are right."""
    extraction = report.extraction.assign_attrs(prefix_tokens=2).copy(deep=True)
    right = extraction["equal_tokens"]
    right[:] = 2
    right.loc[{"candidate": extraction["role"].values == "canary"}] = 6
    right.loc[{"arm": "highest", "candidate": extraction["group"].values == "canary 40"}] = 5
    extraction = Recognition(0.5, "pictures by hand").judged(extraction)
    return replace(report, extraction=extraction)


def test_the_document_counts_both_outcomes(judged: Report) -> None:
    original, highest = judged.to_dict()["arms"][:2]
    assert original["recognition"]["canary 40"]["recognisable"] == 12
    assert highest["recognition"]["canary 40"]["recognisable"] == 0  # half of the tokens: not above
    assert highest["recognition"]["canary 1360"]["recognisable"] == 12
    assert highest["recognition"]["held-out"] == pytest.approx(
        {"recognisable": 0, "candidates": 20, "low": 0, "high": 0.161, "agreement": 0}, abs=1e-3
    )
    assert highest["recognition"]["canary 40"]["agreement"] == 0.5
    assert highest["extraction"]["canary 1360"]["extracted"] == 3
    jsonschema.validate(judged.to_dict(), json.loads(SCHEMA_FILE.read_text()))


def test_a_report_that_was_not_judged_has_one_outcome(report: Report) -> None:
    assert "recognition" not in report.to_dict()["arms"][0]
    assert "recognisable" not in printed(report)
    assert "Still recognisable" not in render(report, {})


def printed(report: Report) -> str:
    console = Console(width=400)
    with console.capture() as capture:
        console.print(report.table())
    return capture.get()


def test_both_outcomes_stand_below_each_other_in_the_table(judged: Report) -> None:
    lines = [re.findall(r"[^\s│┃]+", line) for line in printed(judged).splitlines()]
    place = next(i for i, line in enumerate(lines) if line[:2] == ["canary", "1360"])
    assert lines[place + 1][0] == "recognisable"
    assert f"{15 * ' '}recognisable" not in printed(judged)  # indented below its group
    assert lines[place + 1][1:3] == ["12/12", "12/12"]
    assert "extracted and recognisable candidates" in printed(judged)


def test_the_page_says_what_is_still_recognisable(judged: Report) -> None:
    page = render(judged, {})
    assert "Still recognisable" in page
    assert "is above 0.500 (pictures by hand)" in page
    assert "Recognisable: each arm against the original" in page
    assert "Recognisable candidates" in render_summary(judged)
    sentences = list(findings(judged))
    assert (
        "exact McNemar p = 0.0039). By their completed tokens, 24 were recognisable before and "
        "12 after. Of 3 random sets at equal fraction, which left 11–12 extracted, 0 left"
    ) in sentences[0]
    assert "The 3 random sets left 24 of them recognisable." in sentences
    assert headline(judged).startswith(
        "original: 11 of 12 “canary 1360” candidates extracted, 12 recognisable; highest: 3 of 12, "
        "12 recognisable; "
    )
    assert sentences[-2] == (
        "0 of 20 held-out pictures, which the model never saw, count as extracted from the "
        "original: the measure's false alarms; from the other arms 0–1."
    )
    assert sentences[-1] == (
        "0 of 20 of them count as recognisable by their completed tokens; from the other arms 0."
    )


def test_sets_of_another_size_are_not_said_to_be_at_equal_fraction(judged: Report) -> None:
    arms = (judged.arms[0], replace(judged.arms[1], fraction=0.05), *judged.arms[2:])
    first, second = list(findings(replace(judged, arms=arms)))[:2]
    assert "random sets" not in first
    assert "Of 3 random sets at equal fraction, which" in second


def test_with_many_arms_each_outcome_has_a_column_of_its_own(judged: Report) -> None:
    original, highest = judged.arms[:2]
    arms = (original, *(replace(highest, name=f"arm {place}") for place in range(9)))
    rows = judged.extraction.isel(arm=[0, *([1] * 9)])
    many = replace(judged, arms=arms, extraction=rows.assign_coords(arm=[one.name for one in arms]))
    assert "canary 40, recognisable" in printed(many)


@pytest.mark.parametrize(
    ("key", "value"), [("recognisable", 5), ("agreement", 0.25)], ids=["count", "agreement"]
)
def test_a_saved_report_comes_back_and_false_counts_are_noticed(
    judged: Report, tmp_path: Path, key: str, value: float
) -> None:
    judged.save(tmp_path / "report")
    again = Report.load(tmp_path / "report")
    assert again.to_dict() == json.loads(json.dumps(judged.to_dict()))
    file = tmp_path / "report" / "report.json"
    document = json.loads(file.read_text())
    document["arms"][1]["recognition"]["canary 40"][key] = value
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="do not give the same counts"):
        Report.load(tmp_path / "report")
