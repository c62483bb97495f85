"""The first job: find where a model's memory of its training images is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.checkpoints import Checkpoints
from iarmem_plugin.activations.distributed import Ranks
from iarmem_plugin.activations.run import Pass
from iarmem_plugin.activations.settings import capture_settings, captured_with
from iarmem_plugin.activations.streaming import stream
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.files import check_place
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.provenance import model_provenance
from iarmem_plugin.store.resume import Lock, keep
from iarmem_plugin.store.store import ActivationStore, Place, local_folder

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.models.tracing import ImageARModel

ACTIVITY = "mean-activation"


@overload
def localize(
    model: ImageARModel,
    images: Images,
    *,
    metric: str | Metric = ...,
    views: int = ...,
    batch_size: int = ...,
    seed: int = ...,
    augmentation: Augmentation | None = ...,
    workers: int = ...,
    slab: int = ...,
    store: Place | None = ...,
    keep_bits: int | None = ...,
    lock: Lock = ...,
    checkpoints: Path | None = ...,
    ranks: Ranks | None = ...,
    progress: Progress | None = ...,
) -> xr.Dataset: ...


@overload
def localize(
    model: ImageARModel,
    images: Images,
    *,
    metric: list[str] | tuple[str | Metric, ...],
    views: int = ...,
    batch_size: int = ...,
    seed: int = ...,
    augmentation: Augmentation | None = ...,
    workers: int = ...,
    slab: int = ...,
    store: Place | None = ...,
    keep_bits: int | None = ...,
    lock: Lock = ...,
    checkpoints: Path | None = ...,
    ranks: Ranks | None = ...,
    progress: Progress | None = ...,
) -> dict[str, xr.Dataset]: ...


def localize(
    model: ImageARModel,
    images: Images,
    *,
    metric: str | Metric | list[str] | tuple[str | Metric, ...] = "unitmem",
    views: int = 10,
    batch_size: int = 32,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    workers: int = 0,
    slab: int = 256,
    store: Place | None = None,
    keep_bits: int | None = None,
    lock: Lock = "take",
    checkpoints: Path | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Score every neuron of a model by its activations on training images.

    Activations stream through the metrics, or, where `store` names a path, are kept first and
    scored from there. A run that was killed goes on when it is started again with the same
    settings: with `store`, or with `checkpoints`.

    Args:
        model: the wrapped model; it comes back as it was.
        images: training images.
        metric: a name or a fresh instance; or several, which share one pass.
        views: augmented views of each image.
        batch_size: images in one pass.
        seed: of the views.
        augmentation: draws the views; by default the one the model was trained with.
        workers: processes that decode pictures ahead of the model; 0 decodes in this one.
        slab: images that are finished together; no batch goes over the end of a slab.
        store: path, URL or store of zarr where activations are kept; None keeps none.
        keep_bits: of the 23 mantissa bits in the store; 13 halve the disk.
        lock: ``"take"`` that of the store, or ``"break"`` one that a killed run has left behind.
        checkpoints: folder for the states of a run without a store; None saves none. It stays,
            so that scores which cannot be saved are not lost; delete it once they are.
        ranks: the processes that share the work; this one alone by default.
        progress: where a progress bar may be shown.

    Returns:
        ``score`` (the metric's) and ``mean_activation``, both with dims (block, scale, neuron)
        and the coordinate ``valid``; attribute ``provenance`` (JSON) says how they were made.
        For several metrics, such a dataset by the name of each. In all processes the same.

    Raises:
        UnknownNameError: no such metric.
        InputError: images that cannot be used.
        NonFiniteActivationError: NaN or infinity among the activations.
        FingerprintMismatchError: what is to be gone on with was begun with other settings.
        StoreError: of the store, see `open_for_capture`.
        RankError: another process has ended.

    Reference: arXiv 2509.00488, section 3.2.
    """
    images.check_labels(model.adapter.variant.num_classes)
    scorers = _instances((metric,) if isinstance(metric, str | Metric) else metric)
    metrics = {ACTIVITY: plugins.find("metric", ACTIVITY)(), **scorers}
    ranks = Ranks() if ranks is None else ranks
    drawn = model.adapter.variant.views if augmentation is None else augmentation
    batching = Batching(batch_size)
    run = partial(
        capture,
        model,
        views=views,
        batch_size=batching,
        seed=seed,
        augmentation=drawn,
        workers=workers,
    )
    settings: dict[str, Any] = {"views": views, "batch_size": batch_size, "seed": seed}
    settings |= {"augmentation": dict(drawn.provenance)}
    provenance = ranks.share(lambda: _provenance(model, images) | settings)
    work = Pass(images, run, slab, ranks, progress)
    work.say(f"{len(images):,} images, {views} views of each: {len(images) * views:,} passes")
    if store is None:
        settings = capture_settings(model, work, provenance) | {"metrics": sorted(metrics)}
        saved = None if checkpoints is None else Checkpoints(checkpoints, settings)
        stream(work, metrics, saved)
    else:
        _keep_and_read(model, work, metrics, store, provenance, keep_bits, lock)
    provenance |= {"slab": slab, "batch_size_used": min(ranks.gather(batching.size))}
    scores = ranks.share(lambda: _all_scores(scorers, metrics[ACTIVITY], provenance))
    return next(iter(scores.values())) if isinstance(metric, str | Metric) else scores


def _instances(given: Sequence[str | Metric]) -> dict[str, Metric]:
    made = [plugins.find("metric", one)() if isinstance(one, str) else one for one in given]
    names = [one.name for one in made]
    if not made or len(set(names)) != len(names):
        raise InputError(f"the metrics {names} were given; give one or more, each once")
    return dict(zip(names, made, strict=True))


def _keep_and_read(
    model: ImageARModel,
    work: Pass,
    metrics: Mapping[str, Metric],
    store: Place,
    provenance: Mapping[str, Any],
    keep_bits: int | None,
    lock: Lock,
) -> None:
    """Capture into a store what it lacks; then give all of it to the first process's metrics.

    They read in the order of the images, so sums do not depend on who captured what, and when.
    """
    if (local := local_folder(store)) is not None:
        check_place(local)
    keep(store, model, work, attrs=captured_with(provenance), keep_bits=keep_bits, lock=lock)
    if not work.ranks.first:
        return
    name = model.adapter.variant.name
    for batch in work.shown(ActivationStore.open(store).batches(name), "score"):
        for metric in metrics.values():
            metric.update(batch)


def _provenance(model: ImageARModel, images: Images) -> dict[str, Any]:
    scales = {scale.name: scale.spans for scale in model.layout.scales}
    return model_provenance(model) | describe_images(images) | {"scales": scales}


def _all_scores(
    scorers: Mapping[str, Metric], activity: Metric, provenance: Mapping[str, Any]
) -> dict[str, xr.Dataset]:
    mean = activity.compute()
    mean = mean.drop_vars(["valid", "top_image"], errors="ignore")  # the metric's own are kept
    return {
        name: _scores(scorer, mean, {**provenance, "metric": name})
        for name, scorer in scorers.items()
    }


def _scores(scorer: Metric, mean: xr.DataArray, provenance: Mapping[str, Any]) -> xr.Dataset:
    score = _computed(scorer)
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
