"""Checkpoints: how far a run without a store has come, so that a killed one goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.stages import Stages

_KEY = re.compile(r"rank-(\d+)")


class Checkpoints:
    """A folder with a file for each process: its metrics' states, and the slabs in them.

    A process writes its own file alone, as a whole or not at all. Files of an earlier run with
    more processes stay until the end, when their states are merged like the others.
    """

    def __init__(
        self, folder: Path | str, settings: CaptureSettings, metrics: Iterable[str]
    ) -> None:
        """Name the folder; nothing is touched yet.

        Args:
            folder: folder that holds nothing else.
            settings: settings of the capture; a run goes on only with the same.
            metrics: names of the metrics, which must be the same, too.

        Raises:
            InputError: a setting is not a JSON value.
        """
        self._stages = Stages(folder, settings.to_dict() | {"metrics": sorted(metrics)})

    def slabs(self) -> dict[int, list[int]]:
        """Return which slabs each process has finished.

        Raises:
            FingerprintMismatchError: they were captured with other settings; these are named.
            InputError: a file cannot be read.
        """
        keys = filter(_KEY.fullmatch, self._stages.finished())
        ranks = sorted(int(key.removeprefix("rank-")) for key in keys)
        return {rank: self._of(rank)["slabs"].to_numpy().tolist() for rank in ranks}

    def load(self, rank: int) -> dict[str, xr.Dataset]:
        """Return the states of a process's metrics, by key.

        Raises:
            InputError: the file cannot be read.
        """
        return {str(key): child.to_dataset() for key, child in self._of(rank).children.items()}

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
