"""Stages: a folder of finished pieces of a long job, so that a killed one goes on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import xarray as xr

from iarmem_plugin.errors import IarmemError, InputError
from iarmem_plugin.files import check_writable, is_ours, write_whole
from iarmem_plugin.fingerprint import canonical_json, require_same
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json, read_small

_SUFFIX = ".nc"
_DIGEST_SIZE = hashlib.sha256().digest_size  # netCDF has no checksum of its own


class Stages:
    """A folder with a file for each finished piece of a job, by key.

    A file is whole or absent. It is netCDF, followed by its SHA-256, and carries its key and the
    settings with which it was made: it is read only under that key, for a job with the same ones.
    Nothing is touched before something is saved.
    """

    def __init__(self, folder: Path | str, settings: Mapping[str, Any]) -> None:
        """Name the folder and the settings.

        Args:
            folder: folder that holds nothing else.
            settings: whatever changes the results.

        Raises:
            InputError: a setting is not a JSON value.
        """
        self.folder, self._settings = Path(folder), settings
        self._text = canonical_json(settings)

    def finished(self) -> list[str]:
        """Return the keys of the pieces that were saved, sorted."""
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(file.stem for file in files if file.suffix == _SUFFIX)

    def load(self, key: str) -> xr.DataTree:
        """Return a piece as it was saved.

        Raises:
            InputError: the file cannot be read.
            FingerprintMismatchError: it was made with other settings; the message names them.
        """
        try:
            tree = self._read(key)
            settings = dict(parse_json(tree.attrs.pop("settings"), "the settings"))
            if (made_as := tree.attrs.pop("key")) != key:
                raise ValueError(f"it was written as {made_as}{_SUFFIX}, and renamed or copied")
        except Exception as error:
            raise self.unreadable(key, error) from error
        require_same(
            settings,
            self._settings,
            place=f"the unfinished run in {self.folder}",
            where="there",
            cure="start anew with --restart",
        )
        return tree

    def unreadable(self, key: str, reason: object) -> InputError:
        """Return the error of a piece that cannot be used, with the cure."""
        said = shown(reason) or type(reason).__name__
        return InputError(
            f"{shown(self._file(key))} cannot be read ({said}); start anew with "
            "--restart, or delete it to do its part again"
        )

    def check(self) -> None:
        """Refuse a folder in which nothing can be saved; call it before the work.

        Raises:
            InputError: it is a link or a file, or may not be written to.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise InputError(f"{shown(self.folder)} is a file or a link; move it away")
        check_writable(self.folder)

    def save(self, key: str, tree: xr.DataTree) -> None:
        """Write a piece, or replace it, as a whole or not at all.

        Args:
            key: name of the piece; letters, digits, dots, dashes and underscores.
            tree: its datasets; a dataset alone is ``xr.DataTree(dataset)``.

        Raises:
            DiskFullError: there is no room; what was saved before stays.
            InputError: the folder cannot be written any more.
        """
        stamped = tree.copy()
        stamped.attrs |= {"settings": self._text, "key": key}
        content = bytes(stamped.to_netcdf(engine="h5netcdf"))  # HDF5 does not survive a full disk
        try:
            write_whole(self._file(key), content + hashlib.sha256(content).digest())
        except OSError as error:
            if isinstance(error, IarmemError):
                raise
            raise InputError(
                f"{shown(self._file(key))} cannot be written ({error.strerror}); see that you may "
                "write there, and give the same command again"
            ) from error

    def _read(self, key: str) -> xr.DataTree:
        file = self._file(key)
        data = read_small(file, "the file", limit=file.stat().st_size)
        content, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("its checksum does not fit")
        with xr.open_datatree(BytesIO(content), engine="h5netcdf") as tree:
            promised = sum(map(_promised, tree.subtree))
            if promised > len(content):  # nothing is compressed here
                raise ValueError(f"it promises {promised / 1e6:.0f} MB")
            return tree.load()

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


def _promised(node: xr.DataTree) -> int:
    """Return how many bytes a node's numbers take; of a text, which may be short, one."""
    every = node.dataset.variables.values()
    return sum(one.size if one.dtype.kind in "UO" else one.nbytes for one in every)


def forget(folder: Path, keys: re.Pattern[str]) -> None:
    """Delete the pieces of a job, and their folder where it holds nothing else.

    Args:
        folder: folder of a `Stages`; it may be missing.
        keys: the keys of that job's pieces.
    """
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if is_ours(file.name) or (file.suffix == _SUFFIX and keys.fullmatch(file.stem)):
            file.unlink(missing_ok=True)
    with suppress(OSError):  # it holds something else
        folder.rmdir()
