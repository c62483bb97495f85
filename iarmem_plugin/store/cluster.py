"""Score a store on a cluster: one task reads one shard, and states meet in a tree."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import xarray as xr

from iarmem_plugin.activations.metrics import merge_into, scores_of, state_of, update
from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins.create import create

if TYPE_CHECKING:
    from iarmem_plugin.store.store import ActivationStore

FAN_IN = 8  # states that one task merges
_SEEN = {"block", "scale", "neuron", "scale_name", "image", "label"}  # by a metric


def score_on_cluster(
    store: ActivationStore, metric: str | Metric = "unitmem", *, model: str | None = None
) -> xr.DataArray:
    """Score every neuron from a store, with one pass over it, on the current dask scheduler.

    Where a ``dask.distributed.Client`` is open, the work runs on its cluster; otherwise in
    threads of this process. Every shard (one block of one slab) is read once, by one task.

    Args:
        store: store of activations; workers must be able to read the same place.
        metric: name of a metric, be it with options, or a fresh instance, which is left as it is.
        model: name of the model; may be left out where the store holds one.

    Returns:
        what the metric computes: dims (block, scale, neuron), with the coordinate ``valid``.
        Sums are those of one process up to the order of addition.

    Raises:
        InputError: dask is not installed.
        UnknownNameError: no such metric.
        UnknownModelError: the store does not hold the model.
        IncompleteCaptureError: not all images are captured.
        CorruptStoreError: data are missing or damaged.
        NonFiniteActivationError: NaN or infinity among the activations.
        PluginError: the metric's states cannot be joined block by block.
    """
    dask = _dask()
    fresh = create("metric", metric) if isinstance(metric, str) else metric
    data = store.dataset(model)
    blocks = _plan(_batches(data), fresh, Slabs(data.sizes["image"], int(data.attrs["slab"])))
    whole = copy.deepcopy(fresh)
    merge_into(whole, _joined(dask.compute(*blocks), fresh.name))
    return scores_of(whole)


def reduce_shard(
    activation: xr.DataArray, metric: Metric, block: int, low: int, high: int
) -> xr.Dataset:
    """Read one block of one slab, and return what a fresh metric knows after it."""
    part = activation.isel(block=slice(block, block + 1), image=slice(low, high))
    one = copy.deepcopy(metric)
    update(one, part.load())
    return state_of(one)


def merge_states(states: Sequence[xr.Dataset], metric: Metric) -> xr.Dataset:
    """Return what a fresh metric knows after merging states of one block."""
    one = copy.deepcopy(metric)
    for state in states:
        merge_into(one, state)
    return state_of(one)


def _plan(activation: xr.DataArray, metric: Metric, slabs: Slabs) -> list[Any]:
    """Return one delayed state a block."""
    delayed = _dask().delayed
    source = delayed(activation, pure=False, traverse=False)  # sent to a worker once, not by task
    read, merge = delayed(reduce_shard), delayed(merge_states)
    result = []
    for block in range(activation.sizes["block"]):
        states = [read(source, metric, block, *slabs.bounds(slab)) for slab in slabs]
        while len(states) > 1:
            groups = [states[low : low + FAN_IN] for low in range(0, len(states), FAN_IN)]
            states = [merge(group, metric) for group in groups]
        result += states
    return result


def _batches(data: xr.Dataset) -> xr.DataArray:
    """Return lazy activations, dims (block, scale, neuron, image), with what a metric sees."""
    activation = data["activation"].isel(model=0)
    activation = activation.drop_vars([name for name in activation.coords if name not in _SEEN])
    names = activation["scale_name"].to_numpy().astype(object).astype(str)
    labels = activation["label"].to_numpy()  # read here, once
    return activation.assign_coords(scale_name=("scale", names), label=("image", labels))


def _joined(states: Sequence[xr.Dataset], name: str) -> xr.Dataset:
    if not all("block" in state.dims for state in states):
        raise PluginError(f"a state of metric {name!r} has no dim 'block'; see `Metric.state`")
    try:
        return xr.concat(
            states,
            dim="block",
            data_vars="minimal",
            coords="minimal",
            compat="equals",
            join="exact",
        )
    except ValueError as error:
        raise PluginError(
            f"metric {name!r} has states that differ between blocks in what has no dim 'block' "
            f"({error}); on a cluster every block is reduced by itself"
        ) from error


def _dask() -> ModuleType:
    try:
        import dask
    except ImportError as error:
        raise InputError(
            'scoring on a cluster needs dask; install it with: pip install "iarmem[dask]"'
        ) from error
    return dask
