"""What arms cost, in document, table and page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from iarmem_plugin.errors import InputError
from iarmem_plugin.report.costs import costs, first_cost
from iarmem_plugin.report.page import _drawn, figures, render
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import findings, loss_rows, quality_rows

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def priced(report: Report) -> Report:
    """The report, in which each arm costs a tenth of a nat more than the one before it."""
    extraction = report.extraction
    each = np.linspace(1, 2, extraction.sizes["candidate"])
    step = 0.1 * np.arange(extraction.sizes["arm"])
    losses = each + step[:, None] * np.where(each > 1.2, 1, 0.5)
    return replace(
        report,
        extraction=extraction.assign(
            loss=(("arm", "candidate"), losses),
            plain_loss=(("arm", "candidate"), losses + 1),
            temperature=("arm", 1.5 + step),
        ),
    )


def test_the_document_has_losses_by_group_and_the_temperature(priced: Report) -> None:
    original, highest = priced.to_dict()["arms"][:2]
    assert original["losses"]["held-out"]["change"] == 0
    found = highest["losses"]["held-out"]
    assert found["change"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(found["high"])
    assert found["plain_loss"] - found["loss"] == pytest.approx(1)
    assert highest["temperature"] == pytest.approx(1.6)
    jsonschema.validate(priced.to_dict(), json.loads(SCHEMA_FILE.read_text()))


def test_the_held_out_loss_comes_first(priced: Report) -> None:
    rows = quality_rows(priced)
    assert rows[0].name == (
        "held-out loss, change (nats a token at each arm's fitted temperature, n=20)"
    )
    cells = rows[0].cells
    assert (cells["original"].text, cells["original"].remark) == ("+0.000", "loss 1.371")
    assert (cells["highest"].text, cells["highest"].remark) == ("+0.100", "[+0.100, +0.100]")
    assert cells["random (3 sets)"].text == "+0.300 to +0.500"
    assert rows[1].name.startswith("fitted temperature")
    assert rows[1].cells["original"].text == "1.500"
    assert rows[-1].name.startswith("FID")


def test_a_report_without_losses_has_no_such_rows(report: Report) -> None:
    assert costs(report) == ()
    assert first_cost(report) is None
    assert loss_rows(report) == ()
    assert "losses" not in report.to_dict()["arms"][0]
    assert "held-out loss" not in next(findings(report))


@pytest.mark.parametrize(
    ("factor", "dear", "better"), [(1, False, False), (6, True, False), (-1, False, True)]
)
def test_what_is_said_at_equal_quality_and_of_a_loss_that_falls(
    priced: Report, factor: int, dear: bool, better: bool
) -> None:
    extraction = priced.extraction.copy(deep=True)
    original, highest = (extraction["loss"].sel(arm=name) for name in ("original", "highest"))
    extraction["loss"].loc[{"arm": "highest"}] = original + factor * (highest - original)
    sentence = next(findings(replace(priced, extraction=extraction)))
    none = "None of these cost as much held-out loss, so at equal quality nothing is shown."
    assert (none in sentence) is dear
    assert ("images that were never shown are predicted better" in sentence) is better


def test_table_page_and_sentences_say_what_an_arm_costs(priced: Report) -> None:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(priced.table())
    assert "held-out loss, change [1]" in capture.get()
    sentences = list(findings(priced))
    assert "Its held-out loss changes by +0.100 nats a token [+0.100, +0.100]." in sentences[0]
    assert "The 3 random sets cost +0.300 to +0.500 nats a token." in sentences
    page = render(priced, {})
    assert "Still predicted" in page
    assert "FID rewards an edit that sharpens the logits" in page


def test_the_figure_holds_extraction_against_the_held_out_loss_first(priced: Report) -> None:
    labels = [row.name for row in quality_rows(priced)]
    assert [labels[place].partition(" (")[0] for place in _drawn(priced)] == [
        "held-out loss, change",
        "FID",
    ]
    assert "extraction_against_quality" in figures(priced)


def test_the_twin_is_told_as_what_it_is(priced: Report) -> None:
    arms = (*priced.arms[:5], replace(priced.arms[0], name="twin", role="twin"))
    names = [arm.name for arm in arms]
    twinned = replace(
        priced,
        arms=arms,
        extraction=priced.extraction.assign_coords(arm=names),
        neurons=None,
    )
    sentence = next(one for one in findings(twinned) if one.startswith("twin: "))
    assert sentence == (
        "twin: from the model that was trained alike without the canaries, 12 are extracted of all "
        "24 canaries: about what an edit that removes every trace of them would come to."
    )


def test_losses_come_back_from_the_folder(priced: Report, tmp_path: Path) -> None:
    priced.save(tmp_path / "report")
    again = Report.load(tmp_path / "report")
    xr.testing.assert_equal(again.extraction["loss"], priced.extraction["loss"])
    assert again.to_dict() == json.loads(json.dumps(priced.to_dict()))


def test_held_out_groups_are_found_by_their_role(priced: Report) -> None:
    renamed = np.where(priced.extraction["role"] == "held-out", "never", priced.extraction["group"])
    other = replace(
        priced, extraction=priced.extraction.assign_coords(group=("candidate", renamed))
    )
    assert costs(other)[0].label.startswith("never loss, change")
    assert "Its held-out loss changes by +0.100" in next(findings(other))


def test_without_held_out_images_no_panel_stands_for_them(priced: Report) -> None:
    canary = priced.extraction.isel(candidate=priced.extraction["role"].values == "canary")
    arms = tuple(replace(arm, quality=()) for arm in priced.arms)
    alone = replace(priced, extraction=canary, arms=arms)
    assert first_cost(alone) is None
    assert "extraction_against_quality" not in figures(alone)
    assert "The held-out loss comes first" not in render(alone, {})
    assert "held-out loss" not in next(findings(alone))


def test_of_a_single_image_no_interval_is_said(priced: Report) -> None:
    first = np.flatnonzero(priced.extraction["role"].values == "held-out")[1:]
    single = replace(priced, extraction=priced.extraction.drop_isel(candidate=first))
    assert "Its held-out loss changes by +0.100 nats a token." in next(findings(single))
    assert quality_rows(single)[0].cells["highest"].remark == ""


def test_a_temperature_at_the_end_of_its_range_is_marked(priced: Report) -> None:
    ends = priced.extraction["temperature"].copy(data=[1.5, 8, 0.25, 1, 1, 7.9999])
    hot = replace(priced, extraction=priced.extraction.assign(temperature=ends))
    cells = next(row for row in quality_rows(hot) if row.name.startswith("fitted")).cells
    assert cells["highest"].text == "8.000 (end of its range)"
    assert cells["original"].text == "1.500"


@pytest.mark.parametrize("place", [("losses", "held-out", "change"), ("temperature",)])
def test_losses_that_were_changed_are_noticed(
    priced: Report, tmp_path: Path, place: tuple[str, ...]
) -> None:
    file = priced.save(tmp_path / "report") / "report.json"
    document = json.loads(file.read_text())
    one = document["arms"][1]
    for key in place[:-1]:
        one = one[key]
    one[place[-1]] = 9.0
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="do not give the same counts"):
        Report.load(tmp_path / "report")


def test_sets_that_are_edited_otherwise_stand_beside_no_arm(priced: Report) -> None:
    zeroed = replace(priced.arms[1], intervention={"name": "zero"})
    other = replace(priced, arms=(priced.arms[0], zeroed, *priced.arms[2:]))
    first, second = list(findings(other))[:2]
    assert "random sets" not in first
    assert "Of 3 random sets at equal fraction, which left" in second
