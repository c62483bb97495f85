"""The first job: find where a model's memory of its training images is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.augmentation import Augmentation
from iarmem_plugin.capture import capture
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.images import Images
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.outputs import check_place
from iarmem_plugin.provenance import model_provenance
from iarmem_plugin.store_capture import keep

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.tracing import ImageARModel

SCORES_FILE = "scores.nc"
PARTIAL = f"{SCORES_FILE}.partial"
LIST_FILE = "images.txt"
OUR_FILES = frozenset(
    {SCORES_FILE, PARTIAL, LIST_FILE, "heatmap.png", "neurons.png", "histogram.png"}
)


def localize(
    model: ImageARModel,
    images: Images,
    *,
    metric: str | Metric = "unitmem",
    views: int = 10,
    batch_size: int = 32,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    workers: int = 0,
    store: Path | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Score every neuron of a model by its activations on training images.

    Activations stream through the metric; they are kept only if `store` names a path.

    Args:
        model: the wrapped model; it comes back as it was.
        images: training images.
        metric: a name or a fresh instance.
        views: augmented views of each image.
        batch_size: images in one pass.
        seed: of the views.
        augmentation: draws the views; by default the one the model was trained with.
        workers: processes that decode pictures ahead of the model; 0 decodes in this one.
        store: where to write an activation store; None keeps no activations.
        progress: where a progress bar may be shown.

    Returns:
        ``score`` (the metric's) and ``mean_activation``, both with dims (block, scale, neuron)
        and the coordinate ``valid``; attribute ``provenance`` (JSON) says how they were made.

    Raises:
        UnknownNameError: no such metric.
        InputError: images that cannot be used.
        NonFiniteActivationError: NaN or infinity among the activations.

    Reference: arXiv 2509.00488, section 3.2.
    """
    images.check_labels(model.adapter.variant.num_classes)
    scorer = plugins.find("metric", metric)() if isinstance(metric, str) else metric
    activity = plugins.find("metric", "mean-activation")()
    drawn = model.adapter.variant.views if augmentation is None else augmentation
    run = partial(
        capture,
        model,
        views=views,
        batch_size=batch_size,
        seed=seed,
        augmentation=drawn,
        workers=workers,
    )
    provenance = model_provenance(model) | describe_images(images)
    provenance |= {"views": views, "batch_size": batch_size, "seed": seed}
    provenance["scales"] = {scale.name: scale.spans for scale in model.layout.scales}
    provenance |= {"augmentation": dict(drawn.provenance)}
    if store is None:
        batches: Iterable[xr.DataArray] = run(images)
    else:
        check_place(store)
        about = {"provenance": provenance, "checkpoint_sha256": provenance["weights_sha256"]}
        batches = keep(store, model, images, run, attrs=about)
    task = None if progress is None else progress.add_task("capture", total=len(images))
    for batch in batches:
        scorer.update(batch)
        activity.update(batch)
        if progress is not None and task is not None:
            progress.advance(task, batch.sizes["image"])
    return _scores(scorer, activity, provenance | {"metric": scorer.name})


def save_scores(scores: xr.Dataset, folder: Path) -> Path:
    """Write scores to ``scores.nc`` in a folder, whole or not at all, and pictures beside it.

    Returns:
        the folder.

    Raises:
        InputError: the folder holds other files.
    """
    from iarmem_plugin import plots

    check_scores_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_netcdf(folder / PARTIAL, engine="h5netcdf")
    (folder / PARTIAL).replace(folder / SCORES_FILE)
    pictures = {
        "heatmap.png": plots.heatmap(scores),
        "neurons.png": plots.neurons_by_block(scores),
        "histogram.png": plots.histogram(scores),
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
    others = {file.name for file in folder.iterdir()} - OUR_FILES if folder.exists() else set()
    if others:
        raise InputError(
            f"{folder} holds other files, such as {min(others)!r}; name a new or empty folder, or "
            "one that holds earlier scores"
        )


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


def _scores(scorer: Metric, activity: Metric, provenance: Mapping[str, Any]) -> xr.Dataset:
    score, mean = _computed(scorer), activity.compute()
    mean = mean.drop_vars(["valid", "top_image"], errors="ignore")  # the metric's own are kept
    variables = {"score": score.astype("float32"), "mean_activation": mean.astype("float32")}
    dataset = xr.Dataset(variables, attrs={"metric": scorer.name})
    dataset.attrs["provenance"] = json.dumps(provenance)
    return dataset


def _computed(metric: Metric) -> xr.DataArray:
    score = metric.compute()
    if set(score.dims) != {"block", "scale", "neuron"} or "valid" not in score.coords:
        raise PluginError(
            f"metric {metric.name!r} computed dims {score.dims} with the coordinates "
            f"{sorted(map(str, score.coords))}; it must give block, scale, neuron and 'valid'"
        )
    return score


def describe_images(images: Images) -> dict[str, Any]:
    """Return what identifies a list of images: paths, labels and classes, not their pixels."""
    return {
        "images": len(images),
        "image_list_sha256": images.digest,
        "skipped_images": list(images.skipped),
        "classes": {str(label): name for label, name in sorted(images.classes.items())},
    }
