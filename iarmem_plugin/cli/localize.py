"""``iarmem localize``: images in, scores out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.cli.pictures import PictureChoice
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import alone
from iarmem_plugin.table import TextTable

if TYPE_CHECKING:
    import xarray as xr

    from iarmem_plugin.activations.distributed import Ranks
    from iarmem_plugin.data.images import Images


@dataclass(frozen=True, slots=True)
class _Job:
    """What is scored, on what, and how."""

    model: opt.ModelOptions
    pictures: PictureChoice
    metrics: tuple[str, ...]
    bands: Mapping[str, tuple[int, ...]]
    capture: Mapping[str, Any]
    kept: Mapping[str, Any] | None
    out: Path

    def check(self) -> None:
        """Refuse what can be told to be wrong before the model is loaded, but for the pictures."""
        from iarmem_plugin.jobs.localize import make_metrics
        from iarmem_plugin.models.hub import check_files

        preflight.check_numbers({f"--{name}": self.capture[name] for name in ("seed", "views")})
        self.pictures.check()
        check_files(self.model.name, self.model.files)
        place = None if self.kept is None else self.kept["place"]
        sources = {"--images": self.pictures.source, "--image-root": self.pictures.reading.root}
        read = sources | {"--classes": self.pictures.reading.classes}
        preflight.check_scores_place(self.out, list(make_metrics(self.metrics)), place, read)
        preflight.check_apart(self.out, sources)
        if place is not None:
            preflight.check_store_place(place, self.model.name, sources)
        preflight.check_device(self.model.device)

    def run(
        self, ranks: Ranks, held: ExitStack, *, restart: bool
    ) -> tuple[Images, dict[str, xr.Dataset]]:
        """Return the pictures that were used, and the scores by metric.

        Args:
            ranks: the processes that share the work.
            held: keeps other commands from the results until it is left.
            restart: whether an unfinished run is forgotten.
        """
        pictures = ranks.broadcast(lambda: self.pictures.open(self.model.name))

        from iarmem_plugin.activations.settings import CaptureOptions
        from iarmem_plugin.cli.inputs import load_model
        from iarmem_plugin.jobs.localize import localize
        from iarmem_plugin.jobs.scores import CHECKPOINTS, begin_scores
        from iarmem_plugin.store import StoreOptions, local_folder

        kept = None if self.kept is None else local_folder(self.kept["place"])
        ranks.broadcast(lambda: held.enter_context(alone(self.out)))
        ranks.broadcast(lambda: begin_scores(self.out, restart=restart, store=kept))
        device = ranks.device(self.model.device)
        model = load_model(self.model, device=device, bands=self.bands)
        preflight.check_fit(model, [pictures])
        preflight.check_room(self.out, model, metrics=len(self.metrics))
        with console.progress_bars(hidden=not ranks.first) as progress:
            scores = localize(
                model,
                pictures,
                metric=self.metrics,
                options=CaptureOptions(**self.capture),
                store=None if self.kept is None else StoreOptions(**self.kept),
                checkpoints=self.out / CHECKPOINTS,
                ranks=ranks,
                progress=progress,
            )
        return pictures, scores


def localize(
    model: opt.Model,
    images: opt.ImageSource,
    out: opt.Out,
    metric: opt.Metrics = None,
    store: opt.Store = None,
    keep_bits: opt.KeepBits = None,
    break_lock: opt.BreakLock = False,
    restart: opt.Restart = False,
    slab: opt.Slab = 256,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    file: opt.Files = None,
    device: opt.Device = "cpu",
    dtype: opt.Dtype = opt.Precision.float32,
    compile: opt.Compile = False,
    batch_size: opt.BatchSize = 32,
    views: opt.ViewCount = 10,
    band: opt.Bands = None,
    seed: opt.Seed = 0,
    classes: opt.Classes = None,
    image_root: opt.ImageRoot = None,
    images_per_class: opt.ImagesPerClass = None,
    images_fraction: opt.ImagesFraction = None,
    subset_seed: opt.SubsetSeed = 0,
    subset_part: opt.SubsetPart = 0,
    on_bad_image: opt.BadImage = opt.OnBadImage.error,
    verify_images: opt.VerifyImages = False,
    workers: opt.Workers = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Score every neuron of a model on images; write the scores.

    A run that was killed goes on when the same command is given again.
    """
    if store is None and (keep_bits is not None or break_lock):
        raise InputError("--keep-bits and --break-lock are about a store; give --store, too")
    reading = opt.ReadingOptions(image_root, classes, on_bad_image, workers)
    subset = (images_per_class, images_fraction, subset_seed, subset_part)
    sizes = {"views": views, "batch_size": batch_size, "workers": workers, "slab": slab}
    files = opt.read_files(weights, tokenizer, file or ())
    lock = "break" if break_lock else "take"
    job = _Job(
        model=opt.ModelOptions(model, files, device, dtype, compile),
        pictures=PictureChoice(images, reading, verify_images, *subset),
        metrics=tuple(metric or ("unitmem",)),
        bands=opt.read_bands(band or ()),
        capture=sizes | {"seed": seed},
        kept=None if store is None else {"place": store, "keep_bits": keep_bits, "lock": lock},
        out=out,
    )
    job.check()

    from iarmem_plugin.activations.distributed import join_processes

    with join_processes(device) as ranks, ExitStack() as held:
        pictures, scores = job.run(ranks, held, restart=restart)
        if ranks.first:
            _save(pictures, scores, out, finished=store is None)
            _show(scores, out, as_json=as_json)


def _save(pictures: Images, scores: Mapping[str, xr.Dataset], out: Path, *, finished: bool) -> None:
    from iarmem_plugin.jobs.scores import forget_progress, save_scores

    save_scores(scores, out, images=pictures)
    if finished:
        forget_progress(out)


def _show(scores: Mapping[str, xr.Dataset], out: Path, *, as_json: bool) -> None:
    from iarmem_plugin.report.results import block_sums

    by_cell = {name: block_sums(one) for name, one in scores.items()}
    results = [
        {"metric": name, "out": str(out), "by_block_and_scale": cells.values.tolist()}
        for name, cells in by_cell.items()
    ]
    result = results[0] if len(results) == 1 else {"metrics": results}
    tables = Group(*(_table(name, cells) for name, cells in by_cell.items()))
    console.show(result, tables, as_json=as_json)


def _table(metric: str, by_cell: xr.DataArray) -> TextTable:
    names = [str(name) for name in by_cell.coords["scale_name"].values]
    title = f"{metric}, summed over the neurons of each block and scale"
    blocks = by_cell.transpose("block", "scale")
    rows = [
        (str(block), *(f"{value:.1f}" for value in values))
        for block, values in zip(by_cell.coords["block"].values, blocks.values, strict=True)
    ]
    return TextTable(title, ("block", *names), rows, numbers=names)
