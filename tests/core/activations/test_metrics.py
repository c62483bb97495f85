"""What a metric may do wrong, each by a metric that does it; none of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.activations.metrics import merge_into, scores_of, state_of, update
from iarmem_plugin.errors import PluginError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Writes
from iarmem_plugin.plugins.blame import blame

SCALES = tuple(Scale(str(number), (number,)) for number in range(2))
PATHS = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")})
LAYOUT = ModelLayout("tiny", 2, 3, SCALES, PATHS, range(2))
MeanActivation: Any = plugins.find("metric", "mean-activation")
WHO = r"metric 'bad' of module test_metrics.py \(no distribution\)"
Edit = Callable[[xr.DataArray], object]


class Bad(MeanActivation):  # type: ignore[misc]  # a class from a plugin
    """A mean activation, of which something is edited before it is returned."""

    name = "bad"

    def __init__(self, edit: Edit = lambda given: given) -> None:
        super().__init__()
        self.edit = edit

    def update(self, activations: xr.DataArray) -> None:
        self.edit(activations)
        super().update(activations)

    def compute(self) -> Any:
        return self.edit(super().compute())


def batch() -> xr.DataArray:
    values = np.random.default_rng(0).random((4, 2, 2, 3)).astype(np.float32)
    return xr.DataArray(
        values,
        {
            "block": np.arange(2),
            "scale": np.arange(2),
            "neuron": np.arange(3),
            "image": np.arange(4),
            "label": ("image", np.zeros(4, np.int32)),
        },
        ("image", "block", "scale", "neuron"),
    ).transpose("block", "scale", "neuron", "image")


def fed(edit: Edit) -> Bad:
    """Return a metric that saw a batch, and edits what it computes."""
    metric = Bad()
    update(metric, batch())
    metric.edit = edit
    return metric


def in_place(change: Callable[[np.ndarray], None]) -> Edit:
    def edit(batch: xr.DataArray) -> None:
        change(batch.to_numpy())

    return edit


def halve(batch: xr.DataArray) -> None:
    batch *= 0.5


def relabel(batch: xr.DataArray) -> None:
    batch.coords["label"].to_numpy()[:] = 7


def assign(batch: xr.DataArray) -> None:
    batch[{"image": 0}] = 0


@pytest.mark.parametrize(
    "write",
    [in_place(lambda values: values.fill(0)), in_place(np.ndarray.sort), halve, relabel, assign],
)
def test_a_metric_that_writes_into_its_batch_is_named_and_harms_nobody(write: Edit) -> None:
    given, before = batch(), batch()
    with pytest.raises(PluginError, match=f"{WHO} writes into its batch, which other metrics read"):
        update(Bad(write), given)
    xr.testing.assert_identical(given, before)


def test_a_metric_that_puts_other_values_into_its_batch_changes_its_own_copy() -> None:
    def replace(batch: xr.DataArray) -> None:
        batch.values = np.zeros(batch.shape, np.float32)

    given, before = batch(), batch()
    update(Bad(replace), given)
    xr.testing.assert_identical(given, before)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda scores: scores.to_numpy(), "computed a ndarray; expected an xarray.DataArray"),
        (lambda scores: scores.to_dataset(), "computed a Dataset; expected an xarray.DataArray"),
        (lambda scores: scores.isel(scale=0), "computed dims .*; expected dims block, scale, ne"),
        (lambda scores: scores.drop_vars("valid"), "and the coordinate 'valid'"),
        (lambda scores: scores.astype(complex), "type complex128; expected real numbers"),
        (lambda scores: scores.astype(str), "expected real numbers"),
        (lambda scores: scores.isel(neuron=[0, 1]), "computed 2 neurons; expected 3"),
        (lambda scores: scores.isel(block=[0]), "computed 1 blocks; expected 2"),
        (
            lambda scores: scores.isel(neuron=[2, 0, 1]),
            "without the numbers of the neurons in their order",
        ),
        (lambda scores: scores.drop_vars("block"), "without the numbers of the blocks"),
        (
            lambda scores: scores.assign_coords(valid=scores["valid"].astype(int)),
            "computed 'valid' of type int.* expected bool",
        ),
        (
            lambda scores: scores.assign_coords(valid=("neuron", np.ones(3, bool))),
            r"with dims \('neuron',\); expected bool",
        ),
        (
            lambda scores: scores.assign_coords(top_image=scores + 0.5),
            "computed 'top_image' of type float.*; expected global ids",
        ),
        (
            lambda scores: scores.where(scores["neuron"] != 1),
            "computed 4 scores that are valid and not finite, first of block 0, scale 0, neuron 1;",
        ),
        (lambda scores: scores * np.inf, "12 scores that are valid and not finite"),
    ],
)
def test_scores_that_cannot_be_are_refused_by_name(edit: Edit, message: str) -> None:
    with pytest.raises(PluginError, match=rf"^{WHO} .*{message}"):
        scores_of(fed(edit), LAYOUT)


def test_scores_that_are_not_finite_may_be_not_valid() -> None:
    def dead(scores: xr.DataArray) -> xr.DataArray:
        known = scores["neuron"] != 1
        valid = scores["valid"] & known
        return scores.where(known).assign_coords(valid=valid)

    assert int(scores_of(fed(dead), LAYOUT)["valid"].sum()) == 8


def test_dims_may_be_in_any_order() -> None:
    assert scores_of(fed(lambda scores: scores.transpose()), LAYOUT).dims[0] == "neuron"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "has a state of type NoneType; expected an xarray.Dataset"),
        ({"total": 1}, "has a state of type dict"),
        (xr.Dataset({"x": ("y", np.array([object()], object))}), "has object in 'x' of its state"),
    ],
)
def test_a_state_that_no_file_takes_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, state: object, message: str
) -> None:
    monkeypatch.setattr(Bad, "state", lambda _: state)
    with pytest.raises(PluginError, match=f"^{WHO} {message}"):
        state_of(Bad())


@pytest.mark.parametrize("method", ["update", "state", "merge", "compute"])
def test_an_error_inside_a_metric_keeps_its_kind_and_names_the_metric(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("no such thing")

    metric = Bad()
    update(metric, batch())
    monkeypatch.setattr(Bad, method, broken)
    calls = {
        "update": lambda: update(metric, batch()),
        "state": lambda: state_of(metric),
        "merge": lambda: merge_into(metric, xr.Dataset()),
        "compute": lambda: scores_of(metric, LAYOUT),
    }
    with pytest.raises(KeyError) as raised:
        calls[method]()
    assert blame(raised.value) == "in metric 'bad' of module test_metrics.py (no distribution)"
    assert raised.value.args == ("no such thing",)


def test_what_is_ours_is_of_iarmem() -> None:
    class LateError(Exception):
        """What a test raises."""

    metric: Metric = plugins.find("metric", "unitmem")()
    metric.update = lambda _: (_ for _ in ()).throw(LateError)  # type: ignore[method-assign]  # raises
    with pytest.raises(LateError) as raised:
        update(metric, batch())
    assert str(blame(raised.value)).startswith("in metric 'unitmem' of iarmem 0.")
