"""Scores that another program made or changed: refused by name, never used by position."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.jobs.scores import check_scores

DIMS = ("block", "scale", "neuron")


def scores(**change: Any) -> xr.Dataset:
    values = np.random.default_rng(0).random((2, 1, 4))
    made = xr.Dataset(
        {"score": (DIMS, values)}, attrs={"metric": "m", "provenance": json.dumps({})}
    )
    coords = {"valid": (DIMS, values > 0), "scale_name": ("scale", ["0"]), "neuron": range(4)}
    return made.assign_coords(coords | change)


def test_scores_in_any_order_are_scores() -> None:
    check_scores(scores())
    check_scores(scores(neuron=[3, 2, 1, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": ("image", [True])}, r"'valid' is bool with dims \('image',\); expected bool"),
        ({"valid": (DIMS, np.ones((2, 1, 4)))}, "'valid' is float64"),
        ({"neuron": [0, 1, 1, 3]}, "neuron 1 is there 2 times; give each once"),
        ({"neuron": [0, 1, 2, 3.5]}, "not whole numbers"),
    ],
)
def test_coordinates_that_say_something_else_are_refused(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_scores(scores(**change))


@pytest.mark.parametrize("kind", ["complex64", "U3", "bool"])
def test_scores_that_are_no_real_numbers_are_refused(kind: str) -> None:
    made = scores()
    with pytest.raises(InputError, match="expected real numbers"):
        check_scores(made.assign(score=made["score"].astype(kind)))
