"""Scores on disk: one file, whole or absent, and pictures of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.outputs import check_place

SCORES_FILE = "scores.nc"
PARTIAL = f"{SCORES_FILE}.partial"
OF_METRICS = "scores-*.nc"
LIST_FILE = "images.txt"
CHECKPOINTS = "progress"
OUR_FILES = frozenset(
    {SCORES_FILE, PARTIAL, LIST_FILE, CHECKPOINTS, "heatmap.png", "neurons.png", "histogram.png"}
)


def save_scores(scores: xr.Dataset | Mapping[str, xr.Dataset], folder: Path) -> Path:
    """Write scores to ``scores.nc`` in a folder, whole or not at all, and pictures beside it.

    Of several metrics' scores, the first are in ``scores.nc``, which the pictures show, and each
    of the others in ``scores-<metric>.nc``. What earlier runs left in the folder goes.

    Returns:
        the folder.

    Raises:
        InputError: the folder holds other files.
    """
    from iarmem_plugin import plots

    first, *others = [scores] if isinstance(scores, xr.Dataset) else scores.values()
    check_scores_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(OF_METRICS):
        old.unlink()
    for one in others:
        _write(one, folder / f"scores-{one.attrs['metric']}.nc")
    _write(first, folder / SCORES_FILE)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    pictures = {
        "heatmap.png": plots.heatmap(first),
        "neurons.png": plots.neurons_by_block(first),
        "histogram.png": plots.histogram(first),
    }
    for name, figure in pictures.items():
        (folder / name).write_bytes(plots.png(figure))
    return folder


def check_scores_folder(folder: Path) -> None:
    """Refuse a place where scores must not be written; call it before the expensive part.

    Raises:
        InputError: it is a file or a folder with other files, or cannot be made.
    """
    check_place(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the scores")
    names = {file.name for file in folder.iterdir()} if folder.exists() else set()
    if others := {name for name in names - OUR_FILES if not Path(name).match(OF_METRICS)}:
        raise InputError(
            f"{folder} holds other files, such as {min(others)!r}; name a new or empty folder, or "
            "one that holds earlier scores"
        )


def begin_scores(folder: Path, *, restart: bool = False) -> None:
    """Refuse a place where scores must not be written; on request, forget an unfinished run.

    Args:
        folder: for the scores.
        restart: discard what an unfinished run without a store has left there.

    Raises:
        InputError: see `check_scores_folder`.
    """
    check_scores_folder(folder)
    if restart:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def load_scores(path: Path) -> xr.Dataset:
    """Read scores from a file or from the folder that `localize` wrote.

    Raises:
        InputError: there is no such file, or it holds no scores.
    """
    file = path / SCORES_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"there are no scores at {file}; make some with 'iarmem localize'")
    try:
        scores = xr.load_dataset(file, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as netCDF: {error}") from error
    try:
        check_scores(scores)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return scores


def check_scores(scores: xr.Dataset) -> None:
    """Refuse what `localize` did not make and what lacks a part of it.

    Raises:
        InputError: the message names what is missing.
    """
    if "score" not in scores or set(scores["score"].dims) != {"block", "scale", "neuron"}:
        raise InputError("there is no variable 'score' with dims block, scale, neuron")
    missing = [name for name in ("valid", "scale_name") if name not in scores.coords]
    missing += [name for name in ("metric", "provenance") if name not in scores.attrs]
    if missing:
        raise InputError(f"the scores lack {', '.join(missing)}; make them with 'iarmem localize'")
    try:
        provenance = json.loads(scores.attrs["provenance"])
    except (TypeError, ValueError) as error:
        raise InputError("the scores' provenance is not JSON") from error
    if not isinstance(provenance, dict):
        raise InputError("the scores' provenance is no mapping")


def _write(scores: xr.Dataset, file: Path) -> None:
    partial = file.with_name(PARTIAL)
    scores.to_netcdf(partial, engine="h5netcdf")
    partial.replace(file)
