"""Metrics of whoever wrote them: what they are given is kept, and what they give is checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from iarmem_plugin.errors import PluginError
from iarmem_plugin.interfaces import Metric, ModelLayout
from iarmem_plugin.plugins.blame import OURS, author, blamed

NEURONS = ("block", "scale", "neuron")
_READ_ONLY = ("read-only", "destination is a view")  # as numpy and xarray say it


def update(metric: Metric, batch: xr.DataArray) -> None:
    """Give a batch to a metric, which cannot write into it: others read the same one.

    A metric that is not ours is given a copy, since torch writes into read-only arrays, too.

    Raises:
        PluginError: the metric writes into it.
    """
    ours = type(metric).__module__.partition(".")[0] in OURS
    given = batch.copy(deep=not ours)
    variables = (given.variable, *given.coords.variables.values())
    arrays = [one._data for one in variables if isinstance(one._data, np.ndarray)]
    for values in arrays:
        values.flags.writeable = False
    with blamed(metric):
        try:
            metric.update(given)
        except ValueError as error:
            if not any(said in str(error) for said in _READ_ONLY):
                raise
            raise PluginError(
                f"{author(metric)} writes into its batch, which other metrics read, too; it is to "
                f"change a copy ({error})"
            ) from error
    if any(values.flags.writeable for values in arrays):
        raise PluginError(
            f"{author(metric)} made its batch writable, which other metrics read, too; it is to "
            "change a copy"
        )


def state_of(metric: Metric) -> xr.Dataset:
    """Return a metric's state.

    Raises:
        PluginError: it is no dataset, or holds objects, which no file takes without pickle.
    """
    with blamed(metric):
        state = metric.state()
    if not isinstance(state, xr.Dataset):
        raise _wrong(metric, f"has a state of type {type(state).__name__}", "an xarray.Dataset")
    for name, values in state.data_vars.items():
        if values.dtype.kind not in "biufUST":
            raise _wrong(metric, f"has {values.dtype} in {name!r} of its state", "numbers or text")
    return state


def merge_into(metric: Metric, state: xr.Dataset) -> None:
    """Add another run's state to a metric."""
    with blamed(metric):
        metric.merge(state)


def scores_of(metric: Metric, layout: ModelLayout | None = None) -> xr.DataArray:
    """Return what a metric computes.

    Args:
        metric: metric that was given all images.
        layout: layout of the model; None where its size is not known.

    Returns:
        scores, dims (block, scale, neuron), with the coordinate ``valid``.

    Raises:
        PluginError: it is something else, of another size, or not finite where it is valid.
    """
    with blamed(metric):
        scores = metric.compute()
    return checked(metric, scores, layout)


def checked(metric: Metric, scores: object, layout: ModelLayout | None = None) -> xr.DataArray:
    """Refuse what is no score of each neuron at each scale; see `scores_of`."""
    if not isinstance(scores, xr.DataArray):
        raise _wrong(metric, f"computed a {type(scores).__name__}", "an xarray.DataArray")
    if set(scores.dims) != set(NEURONS) or "valid" not in scores.coords:
        found = f"computed dims {scores.dims} with {sorted(map(str, scores.coords))}"
        raise _wrong(metric, found, "dims block, scale, neuron, and the coordinate 'valid'")
    if scores.dtype.kind not in "fiu":
        raise _wrong(metric, f"computed scores of type {scores.dtype}", "real numbers")
    if layout is not None:
        _check_axes(metric, scores, layout)
    _check_valid(metric, scores)
    return scores


def _check_axes(metric: Metric, scores: xr.DataArray, layout: ModelLayout) -> None:
    sizes = (layout.num_blocks, len(layout.scales), layout.neurons_per_block)
    for dim, size in zip(NEURONS, sizes, strict=True):
        if scores.sizes[dim] != size:
            raise _wrong(metric, f"computed {scores.sizes[dim]} {dim}s", str(size))
        if dim not in scores.coords or not np.array_equal(scores[dim], np.arange(size)):
            raise _wrong(
                metric,
                f"computed scores without the numbers of the {dim}s in their order",
                f"the coordinate {dim!r} of the activations",
            )


def _check_valid(metric: Metric, scores: xr.DataArray) -> None:
    for name, kinds, expected in (("valid", "b", "bool"), ("top_image", "iu", "global ids")):
        given = scores.coords.get(name)
        if given is not None and (
            given.dtype.kind not in kinds or set(given.dims) != set(scores.dims)
        ):
            raise _wrong(
                metric,
                f"computed {name!r} of type {given.dtype} with dims {given.dims}",
                f"{expected} with dims {scores.dims}",
            )
    broken = scores["valid"] & ~np.isfinite(scores)
    if (count := int(broken.sum())) > 0:
        first = [int(place[0]) for place in broken.transpose(*NEURONS).to_numpy().nonzero()]
        where = ", ".join(f"{dim} {place}" for dim, place in zip(NEURONS, first, strict=True))
        raise _wrong(
            metric,
            f"computed {count} scores that are valid and not finite, first of {where}",
            "finite numbers, or False in 'valid'",
        )


def _wrong(metric: Metric, found: str, expected: str) -> PluginError:
    return PluginError(f"{author(metric)} {found}; expected {expected}")


def states_of(metrics: Mapping[str, Metric]) -> dict[str, xr.Dataset]:
    """Return the states of metrics, by key."""
    return {key: state_of(metric) for key, metric in metrics.items()}
