"""A stranger's plugin as it lies on disk: a metric and an intervention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import xarray as xr

from iarmem_plugin import Intervention, Metric, hookimpl
from iarmem_plugin.interfaces import NeuronWeights


class Loudest(Metric):
    """The largest activation over images."""

    name = "acme-loudest"

    def __init__(self) -> None:
        self._largest: xr.DataArray | None = None

    def update(self, activations: xr.DataArray) -> None:
        self._keep(activations.max("image"))

    def state(self) -> xr.Dataset:
        return xr.Dataset() if self._largest is None else xr.Dataset({"largest": self._largest})

    def merge(self, state: xr.Dataset) -> None:
        if "largest" in state:
            self._keep(state["largest"])

    def compute(self) -> xr.DataArray:
        if self._largest is None:
            raise ValueError("no images")
        return self._largest.assign_coords(valid=self._largest == self._largest)

    def _keep(self, values: xr.DataArray) -> None:
        if self._largest is not None:
            values = xr.where(values > self._largest, values, self._largest)
        self._largest = values


class Negate(Intervention):
    """Turn the sign of the incoming weights."""

    name = "acme-negate"

    @property
    def parameters(self) -> Mapping[str, float]:
        return {}

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        return replace(neurons, reads={name: -rows for name, rows in neurons.reads.items()})


@hookimpl
def provide_metrics() -> list[type[Metric]]:
    return [Loudest]


@hookimpl
def provide_interventions() -> list[type[Intervention]]:
    return [Negate]
