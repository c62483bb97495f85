"""The first job: find where a model's memory of its training images is."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import xarray as xr

from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.checkpoints import Checkpoints
from iarmem_plugin.activations.distributed import Ranks
from iarmem_plugin.activations.metrics import checked, scores_of, update
from iarmem_plugin.activations.run import Run
from iarmem_plugin.activations.settings import CaptureOptions, CaptureSettings
from iarmem_plugin.activations.streaming import stream
from iarmem_plugin.checks import check_kind
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_writable
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.interfaces.layout import spans
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.provenance import describe_images, model_provenance
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import described, versions
from iarmem_plugin.plugins.create import create
from iarmem_plugin.progress import print_above, progress_bar
from iarmem_plugin.store import (
    ActivationStore,
    StoreLike,
    StoreOptions,
    capture_into,
    local_folder,
)

if TYPE_CHECKING:
    from rich.progress import Progress

ACTIVITY = "mean-activation"
MOST_KEPT = 4e9  # bytes
_DEFAULTS = CaptureOptions()


@overload
def localize(
    model: ImageARModel,
    images: Images,
    *,
    metric: str | Metric = ...,
    options: CaptureOptions = ...,
    store: StoreLike | StoreOptions | None = ...,
    checkpoints: Path | str | None = ...,
    ranks: Ranks | None = ...,
    progress: Progress | None = ...,
) -> xr.Dataset: ...


@overload
def localize(
    model: ImageARModel,
    images: Images,
    *,
    metric: list[str] | tuple[str | Metric, ...],
    options: CaptureOptions = ...,
    store: StoreLike | StoreOptions | None = ...,
    checkpoints: Path | str | None = ...,
    ranks: Ranks | None = ...,
    progress: Progress | None = ...,
) -> dict[str, xr.Dataset]: ...


def localize(
    model: ImageARModel,
    images: Images,
    *,
    metric: str | Metric | list[str] | tuple[str | Metric, ...] = "unitmem",
    options: CaptureOptions = _DEFAULTS,
    store: StoreLike | StoreOptions | None = None,
    checkpoints: Path | str | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Score every neuron of a model by its activations on training images.

    Activations stream through the metrics, or, where `store` names a place, are kept first and
    scored from there. A run that was killed goes on when it is started again with the same
    settings: with `store`, or with `checkpoints`.

    Args:
        model: wrapped model; it comes back as it was.
        images: training images.
        metric: name of a metric, be it with options (``"gini:power=2"``), or a fresh instance;
            or several, which share one run. One metric may be given with several settings.
        options: how the images are shown to the model: views, batch size, seed, ...
        store: where activations are kept; None keeps none.
        checkpoints: folder for the states of a run without a store; None saves none. It stays,
            so that scores which cannot be saved are not lost; delete it once they are.
        ranks: the processes that share the work; this one alone by default.
        progress: place where a progress bar is shown, by the first process; None shows nothing.

    Returns:
        ``score`` (the metric's) and ``mean_activation``, both with dims (block, scale, neuron)
        and the coordinate ``valid``; attribute ``provenance`` (JSON) says how they were made.
        For several metrics, such a dataset by the key of each, such as ``"gini(power=2)"``. In all
        processes the same.

    Raises:
        UnknownNameError: there is no such metric.
        InputError: the images cannot be used.
        NonFiniteActivationError: NaN or infinity among the activations.
        FingerprintMismatchError: what is to be gone on with was begun with other settings.
        StoreError: the store cannot be used; see `open_for_capture`.
        RankError: another process has ended.

    Reference: arXiv 2509.00488, section 3.2.
    """
    _check_given(model, images, metric, options)
    scorers = make_metrics((metric,) if isinstance(metric, str | Metric) else metric)
    metrics = {ACTIVITY: create("metric", ACTIVITY), **scorers}
    kept = store if isinstance(store, StoreOptions | None) else StoreOptions(store)
    batching = Batching(options.batch_size)
    run = _run(model, images, options, batching, Ranks() if ranks is None else ranks)
    provenance = run.ranks.broadcast(lambda: _provenance(model, images, options))
    scored = _capture(model, run, metrics, provenance, kept, checkpoints, progress)
    provenance |= {"slab": run.slab, "batch_size_used": min(run.ranks.gather(batching.size))}
    scores = run.ranks.broadcast(
        lambda: _all_scores(scorers, metrics[ACTIVITY], provenance, model, scored)
    )
    return next(iter(scores.values())) if isinstance(metric, str | Metric) else scores


def _check_given(model: object, images: object, metric: object, options: object) -> None:
    check_kind("the model", model, ImageARModel, "a wrapped model, from iarmem.load or iarmem.wrap")
    check_kind("the images", images, Images, "Images, such as Images.from_folder(path)")
    check_kind("options", options, CaptureOptions, "CaptureOptions")
    kinds = (str, Metric, list, tuple)
    check_kind("metric", metric, kinds, "the name of a metric, an instance, or a list of them")
    adapter = cast(ImageARModel, model).adapter
    check_conditions(cast(Images, images), adapter.conditions, adapter.variant.num_classes)


def make_metrics(given: Sequence[str | Metric]) -> dict[str, Metric]:
    """Return a fresh instance of each metric by its key: its name, and options that are set.

    Args:
        given: names of metrics, be it with options, or fresh instances.

    Raises:
        UnknownNameError: there is no such metric.
        InputError: none is given, or one twice.
    """
    for one in given:
        check_kind("a metric", one, (str, Metric), "the name of a metric, or a fresh instance")
    made = [create("metric", one) if isinstance(one, str) else one for one in given]
    keys = [one.key for one in made]
    if not made or len(set(keys)) != len(keys):
        raise InputError(f"the metrics {keys} were given; give one or more, each once")
    return dict(zip(keys, made, strict=True))


def _run(
    model: ImageARModel, images: Images, options: CaptureOptions, batching: Batching, ranks: Ranks
) -> Run:
    captured = partial(
        capture,
        model,
        views=options.views,
        batch_size=batching,
        seed=options.seed,
        augmentation=_augmentation(model, options),
        workers=options.workers,
    )
    return Run(images, captured, options.slab, ranks)


def _provenance(model: ImageARModel, images: Images, options: CaptureOptions) -> dict[str, Any]:
    layout = model.layout
    scales = {scale.name: spans(layout.positions(scale)) for scale in layout.scales}
    augmentation = dict(_augmentation(model, options).provenance)
    return {
        **model_provenance(model),
        **describe_images(images),
        "scales": scales,
        "views": options.views,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "augmentation": augmentation,
    }


def _augmentation(model: ImageARModel, options: CaptureOptions) -> Augmentation:
    given = options.augmentation
    return model.adapter.variant.views if given is None else given


def _capture(
    model: ImageARModel,
    run: Run,
    metrics: Mapping[str, Metric],
    provenance: Mapping[str, Any],
    store: StoreOptions | None,
    checkpoints: Path | str | None,
    progress: Progress | None,
) -> dict[str, xr.DataArray]:
    """Give the activations of all images to the metrics, by way of a store where there is one.

    Returns:
        the scores of metrics that took a store's activations block by block.
    """
    shown, images = progress if run.ranks.first else None, len(run.images)
    views = provenance["views"]
    print_above(shown, f"{images:,} images, {views} views of each: {images * views:,} passes")
    bits = None if store is None else store.keep_bits
    settings = CaptureSettings.of_model(
        model, run.images, provenance, slab=run.slab, keep_bits=bits
    )
    if store is not None:
        return _keep_and_read(store, run, settings, metrics, shown)
    _check_fits(metrics, model, len(run.images))
    saved = None if checkpoints is None else Checkpoints(checkpoints, settings, metrics)
    stream(run, metrics, saved, shown)
    return {}


def _check_fits(metrics: Mapping[str, Metric], model: ImageARModel, images: int) -> None:
    """Refuse metrics that keep every image's activations where these would be too many."""
    layout = model.layout
    cells = layout.num_blocks * len(layout.scales) * layout.neurons_per_block
    size = 4 * cells * images
    if size > MOST_KEPT and (keep := [key for key, one in metrics.items() if one.keeps_images]):
        raise InputError(
            f"metric {keep[0]!r} keeps the activations of all {images:,} images, {size / 1e9:.0f} "
            "GB: give a store (--store), from which they are read a block at a time, or fewer "
            "images"
        )


def _keep_and_read(
    store: StoreOptions,
    run: Run,
    settings: CaptureSettings,
    metrics: Mapping[str, Metric],
    progress: Progress | None,
) -> dict[str, xr.DataArray]:
    """Capture into a store what it lacks; then give all of it to the first process's metrics.

    Those that would keep all of it are given a block at a time, and their scores are returned.

    They read in the order of the images, so sums do not depend on who captured what, and when.
    """
    if (local := local_folder(store.place)) is not None:
        check_writable(local)
    capture_into(store.place, run, settings, lock=store.lock, progress=progress)
    if not run.ranks.first:
        return {}
    kept = ActivationStore.open(store.place)
    large = {key: one for key, one in metrics.items() if one.keeps_images and one.blockwise}
    advance = progress_bar(progress, "score", len(run.images))
    for batch in kept.batches(settings.model):
        for metric in [one for key, one in metrics.items() if key not in large]:
            update(metric, batch)
        advance(batch.sizes["image"])
    return {
        key: kept.score(partial(copy.deepcopy, one), settings.model) for key, one in large.items()
    }


def _all_scores(
    scorers: Mapping[str, Metric],
    activity: Metric,
    provenance: Mapping[str, Any],
    model: ImageARModel,
    scored: Mapping[str, xr.DataArray],
) -> dict[str, xr.Dataset]:
    mean = scores_of(activity, model.layout)
    mean = mean.drop_vars(["valid", "top_image"], errors="ignore")  # the metric's own are kept
    every = {
        key: checked(one, scored[key], model.layout)
        if key in scored
        else scores_of(one, model.layout)
        for key, one in scorers.items()
    }
    said = {**provenance, "plugins": [described(model.adapter)]}
    return {key: _scores(key, one, every[key], mean, said) for key, one in scorers.items()}


def _scores(
    key: str,
    scorer: Metric,
    score: xr.DataArray,
    mean: xr.DataArray,
    provenance: Mapping[str, Any],
) -> xr.Dataset:
    variables = {"score": score.astype("float32"), "mean_activation": mean.astype("float32")}
    dataset = xr.Dataset(variables, attrs={"metric": key})
    said = {
        **provenance,
        "metric": key,
        "metric_parameters": dict(scorer.parameters),
        "plugins": [*provenance["plugins"], described(scorer)],
        "versions": provenance["versions"] | versions(scorer),
    }
    dataset.attrs["provenance"] = json.dumps(said)
    return dataset
