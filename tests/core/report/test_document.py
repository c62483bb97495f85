"""report.json: counts that can be recomputed, as its schema says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.report.report import Report

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "report.schema.json"


def test_report_json_fits_the_published_schema(folder: Path) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((folder / "report.json").read_text()), schema)


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 2},
        {"arms": []},
        {"scores": {"metric": "unitmem"}},
        {"more": 1},
    ],
)
def test_the_schema_refuses_what_is_no_report(report: Report, damage: dict[str, object]) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report.to_dict(), **damage}, schema)


def test_the_first_arm_is_the_original_without_settings(report: Report) -> None:
    first = report.to_dict()["arms"][0]
    assert first["name"] == "original"
    assert [first["intervention"], first["selector"], first["fraction"]] == [None] * 3


def test_counts_and_wilson_intervals_are_those_worked_by_hand(report: Report) -> None:
    # 11 of 12: p = 11/12, z = 1.959964, z2 = 3.841459
    # centre (p + z2/24) / (1 + z2/12) = 1.0767275/1.3201216 = 0.8156275
    # half z sqrt(p(1-p)/12 + z2/576) / 1.3201216 = 1.959964*0.1141707/1.3201216 = 0.1695072
    counted = report.to_dict()["arms"][0]["extraction"]["canary 1360"]
    assert (counted["extracted"], counted["candidates"]) == (11, 12)
    assert counted["low"] == pytest.approx(0.6461203, abs=1e-6)
    assert counted["high"] == pytest.approx(0.9851347, abs=1e-6)


def test_every_count_can_be_recomputed_from_the_extraction_file(folder: Path) -> None:
    stored = json.loads((folder / "report.json").read_text())
    with xr.open_dataset(folder / "extraction.nc", engine="h5netcdf") as extraction:
        extracted, group = extraction["extracted"].values, extraction["group"].values
        arms = [str(name) for name in extraction["arm"].values]
        above = (extraction["similarity"] > extraction.attrs["threshold"]).values
    assert np.array_equal(extracted, above)
    for arm in stored["arms"]:
        row = extracted[arms.index(arm["name"])]
        recomputed = {
            str(name): (int(row[group == name].sum()), int((group == name).sum()))
            for name in np.unique(group)
        }
        written = {
            name: (counts["extracted"], counts["candidates"])
            for name, counts in arm["extraction"].items()
        }
        assert recomputed == written


def test_groups_run_from_most_exposures_to_held_out(report: Report) -> None:
    found = list(report.to_dict()["arms"][0]["extraction"])
    assert found == ["canary 1360", "canary 40", "member <script>alert(1)</script>", "held-out"]


def test_block_sums_leave_out_what_is_not_valid(report: Report) -> None:
    table = np.array(report.to_dict()["scores"]["by_block_and_scale"])
    score = report.scores["score"].values.astype("float64")
    assert table.shape == (4, 6)
    assert table[0, 0] == pytest.approx(score[0, 0, 5:].sum(), rel=1e-12)
    assert table[3, 2] == pytest.approx(score[3, 2].sum(), rel=1e-12)


def test_what_is_not_a_number_is_null(report: Report) -> None:
    (value,) = report.arms[-1].quality
    unknown = replace(report.arms[-1], quality=(replace(value, value=float("nan")),))
    arms = (*report.arms[:-1], unknown)
    written = replace(report, arms=arms).to_dict()
    assert written["arms"][-1]["quality"][0]["value"] is None
    assert written["provenance"]["loss"] is None
    json.dumps(written, allow_nan=False)
