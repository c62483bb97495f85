"""Checkpoints: how far a run without a store has come, so that a killed one goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.activations.metrics import merge_into
from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins.blame import distribution
from iarmem_plugin.stages import Stages

_KEY = re.compile(r"rank-(0|[1-9]\d{0,8})")


class Checkpoints:
    """A folder with a file for each process: its metrics' states, and the slabs in them.

    A process writes its own file alone, as a whole or not at all. Files of an earlier run with
    more processes stay until the end, when their states are merged like the others.
    """

    def __init__(
        self,
        folder: Path | str,
        settings: CaptureSettings,
        metrics: Iterable[str] | Mapping[str, Metric],
    ) -> None:
        """Name the folder; nothing is touched yet.

        Args:
            folder: folder that holds nothing else.
            settings: settings of the capture; a run goes on only with the same.
            metrics: keys of the metrics, which must be the same, too; with the metrics
                themselves, so must be their parameters and distributions.

        Raises:
            InputError: a setting is not a JSON value.
        """
        self._settings, self._metrics = settings, sorted(metrics)
        given = metrics if isinstance(metrics, Mapping) else {}
        facts: dict[str, Any] = {"metrics": self._metrics}
        for key, metric in given.items():
            facts[f"parameters of {key}"] = dict(metric.parameters)
            facts[f"distribution of {key}"] = distribution(type(metric))
        self._stages = Stages(folder, settings.to_dict() | facts)

    def check(self) -> None:
        """Refuse a folder in which nothing can be saved; call it before the work.

        Raises:
            InputError: it is a link or a file, or may not be written to.
        """
        self._stages.check()

    def slabs(self) -> dict[int, list[int]]:
        """Return which slabs each process has finished.

        Raises:
            FingerprintMismatchError: they were captured with other settings; these are named.
            InputError: a file cannot be read, or says what cannot be.
        """
        keys = filter(_KEY.fullmatch, self._stages.finished())
        ranks = sorted(int(key.removeprefix("rank-")) for key in keys)
        found = {rank: self._slabs(rank, self._of(rank)) for rank in ranks}
        seen: set[int] = set()
        for rank, slabs in found.items():
            if twice := seen.intersection(slabs):
                raise self._spoilt(rank, f"slab {min(twice)} is in another file, too")
            seen.update(slabs)
        return found

    def load(self, rank: int) -> dict[str, xr.Dataset]:
        """Return the states of a process's metrics, by key.

        Raises:
            InputError: the file cannot be read, or its states are not those of its slabs.
        """
        tree = self._of(rank)
        states = {str(key): child.to_dataset() for key, child in tree.children.items()}
        if sorted(states) != self._metrics:
            raise self._spoilt(rank, f"it has the states of {', '.join(states) or 'no metric'}")
        slabs = self._slabs(rank, tree)
        for key, state in states.items():
            if not self._fits(state, slabs):
                raise self._spoilt(rank, f"the state of {key} is not that of its slabs")
        return states

    def merge_into(self, metrics: Mapping[str, Metric], rank: int) -> None:
        """Add the states of a process to the metrics of the same keys.

        Raises:
            InputError: the file cannot be read, or a metric does not take its state.
        """
        states = self.load(rank)
        try:
            for key, metric in metrics.items():
                merge_into(metric, states[key])
        except Exception as error:
            raise self._spoilt(rank, f"a metric does not take its state: {error!r}") from error

    def save(self, rank: int, slabs: Sequence[int], states: Mapping[str, xr.Dataset]) -> None:
        """Replace a process's file, as a whole or not at all.

        Args:
            rank: number of the process.
            slabs: numbers of all slabs whose images are in the states.
            states: states of the metrics, by key.

        Raises:
            DiskFullError: there is no room; what was saved before stays.
        """
        done = xr.Dataset({"slabs": ("slab", np.array(slabs, np.int64))})
        children = {key: xr.DataTree(state) for key, state in states.items()}
        self._stages.save(f"rank-{rank}", xr.DataTree(done, children=children))

    def _of(self, rank: int) -> xr.DataTree:
        return self._stages.load(f"rank-{rank}")

    def _spoilt(self, rank: int, reason: str) -> InputError:
        return self._stages.unreadable(f"rank-{rank}", reason)

    def _slabs(self, rank: int, tree: xr.DataTree) -> list[int]:
        data = tree.to_dataset()
        values = data["slabs"].to_numpy() if "slabs" in data else np.zeros(0)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise self._spoilt(rank, "it does not say which slabs are in it")
        slabs: list[int] = values.astype(int).tolist()
        if not set(slabs) <= set(self._settings.slabs) or len(set(slabs)) != len(slabs):
            raise self._spoilt(rank, "its slabs are not those of this capture")
        return slabs

    def _fits(self, state: xr.Dataset, slabs: Sequence[int]) -> bool:
        """Tell whether a state is of this model's neurons, and of the images of some slabs."""
        layout, images = self._settings.layout, self._settings.images
        sizes = {
            "block": layout.num_blocks,
            "scale": len(layout.scales),
            "neuron": layout.neurons_per_block,
        }
        for dim in sizes.keys() & state.sizes.keys():
            if not np.array_equal(state[dim].to_numpy(), np.arange(sizes[dim])):
                return False
        if any(values.dtype.kind in "cmMV" for values in state.variables.values()):
            return False
        if "images" not in state:  # a metric that does not say
            return True
        places = [place for slab in slabs for place in self._settings.slabs.positions(slab)]
        ids = images.ids[np.array(places, np.int64)]
        return np.array_equal(np.sort(state["images"].to_numpy()), np.sort(ids))
