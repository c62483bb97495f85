"""How often an organism's pictures were shown: rows by group, and organisms that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from iarmem_adapters.organisms import weight_files
from iarmem_adapters.rar.adapter import RARAdapter
from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces import Variant
from iarmem_plugin.interfaces.organism import GroupExposures, Organism
from iarmem_plugin.models import hub
from iarmem_plugin.models.loading import load
from iarmem_plugin.plugins import PluginWarning

SHOWN = {
    "canary 90": (7, 7),
    "held-out": (0, 0, 0),
    "member 500": (2, 4),
    "canary 800": (8,),
    "": (0, 3, 3),
}


def organism(shown: dict[str, tuple[int, ...]] = SHOWN) -> Organism:
    groups = [name for name, often in shown.items() for _ in often]
    pictures = Images.from_arrays(
        np.zeros((len(groups), 8, 8, 3), np.uint8), np.zeros(len(groups), int)
    )
    calibration = np.zeros(len(groups), bool)
    calibration[groups.index("held-out")] = True
    often = np.array([one for each in shown.values() for one in each])
    return Organism(pictures, often, np.array(groups, object), calibration, nn.Module, "none", {})


def test_rows_run_by_falling_exposures_and_count_calibration_apart() -> None:
    assert organism().exposures_by_group() == [
        GroupExposures("canary 800", 1, 8, 8),
        GroupExposures("canary 90", 2, 7, 7),
        GroupExposures("member 500", 2, 2, 4),
        GroupExposures("held-out", 2, 0, 0),
        GroupExposures("held-out, for calibration", 1, 0, 0),
        GroupExposures("no candidates", 2, 3, 3),
        GroupExposures("no candidates", 1, 0, 0),
    ]


def test_cells_give_a_range_where_pictures_differ() -> None:
    rows = [row._asdict() for row in organism().exposures_by_group()]
    cells = hub.exposure_cells({"exposures": rows})
    assert cells[2] == ("member 500", "2", "2–4")
    assert cells[3] == ("held-out", "2", "0")


def gone() -> Organism:
    raise OSError("no such file: split.npz")


@pytest.mark.parametrize("made", [gone, lambda: None, lambda: Organism(repeats=[1])])
def test_an_organism_that_fails_is_left_out_and_the_others_are_listed(
    monkeypatch: pytest.MonkeyPatch, made: Callable[[], Any]
) -> None:
    own = RARAdapter.variants()

    def broken() -> dict[str, Variant]:
        return own | {"rar-organism": replace(own["rar-organism"], organism=made)}

    monkeypatch.setattr(RARAdapter, "variants", staticmethod(broken))
    with pytest.warns(PluginWarning, match="the organism of rar-organism is not shown"):
        rows = {row["name"]: row for row in hub.known_models()}
    assert rows["rar-organism"]["exposures"] == []
    assert rows["rar-organism-twin"]["exposures"] != []


def printed(*options: str) -> str:
    """Return what ``iarmem models`` prints on a terminal of 80 columns."""
    command = [sys.executable, "-m", "iarmem_plugin", "models", *options]
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_models_shows_what_organism_and_twin_were_shown() -> None:
    lines = [" ".join(line.split()) for line in printed().splitlines()]
    own = lines.index("Shown to rar-organism, var-organism")
    twin = lines.index("Shown to rar-organism-twin, var-organism-twin")
    assert "canary 1360 12 1360" in lines[own:twin]
    assert "member, distinct 96 20" in lines[own:twin]
    assert "canary 1360 12 0" in lines[twin:]
    assert "no candidates 12 1360" in lines[twin:]
    listed = json.loads(printed("--json"))["models"]
    by_name = {one["name"]: one for one in listed}
    assert by_name["var-organism-twin"]["twin_of"] == "var-organism"
    assert by_name["var-d16"]["exposures"] == []
    first = {"group": "canary 1360", "pictures": 12, "least": 1360, "most": 1360}
    assert by_name["var-organism"]["exposures"][0] == first


@pytest.mark.parametrize("family", ["var", "rar"])
def test_weights_that_a_user_names_claim_no_organism(family: str) -> None:
    files = dict(zip(("weights", "tokenizer"), weight_files(family, twin=True), strict=True))
    variant = load(family, **files).adapter.variant
    assert (variant.organism, variant.twin_of, variant.licence) == (None, "", "not checked")
    assert variant.sha256 == {}
