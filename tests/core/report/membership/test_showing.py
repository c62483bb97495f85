"""Membership as a table and as files, each number where it belongs."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.membership.areas import Area, Caught
from iarmem_plugin.evaluation.membership.comparing import Membership, Told
from iarmem_plugin.evaluation.membership.inference import DatasetInference
from iarmem_plugin.report.membership.showing import (
    membership_files,
    membership_rows,
    membership_table,
)

NAN = float("nan")


@pytest.fixture
def found() -> list[Membership]:
    before, after = Area(0.75, 0.7, 0.8), Area(0.5, NAN, NAN)
    caught = Caught(20, 300, 0.0412, 0.1009)
    shown = DatasetInference(14, 0.0001, 150, 150)
    return [
        Membership(
            *("original", "=member", "held-out", 300, 300),
            {"nll": Told(before, None, caught)},
            shown,
        ),
        Membership(
            *("edited", "=member", "held-out", 300, 300),
            {"nll": Told(after, Area(-0.25, -0.4, -0.1), None)},
            DatasetInference(None, 0.2, 150, 150),
        ),
        Membership(
            *("original", "canary 40", "generated", 3, 20), {"nll": Told(after, None, None)}, None
        ),
    ]


def test_groups_and_arms_are_rows_and_what_is_not_known_is_left_out(
    found: list[Membership],
) -> None:
    assert membership_rows(found) == [
        ["group", "arm", "nll", "nll, at 1%", "smallest set"],
        ["=member (300)", "original", "0.75 [0.70, 0.80]", "6.7% [4.1%, 10.1%]", "14 of 150"],
        [
            *("=member (300)", "edited", "0.50 (no interval)", "left out"),
            "not reached with n=150 (p = 0.2)",
        ],
    ]
    assert membership_rows(found, against="generated") == [
        ["group", "arm", "nll", "smallest set"],
        ["canary 40 (3)", "original", "0.50 (no interval)", "left out"],
    ]


def test_a_signal_that_one_arm_lacks_is_left_out_there(found: list[Membership]) -> None:
    more = replace(found[1], signals={**found[1].signals, "min-k": found[1].signals["nll"]})
    rows = membership_rows([found[0], more])
    assert [row[3] for row in rows] == ["min-k", "left out", "0.50 (no interval)"]


def test_the_table_has_the_arms_of_a_group_below_it(found: list[Membership]) -> None:
    shown = str(membership_table(found))
    assert "Membership, told from 300 held-out pictures" in shown
    lines = [line.split("│")[1:3] for line in shown.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines[:3]] == [
        ["=member (300)", ""],
        ["original", "0.75 [0.70, 0.80]"],
        ["edited", "0.50 (no interval)"],
    ]
    assert "need 300 pictures" not in shown
    few = str(membership_table(found, against="generated"))
    assert "told from 20 generated pictures" in few
    assert "need 300 pictures a side" in few


def test_what_was_told_from_nothing_is_refused(found: list[Membership]) -> None:
    with pytest.raises(InputError, match="no group was told from 'drawn'; choose of: generated, h"):
        membership_rows(found, against="drawn")
    with pytest.raises(InputError, match="choose of: nothing"):
        membership_table([])


def test_files_hold_numbers_in_full_and_no_formula(found: list[Membership]) -> None:
    files = membership_files(found)
    rows = [list(csv.DictReader(io.StringIO(text.decode(), newline=""))) for text in files.values()]
    assert list(files) == ["tables/membership.csv", "tables/membership_sets.csv"]
    signals, sets = rows
    assert signals[0] == {
        "arm": "original",
        "group": "'=member",
        "against": "held-out",
        "signal": "nll",
        "members": "300",
        "others": "300",
        "auc": "0.75",
        "low": "0.7",
        "high": "0.8",
        "change": "",
        "change_low": "",
        "change_high": "",
        "true_positives": "20",
        "true_positives_low": "0.0412",
        "true_positives_high": "0.1009",
    }
    assert [signals[1][name] for name in ("low", "change", "true_positives")] == ["", "-0.25", ""]
    assert [(one["smallest_set"], one["p"]) for one in sets] == [("14", "0.0001"), ("", "0.2")]
