"""Scores on disk, with pictures of them and the list of the images: all of it, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xarray as xr

from iarmem_plugin.data.lists import read_list
from iarmem_plugin.disk import Content
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_results, finish_writing, is_ours, write_results
from iarmem_plugin.fingerprint import canonical_json
from iarmem_plugin.neurons.selectors import by_number, check_valid
from iarmem_plugin.report.results import CapturedImage
from iarmem_plugin.stages import forget
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.models.tracing import ImageARModel

SCORES_FILE = "scores.nc"
DIGEST = "sha256"  # attribute; netCDF has no checksum of its own
OF_METRICS = "scores-*.nc"
LIST_FILE = "images.txt"
CHECKPOINTS = "progress"
RANK = re.compile(r"rank-\d+")
OUR_FILES = (SCORES_FILE, LIST_FILE, "heatmap.png", "neurons.png", "histogram.png")
NO_SOURCES: Mapping[str, Path | None] = MappingProxyType({})
DAMAGES = (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError)
"""What h5netcdf and xarray raise at files that are damaged, or not theirs."""


def save_scores(
    scores: xr.Dataset | Mapping[str, xr.Dataset],
    folder: Path | str,
    *,
    images: Images | None = None,
) -> Path:
    """Write scores and pictures of them into a folder: all of it, or nothing.

    Of several metrics' scores, the first are in ``scores.nc``, which the pictures show, and each
    of the others in ``scores-<metric>.nc``. What earlier scores left in the folder goes.

    Args:
        scores: what `localize` returned.
        folder: folder to write.
        images: the images that were used; their list is written beside the scores.

    Returns:
        the folder.

    Raises:
        InputError: the folder holds other files.
        DiskFullError: there is no room; earlier scores stay.
    """
    target = Path(folder)
    first, *others = [scores] if isinstance(scores, xr.Dataset) else scores.values()
    check_scores_folder(target, metrics=[str(one.attrs["metric"]) for one in others])
    files = {SCORES_FILE: first} | {_file_of(one.attrs["metric"]): one for one in others}
    contents = {name: _content(one) for name, one in files.items()}
    if images is not None:
        contents[LIST_FILE] = images.as_list()
    try:
        contents |= _pictures(first)
    finally:  # scores are worth more than the pictures of them
        write_results(target, contents, remove=[*OUR_FILES, *_of_metrics(target)])
    return target


def check_scores_folder(
    folder: Path,
    store: Path | None = None,
    *,
    metrics: Sequence[str] = (),
    sources: Mapping[str, Path | None] = NO_SOURCES,
) -> None:
    """Refuse a place where scores must not be written; call it before the expensive part.

    Files of the names that we write are ours where they lie beside scores that we wrote.

    Args:
        folder: folder for the scores; a store of activations may lie in it.
        store: the store that the same run writes, if it is a folder.
        metrics: metrics but the first, whose scores are written into files of their own.
        sources: what the same run reads, by the options that name it.

    Raises:
        InputError: it is a file or a folder with other files, or cannot be made; or the store
            would take its place, or hold it; or what is read would be replaced.
    """
    if store is not None:
        _check_apart(folder, store)
    check_results(folder, [*OUR_FILES, *map(_file_of, metrics)])
    check_results(folder / CHECKPOINTS, ())
    _check_sources(folder, sources, metrics)
    found = list(folder.iterdir()) if folder.exists() else []
    kept = None if store is None else store.resolve()
    stores = [one.name for one in found if (one / "zarr.json").is_file() or one.resolve() == kept]
    if others := [one.name for one in found if not _may_stay(one.name, stores)]:
        raise InputError(
            f"{folder} holds other files, such as {min(others)!r}; name a new or empty folder, or "
            "one that holds earlier scores"
        )
    _check_ours(folder, metrics)


def begin_scores(folder: Path, *, restart: bool = False, store: Path | None = None) -> None:
    """Refuse a place where scores must not be written; on request, forget an unfinished run.

    Args:
        folder: folder for the scores.
        restart: discard what an unfinished run without a store has left there.
        store: the store that the same run writes, if it is a folder.

    Raises:
        InputError: see `check_scores_folder`.
    """
    check_scores_folder(folder, store)
    if restart:
        forget_progress(folder)


def forget_progress(folder: Path) -> None:
    """Delete the states of a run without a store, unfinished or with its scores saved."""
    forget(folder / CHECKPOINTS, RANK)


def load_scores(path: Path | str) -> xr.Dataset:
    """Read scores from a file or from the folder that `localize` wrote.

    Raises:
        InputError: there is no such file, or it holds no scores.
    """
    place = Path(path)
    file = place / SCORES_FILE if place.is_dir() else place
    finish_writing(file.parent)
    if not file.is_file():
        raise InputError(f"there are no scores at {file}; make some with 'iarmem localize'")
    try:
        scores = xr.load_dataset(file, engine="h5netcdf")
    except DAMAGES as error:
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
        InputError: the message names what is missing or wrong.
    """
    if "score" not in scores or set(scores["score"].dims) != {"block", "scale", "neuron"}:
        raise InputError("there is no variable 'score' with dims block, scale, neuron")
    if scores["score"].dtype.kind not in "fiu":
        raise InputError(f"the scores are {scores['score'].dtype}; expected real numbers")
    missing = [name for name in ("valid", "scale_name") if name not in scores.coords]
    missing += [name for name in ("metric", "provenance") if name not in scores.attrs]
    if missing:
        raise InputError(f"the scores lack {', '.join(missing)}; make them with 'iarmem localize'")
    check_valid(scores)
    by_number(scores)
    try:
        provenance = json.loads(scores.attrs["provenance"])
    except (TypeError, ValueError) as error:
        raise InputError("the scores' provenance is not JSON") from error
    if not isinstance(provenance, dict):
        raise InputError("the scores' provenance is not a mapping")


def check_size(scores: xr.Dataset, blocks: int, neurons: int) -> None:
    """Refuse scores of a model of another size.

    Args:
        scores: scores as `localize` made them.
        blocks: number of the model's blocks.
        neurons: number of neurons in each block.

    Raises:
        InputError: the message gives both sizes.
    """
    found = (scores.sizes["block"], scores.sizes["neuron"])  # scales may be bands
    if found != (blocks, neurons):
        raise InputError(
            f"the scores have (block, neuron) = {found}, the model {(blocks, neurons)}: "
            "they were made with another model"
        )


def mean_activation(scores: xr.Dataset) -> xr.DataArray | None:
    """Return the mean activation of every neuron, averaged over the scales.

    Args:
        scores: scores as `localize` made them.

    Returns:
        mean of |activation|, dims (block, neuron); None where the scores do not hold it.
    """
    if "mean_activation" not in scores:
        return None
    return by_number(scores["mean_activation"]).mean("scale").transpose("block", "neuron")


def captured_images(scores: Path, images: Images) -> tuple[CapturedImage, ...]:
    """Return the list of images that lies beside scores; nothing where there is none.

    Args:
        scores: folder or file that was given as scores.
        images: images among which these are looked up for their ids.
    """
    file = (scores if scores.is_dir() else scores.parent) / LIST_FILE
    if not file.is_file():
        return ()
    ids = dict(zip(images.paths, images.ids.tolist(), strict=True))
    found = read_list(file, Path())
    return tuple(
        CapturedImage(path, -1 if line.label is None else line.label, ids.get(path))
        for path, line in found.items()
    )


def check_made_with(model: ImageARModel, *scores: xr.Dataset) -> None:
    """Refuse scores of another model, or of other weights of this one, which are hashed once.

    Raises:
        InputError: the message says what differs.
    """
    from iarmem_plugin.models.provenance import model_provenance  # torch, needed here alone

    here = model_provenance(model)
    for one in scores:
        check_scores(one)
        check_size(one, model.layout.num_blocks, model.layout.neurons_per_block)
        _check_same(json.loads(one.attrs["provenance"]), here)


def _check_same(made_with: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for key in ("dtype", "weights_sha256"):
        if made_with.get(key, here[key]) != here[key]:
            raise InputError(
                f"the scores were made with other weights of this model ({key} "
                f"{made_with[key]}, not {here[key]}); run 'iarmem localize' again"
            )


def _may_stay(name: str, stores: Sequence[str]) -> bool:
    """Tell whether a file or folder beside the scores is ours: theirs, a store or its lock."""
    beside = name in stores or any(name.startswith(f"{one}.") for one in stores)
    ours = name in OUR_FILES or name == CHECKPOINTS or is_ours(name)
    return ours or beside or Path(name).match(OF_METRICS)


def _check_apart(folder: Path, store: Path) -> None:
    out, kept = folder.resolve(), store.resolve()
    taken = kept.parent == out and kept.name in (*OUR_FILES, CHECKPOINTS)
    deeper = kept.is_relative_to(out) and kept.parent != out
    if taken or deeper or out.is_relative_to(kept):
        raise InputError(
            f"the scores in {folder} and the store {store} would be in each other's way; name "
            f"another place for the store, such as {folder / 'activations.zarr'}"
        )


def _of_metrics(folder: Path) -> list[str]:
    """Return the names of further metrics' scores in a folder, and not of files named alike."""
    return [file.name for file in folder.glob(OF_METRICS) if file.name == _file_of(_metric(file))]


def _file_of(metric: object) -> str:
    return f"scores-{metric}.nc"


def _metric(file: Path) -> str | None:
    """Return which metric's scores a file holds; None where they are none of ours."""
    try:
        with xr.open_dataset(file, engine="h5netcdf") as scores:
            return str(scores.attrs["metric"]) if "provenance" in scores.attrs else None
    except DAMAGES:
        return None


def _check_ours(folder: Path, metrics: Sequence[str]) -> None:
    """Refuse files of our names that we did not write: they would be replaced."""
    found = [name for name in OUR_FILES if os.path.lexists(folder / name)]
    others = [name for name in map(_file_of, metrics) if os.path.lexists(folder / name)]
    links = [name for name in (*found, *others) if (folder / name).is_symlink()]
    if links:
        raise InputError(
            f"{folder / links[0]} is a link, and would be replaced; move it, or name another folder"
        )
    mine = [name for name in others if name not in _of_metrics(folder)]
    if found and _metric(folder / SCORES_FILE) is None:
        mine = [*found, *mine]
    if mine:
        raise InputError(
            f"{folder} holds {mine[0]!r}, but no scores of ours, and it would be replaced; move "
            "it, or name another folder"
        )


def _check_sources(
    folder: Path, sources: Mapping[str, Path | None], metrics: Sequence[str]
) -> None:
    """Refuse to replace what is read."""
    for option, path in sources.items():
        for name in (*OUR_FILES, *map(_file_of, metrics)):
            if path is not None and path.resolve() == (folder / name).resolve():
                raise InputError(
                    f"{option} {shown(path)} would be replaced by the {name} of these results; "
                    "name another folder with --out"
                )


def _pictures(scores: xr.Dataset) -> dict[str, Content]:
    from iarmem_plugin.report import figures as plots

    drawn = {
        "heatmap.png": plots.heatmap(scores),
        "neurons.png": plots.neurons_by_block(scores),
        "histogram.png": plots.histogram(scores),
    }
    return {name: plots.png(figure) for name, figure in drawn.items()}


def _content(scores: xr.Dataset) -> Content:
    whole = scores.assign_attrs({DIGEST: _digest(scores)})
    return bytes(whole.to_netcdf(engine="h5netcdf"))  # HDF5 does not survive a full disk


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
