"""Pictures in an .npz file: which arrays it must hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from iarmem_plugin.data.readers import UNREADABLE
from iarmem_plugin.errors import InputError

ARRAYS = ("images", "labels", "names", "classes")


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
    """Read the arrays ``images`` and ``labels``, and where present ``names``, ``classes``.

    Raises:
        InputError: if the file is none, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS if name in file}
    except (*UNREADABLE, BadZipFile, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an .npz file of pictures: {error}") from error
    if missing := {"images", "labels"} - arrays.keys():
        raise InputError(f"{path} has no array {' or '.join(sorted(missing))!r}")
    return arrays


def names_in(arrays: Mapping[str, np.ndarray], name: str, path: Path | str) -> list[str] | None:
    """Return an array of names, None where it is absent.

    Raises:
        InputError: if it is no list.
    """
    if name not in arrays:
        return None
    if arrays[name].ndim != 1:
        raise InputError(
            f"the array {name!r} of {path} has shape {arrays[name].shape}; expected a list of names"
        )
    return [str(one) for one in arrays[name]]
