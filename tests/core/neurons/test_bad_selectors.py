"""What a selector may do wrong, each by one that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import PluginError
from iarmem_plugin.interfaces import Selector
from iarmem_plugin.neurons.selectors import Highest, select
from iarmem_plugin.plugins.blame import blame

DIMS = ("block", "scale", "neuron")
Edit = Callable[[xr.DataArray], object]


class Bad(Selector):
    """The highest, of which something is edited."""

    name = "bad"

    def __init__(self, edit: Edit) -> None:
        self.edit = edit

    def select(self, scores: xr.Dataset, *, fraction: float, seed: int) -> Any:
        return self.edit(Highest().select(scores, fraction=fraction, seed=seed))


@pytest.fixture
def scores() -> xr.Dataset:
    values = np.random.default_rng(0).permutation(20).reshape(2, 1, 10) / 20
    valid = np.ones(values.shape, bool)
    valid[1, 0, 9] = False
    data = xr.Dataset({"score": (DIMS, values)}, {"block": [0, 1], "neuron": np.arange(10)})
    return data.assign_coords(valid=(DIMS, valid), scale=[0], scale_name=("scale", ["a"]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda chosen: chosen.to_numpy(), "returned a ndarray; expected bool with sizes"),
        (lambda chosen: chosen.astype(float), "returned values of type float64; expected bool"),
        (
            lambda chosen: chosen.where(chosen),
            "returned values of type (object|float64)",
        ),
        (lambda chosen: chosen.isel(block=0), r"returned sizes \{'neuron': 10\}; expected bool"),
        (
            lambda chosen: xr.zeros_like(chosen),
            "selected 0 of 20 neurons for the fraction 0.25",
        ),
        (lambda chosen: ~chosen, "selected 15 of 20 neurons for the fraction 0.25; expected 5"),
        (
            lambda chosen: chosen.assign_coords(neuron=np.arange(10) + 1),
            "neuron 10 is there, but only 10 neurons",
        ),
        (lambda chosen: chosen.assign_coords(neuron=[1] * 10), "neuron 1 is there 10 times"),
        (lambda chosen: chosen.assign_coords(block=[-1, 0]), "the numbers of blocks are not whole"),
        (
            lambda chosen: chosen.copy(data=np.tile(np.arange(10) >= 7, (2, 1)).astype(bool)),
            "selected 1 neurons that are not valid",
        ),
    ],
)
def test_what_is_no_selection_is_refused_by_name(
    scores: xr.Dataset, edit: Edit, message: str
) -> None:
    who = r"selector 'bad' of module test_bad_selectors.py \(no distribution\)"
    with pytest.raises(PluginError, match=f"^{who}:? {message}"):
        select(scores, fraction=0.25, selector=Bad(edit))


@pytest.mark.parametrize(
    "edit",
    [
        lambda chosen: chosen.isel(neuron=np.arange(10)[::-1], block=[1, 0]),
        lambda chosen: chosen.transpose(),
        lambda chosen: chosen.drop_vars(["block", "neuron"]),
    ],
)
def test_neurons_are_aligned_by_their_numbers(scores: xr.Dataset, edit: Edit) -> None:
    found = select(scores, fraction=0.25, selector=Bad(edit))
    np.testing.assert_array_equal(found, select(scores, fraction=0.25))
    assert found.dims == ("block", "neuron")


def test_fewer_than_the_fraction_are_right_where_no_more_are_valid(scores: xr.Dataset) -> None:
    assert int(select(scores, fraction=1.0).sum()) == 19
    found = select(scores, fraction=1.0, selector="highest:pool=block")
    assert found.sum("neuron").to_numpy().tolist() == [10, 9]


def test_an_error_inside_a_selector_names_it(scores: xr.Dataset) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        select(scores, fraction=0.25, selector=Bad(lambda _: 1 // 0))
    assert str(blame(raised.value)).startswith("in selector 'bad' of module test_bad_selectors")
