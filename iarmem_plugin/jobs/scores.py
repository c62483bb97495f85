"""Scores on disk: one file, whole or absent, and pictures of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_writable, write_whole
from iarmem_plugin.fingerprint import canonical_json

if TYPE_CHECKING:
    from iarmem_plugin.models.tracing import ImageARModel

SCORES_FILE = "scores.nc"
DIGEST = "sha256"  # attribute; netCDF has no checksum of its own
OF_METRICS = "scores-*.nc"
LIST_FILE = "images.txt"
CHECKPOINTS = "progress"
OUR_FILES = frozenset(
    {SCORES_FILE, LIST_FILE, CHECKPOINTS, "heatmap.png", "neurons.png", "histogram.png"}
)


def save_scores(scores: xr.Dataset | Mapping[str, xr.Dataset], folder: Path | str) -> Path:
    """Write scores to ``scores.nc`` in a folder, whole or not at all, and pictures beside it.

    Of several metrics' scores, the first are in ``scores.nc``, which the pictures show, and each
    of the others in ``scores-<metric>.nc``. What earlier runs left in the folder goes.

    Returns:
        the folder.

    Raises:
        InputError: the folder holds other files.
    """
    from iarmem_plugin.report import figures as plots

    first, *others = [scores] if isinstance(scores, xr.Dataset) else scores.values()
    folder = Path(folder)
    check_scores_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(OF_METRICS):
        old.unlink()
    for one in others:
        _write(one, folder / f"scores-{one.attrs['metric']}.nc")
    _write(first, folder / SCORES_FILE)
    pictures = {
        "heatmap.png": plots.heatmap(first),
        "neurons.png": plots.neurons_by_block(first),
        "histogram.png": plots.histogram(first),
    }
    for name, figure in pictures.items():
        write_whole(folder / name, plots.png(figure))
    return folder


def check_scores_folder(folder: Path) -> None:
    """Refuse a place where scores must not be written; call it before the expensive part.

    Raises:
        InputError: it is a file or a folder with other files, or cannot be made.
    """
    check_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the scores")
    found = folder.iterdir() if folder.exists() else ()
    names = {file.name.removesuffix(".partial") for file in found}  # of a killed run
    if others := {name for name in names - OUR_FILES if not Path(name).match(OF_METRICS)}:
        raise InputError(
            f"{folder} holds other files, such as {min(others)!r}; name a new or empty folder, or "
            "one that holds earlier scores"
        )


def begin_scores(folder: Path, *, restart: bool = False) -> None:
    """Refuse a place where scores must not be written; on request, forget an unfinished run.

    Args:
        folder: folder for the scores.
        restart: discard what an unfinished run without a store has left there.

    Raises:
        InputError: see `check_scores_folder`.
    """
    check_scores_folder(folder)
    if restart:
        forget_progress(folder)


def forget_progress(folder: Path) -> None:
    """Delete the states of a run without a store, unfinished or with its scores saved."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def load_scores(path: Path | str) -> xr.Dataset:
    """Read scores from a file or from the folder that `localize` wrote.

    Raises:
        InputError: there is no such file, or it holds no scores.
    """
    path = Path(path)
    file = path / SCORES_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"there are no scores at {file}; make some with 'iarmem localize'")
    try:
        scores = xr.load_dataset(file, engine="h5netcdf")
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        raise InputError(f"{file} cannot be read as netCDF: {error}") from error  # if damaged
    if (digest := scores.attrs.pop(DIGEST, None)) not in (None, _digest(scores)):
        raise InputError(f"{file} is damaged or was changed: its checksum is not {digest}")
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
        raise InputError("the scores' provenance is not a mapping")


def check_made_with(model: ImageARModel, scores: xr.Dataset) -> None:
    """Refuse scores of another model, or of other weights of this one.

    Raises:
        InputError: the message says what differs.
    """
    from iarmem_plugin.models.provenance import model_provenance  # torch, needed here alone

    check_scores(scores)
    layout = model.layout
    expected = (layout.num_blocks, layout.neurons_per_block)
    found = (scores.sizes["block"], scores.sizes["neuron"])  # scales may be bands
    if found != expected:
        raise InputError(
            f"the scores have (block, neuron) = {found}, the model {expected}: "
            "they were made with another model"
        )
    made_with, here = json.loads(scores.attrs["provenance"]), model_provenance(model)
    for key in ("dtype", "weights_sha256"):
        if made_with.get(key, here[key]) != here[key]:
            raise InputError(
                f"the scores were made with other weights of this model ({key} "
                f"{made_with[key]}, not {here[key]}); run 'iarmem localize' again"
            )


def _write(scores: xr.Dataset, file: Path) -> None:
    whole = scores.assign_attrs({DIGEST: _digest(scores)})
    write_whole(file, whole.to_netcdf(engine="h5netcdf"))  # HDF5 does not survive a full disk


def _digest(scores: xr.Dataset) -> str:
    """Return the SHA-256 of the numbers and of what is said about them."""
    digest = hashlib.sha256()
    for name in sorted(map(str, scores.variables)):
        values = scores[name].to_numpy()
        text = values.dtype.kind not in "biuf"
        content = "\0".join(map(str, values.ravel())).encode() if text else values.tobytes()
        digest.update(f"{name} {scores[name].dims} {values.shape} ".encode() + content)
    said = {name: str(text) for name, text in scores.attrs.items() if name != DIGEST}
    return hashlib.sha256(digest.digest() + canonical_json(said).encode()).hexdigest()
