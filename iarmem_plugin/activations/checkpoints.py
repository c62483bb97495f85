"""Checkpoints: how far a run without a store has come, so that a killed one goes on."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import write_whole
from iarmem_plugin.fingerprint import canonical_json, require_same

_FILE = re.compile(r"rank-(\d+)\.nc")


class Checkpoints:
    """A folder with a file for each process: its metrics' states, and the slabs in them.

    A process writes its own file alone, as a whole or not at all. Files of an earlier run with
    more processes stay until the end, when their states are merged like the others.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Name the folder; nothing is touched yet.

        Args:
            folder: holds nothing else.
            settings: whatever changes the numbers; a run goes on only with the same.

        Raises:
            InputError: if a setting is no JSON value.
        """
        self.folder, self._settings = folder, settings
        self._text = canonical_json(settings)

    def ranks(self) -> list[int]:
        """Return the numbers of the processes that have left a file."""
        names = [file.name for file in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(found[1]) for name in names if (found := _FILE.fullmatch(name)))

    def slabs(self) -> dict[int, list[int]]:
        """Return which slabs each process has finished.

        Raises:
            FingerprintMismatchError: they were captured with other settings; these are named.
            InputError: a file cannot be read.
        """
        return {rank: self._root(rank) for rank in self.ranks()}

    def load(self, rank: int) -> dict[str, xr.Dataset]:
        """Return the states of a process's metrics, by key.

        Raises:
            InputError: the file cannot be read.
        """
        tree = self._open(rank)
        return {str(key): child.to_dataset() for key, child in tree.children.items()}

    def save(self, rank: int, slabs: Sequence[int], states: Mapping[str, xr.Dataset]) -> None:
        """Replace a process's file, as a whole or not at all.

        Args:
            rank: of the process.
            slabs: numbers of all slabs whose images are in the states.
            states: by key.

        Raises:
            DiskFullError: there is no room; what was saved before stays.
        """
        done = xr.Dataset({"slabs": ("slab", np.array(slabs, np.int64))})
        done.attrs["settings"] = self._text
        tree = xr.DataTree(done, children={key: xr.DataTree(one) for key, one in states.items()})
        content = bytes(tree.to_netcdf(engine="h5netcdf"))  # HDF5 does not survive a full disk
        write_whole(self._file(rank), content + hashlib.sha256(content).digest())

    def discard(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _root(self, rank: int) -> list[int]:
        root = self._open(rank)
        try:
            settings, slabs = json.loads(root.attrs["settings"]), root["slabs"].to_numpy()
        except (KeyError, ValueError, TypeError) as error:
            raise self._unreadable(rank, error) from error
        require_same(
            settings,
            self._settings,
            place=f"the unfinished run in {self.folder}",
            where="there",
            cure="start anew with --restart",
        )
        return [int(slab) for slab in slabs]

    def _open(self, rank: int) -> xr.DataTree:
        size = hashlib.sha256().digest_size  # netCDF has no checksum of its own
        try:
            data = self._file(rank).read_bytes()
            if hashlib.sha256(data[:-size]).digest() != data[-size:]:
                raise ValueError("its checksum does not fit")
            with xr.open_datatree(BytesIO(data[:-size]), engine="h5netcdf") as tree:
                return tree.load()
        except (OSError, ValueError, KeyError) as error:
            raise self._unreadable(rank, error) from error

    def _unreadable(self, rank: int, error: Exception) -> InputError:
        return InputError(
            f"{self._file(rank)} cannot be read ({error}); start anew with --restart, or delete it "
            "to capture its slabs again"
        )

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.nc"
