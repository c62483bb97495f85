"""``iarmem`` on the command line: arguments in, one call, a table out.

Exit codes: 0 done; 1 a bug, with its traceback; 2 an argument, file, picture, model or plugin
that cannot be used, with one plain line on standard error; 130 interrupted.

Only typer and rich are imported here; a command imports what it needs when it runs.
"""

from __future__ import annotations

import json
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from typer.core import TyperGroup

from iarmem_plugin.cli import options as opt
from iarmem_plugin.cli import store as store_cli
from iarmem_plugin.errors import IarmemError, InputError

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images


class Commands(TyperGroup):
    """The commands; what iarmem refuses becomes one plain line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with warnings.catch_warnings():  # which puts the line below back, too
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except IarmemError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=Commands,
    help="Find where an image autoregressive model memorized its training images, and reduce it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(store_cli.app, name="store")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"iarmem {metadata.version('iarmem')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Show the version."),
    ] = False,
) -> None:
    """Find where an image autoregressive model memorized its training images, and reduce it."""


@app.command()
def demo(
    out: opt.Out = Path("iarmem-demo"),
    full: Annotated[bool, typer.Option("--full", help="Use every picture; takes longer.")] = False,
    model: Annotated[str, typer.Option(help="The organism to use.")] = "var-organism",
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Localize and mitigate memorization in a bundled model whose memory is known."""
    started = time.monotonic()
    from iarmem_plugin.cli.memory import keep_freed_memory
    from iarmem_plugin.jobs.demo import demo as run_demo
    from iarmem_plugin.jobs.demo import organisms

    keep_freed_memory()
    with _progress() as progress:
        report = run_demo(out, model=model, full=full, seed=seed, progress=progress)
    _show(report.to_dict(), report.table(), as_json=as_json)
    cost = report.provenance["cost"]
    parts = ", ".join(f"{part} {spent:.0f}" for part, spent in cost["cpu_seconds_of"].items())
    typer.echo(
        f"{time.process_time():.0f} CPU-seconds, imports and writing included ({parts}), "
        f"{time.monotonic() - started:.0f} s in all, {cost['peak_memory_mib']} MiB of memory",
        err=True,
    )
    typer.echo(f"Report: {out / 'report.html'}", err=True)
    others = [name for name in organisms() if name != model]
    for other in others:
        typer.echo(f"The same job on {other}: iarmem demo --model {other}", err=True)


@app.command()
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
    from iarmem_plugin import plugins
    from iarmem_plugin.activations.distributed import join_processes
    from iarmem_plugin.cli.bands import read_bands
    from iarmem_plugin.models.hub import check_files

    if store is None and (keep_bits is not None or break_lock):
        raise InputError("--keep-bits and --break-lock are about a store; give --store, too")
    bands = read_bands(band or ())
    names = tuple(metric or ("unitmem",))
    for name in names:
        plugins.find("metric", name)
    check_files(model, weights, tokenizer)

    def usable() -> Images:
        num_classes = plugins.num_classes(model)
        pictures = _opened(images, image_root, num_classes=num_classes, classes=classes)
        if images_per_class is not None or images_fraction is not None:
            pictures = pictures.balanced(
                images_per_class, fraction=images_fraction, seed=subset_seed, part=subset_part
            )
        if verify_images or on_bad_image == opt.OnBadImage.skip:
            return _verified(pictures, on_bad_image, workers=workers)
        return pictures.check_headers()

    with _ends_orderly(), join_processes(device) as ranks:
        pictures = ranks.broadcast(usable)

        from iarmem_plugin.activations.settings import CaptureOptions
        from iarmem_plugin.cli.memory import keep_freed_memory
        from iarmem_plugin.jobs.localize import localize as run_localize
        from iarmem_plugin.jobs.scores import (
            CHECKPOINTS,
            LIST_FILE,
            begin_scores,
            forget_progress,
            save_scores,
        )
        from iarmem_plugin.models.loading import load
        from iarmem_plugin.report.report import block_sums
        from iarmem_plugin.store import StoreOptions

        ranks.broadcast(lambda: begin_scores(out, restart=restart))
        place = ranks.device(device)
        keep_freed_memory()
        traced = load(model, weights, tokenizer, device=place, dtype=dtype.value, compile=compile)
        if bands:
            traced = traced.with_scales([traced.layout.band(*one) for one in bands.items()])
        lock: Literal["take", "break"] = "break" if break_lock else "take"
        kept = None if store is None else StoreOptions(store, keep_bits, lock)
        with _progress(hidden=not ranks.first) as progress:
            scores = run_localize(
                traced,
                pictures,
                metric=names,
                options=CaptureOptions(views, batch_size, seed, workers=workers, slab=slab),
                store=kept,
                checkpoints=out / CHECKPOINTS,
                ranks=ranks,
                progress=progress,
            )
        if not ranks.first:
            return
        save_scores(scores, out)
        pictures.write_list(out / LIST_FILE)
        if store is None:
            forget_progress(out)
        by_cell = {name: block_sums(one) for name, one in scores.items()}
        for name, cells in by_cell.items():
            result = {"metric": name, "out": str(out), "by_block_and_scale": cells.values.tolist()}
            _show(result, _score_table(name, cells), as_json=as_json)


@app.command()
def mitigate(
    model: opt.Model,
    scores: opt.Scores,
    images: opt.ImageSource,
    out: opt.Out,
    fraction: opt.Fraction = 0.1,
    intervention: Annotated[str, typer.Option(help="How to edit them.")] = "scale-weights",
    factor: opt.Factor = None,
    selector: Annotated[str, typer.Option(help="Which neurons to edit.")] = "highest",
    random_sets: opt.RandomSets = 5,
    similarity: Annotated[str, typer.Option(help="Compares completion and target.")] = (
        "correlation"
    ),
    sscd: opt.SSCDFile = None,
    candidates: opt.CandidateSource = None,
    held_out: opt.HeldOut = None,
    per_class: opt.PerClass = 5,
    inception: opt.Inception = None,
    reference: opt.Reference = None,
    generated: opt.Generated = 1000,
    check_batching: opt.CheckBatching = 0,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    device: opt.Device = "cpu",
    dtype: opt.Dtype = opt.Precision.float32,
    compile: opt.Compile = False,
    batch_size: opt.BatchSize = 32,
    seed: opt.Seed = 0,
    classes: opt.Classes = None,
    image_root: opt.ImageRoot = None,
    on_bad_image: opt.BadImage = opt.OnBadImage.error,
    workers: opt.Workers = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Edit the selected neurons, and report extraction and quality before and after."""
    from iarmem_plugin import plugins
    from iarmem_plugin.jobs import protocol as choices
    from iarmem_plugin.models.hub import check_files
    from iarmem_plugin.report.report import check_output_folder

    arms = choices.arms(selector, intervention, factor, fraction, random_sets, seed)
    measure = choices.similarity(similarity, sscd)
    check_output_folder(out)
    check_files(model, weights, tokenizer)
    num_classes = plugins.num_classes(model)

    def usable(source: Path) -> Images:
        found = _opened(source, image_root, num_classes=num_classes, classes=classes)
        return _verified(found, on_bad_image, workers=workers)

    pictures = usable(images)
    given = None if candidates is None else usable(candidates)
    unseen = None if held_out is None else usable(held_out)

    from iarmem_plugin.cli.memory import keep_freed_memory
    from iarmem_plugin.jobs.mitigate import check_made_with
    from iarmem_plugin.jobs.mitigate import mitigate as run_mitigate
    from iarmem_plugin.jobs.scores import load_scores
    from iarmem_plugin.models.loading import load

    found = load_scores(scores)
    keep_freed_memory()
    traced = load(model, weights, tokenizer, device=device, dtype=dtype.value, compile=compile)
    check_made_with(traced, found)  # before candidates are ranked, which can take hours
    quality = None
    if inception is not None:
        real = pictures if reference is None else usable(reference)
        quality = choices.quality(traced, inception, real, generated, seed, batch_size=batch_size)
    with _progress() as progress:
        tried = choices.candidates(
            traced, pictures, given, per_class, progress, batch_size=batch_size
        )
        if unseen is not None:
            tried = choices.with_held_out(
                traced, tried, unseen, measure, progress, batch_size=batch_size
            )
        report = run_mitigate(
            traced,
            found,
            tried,
            arms,
            similarity=measure,
            quality=quality,
            batch_size=batch_size,
            check_batching=check_batching,
            progress=progress,
        )
    report.save(out)
    _show(report.to_dict(), report.table(), as_json=as_json)
    typer.echo(f"Report: {out / 'report.html'}", err=True)


@app.command()
def models(as_json: opt.AsJson = False) -> None:
    """List the models that the installed adapters can load."""
    from iarmem_plugin import plugins
    from iarmem_plugin.models import catalog

    rows = catalog.rows()
    table, files = _table("Models", *catalog.COLUMNS), _table("Files", *catalog.FILE_COLUMNS)
    for row in rows:
        table.add_row(*catalog.cells(row))
        files.add_row(*catalog.file_cells(row))
    for one in (table, files):  # as wide as a terminal
        one.box, one.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    files.columns[1].no_wrap = True
    families = ", ".join(sorted(plugins.families()))
    files.caption = f"Weights of any other size: {families}, with --weights and --tokenizer"
    _show({"models": rows}, Group(table, files), as_json=as_json)


@app.command()
def fetch(
    model: opt.Model,
    out: Annotated[Path | None, typer.Option(help="Folder, if not the hub's cache.")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Download a model's weights and tokenizer, and say what to type next."""
    from iarmem_plugin.models import hub as fetching

    files = fetching.fetch(model, out)
    then = f"iarmem localize {model} {fetching.options(files)} --images FOLDER --out FOLDER"
    if as_json:
        weights, tokenizer = map(str, files)
        found = {"model": model, "weights": weights, "tokenizer": tokenizer, "next": then}
        typer.echo(json.dumps(found))
        return
    for path in files:
        typer.echo(f"{path}")
    typer.echo(f"Next, with your pictures: {then}")


@app.command("plugins")
def list_plugins(as_json: opt.AsJson = False) -> None:
    """List what plugins provide, and the plugins that could not be loaded."""
    from iarmem_plugin import plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", plugins.PluginWarning)  # they are in the table
        problems = plugins.problems()
    found = [one for kind in plugins.KINDS for one in plugins.provided(kind)]
    table = _table("Plugins", "kind", "name", "plugin", "what it does")
    rows = []
    for one in found:
        summary = (one.value.__doc__ or "").strip().partition("\n")[0]
        table.add_row(one.kind, one.name, one.plugin, summary)
        rows.append({"kind": one.kind, "name": one.name, "plugin": one.plugin, "does": summary})
    for plugin, reason in problems.items():
        table.add_row("[red]skipped[/red]", "", plugin, reason)
    _show({"plugins": rows, "skipped": problems}, table, as_json=as_json)


def _opened(
    source: Path, root: Path | None, *, num_classes: int | None, classes: Path | None
) -> Images:
    from iarmem_plugin.data.images import open_images

    if root is not None and source.suffix != ".txt":
        raise InputError(f"--image-root is for a list of pictures (.txt), and {source} is none")
    return open_images(source, root=root, num_classes=num_classes, classes=classes)


def _verified(pictures: Images, on_bad: opt.OnBadImage, *, workers: int) -> Images:
    with _progress(hidden=not Console(stderr=True).is_terminal) as progress:
        good = pictures.verify(on_bad.value, workers=workers, progress=progress)
    if good.skipped:
        rest = len(good.skipped) - 5
        names = ", ".join(good.skipped[:5]) + (f" and {rest} more" if rest > 0 else "")
        _warn(f"skipped {len(good.skipped)} of {len(pictures)} pictures: {names}")
    return good


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"Warning: {message}", err=True)


@contextmanager
def _progress(*, hidden: bool = False) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as progress:
        yield progress


@contextmanager
def _ends_orderly() -> Iterator[None]:
    """Leave every context when a scheduler or torchrun ends the process, so that locks go."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", min_width=len(title))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _score_table(metric: str, by_cell: Any) -> Table:
    names = [str(name) for name in by_cell.coords["scale_name"].values]
    table = _table(f"{metric}, summed over the neurons of each block and scale", "block", *names)
    for block in by_cell.coords["block"].values:
        values = by_cell.sel(block=block).values
        table.add_row(str(block), *(f"{value:.1f}" for value in values))
    return table


def _show(result: Mapping[str, Any], table: Table | Group, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        Console().print(table)
