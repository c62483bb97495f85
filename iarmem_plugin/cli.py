"""``iarmem`` on the command line: arguments in, one call, a table out.

Exit codes: 0 done; 1 a bug, with its traceback; 2 an argument, file, picture, model or plugin
that cannot be used, with one plain line on standard error; 130 interrupted.

Only typer and rich are imported here; a command imports what it needs when it runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
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

from iarmem_plugin.errors import IarmemError

if TYPE_CHECKING:
    from iarmem_plugin.images import Images
    from iarmem_plugin.tracing import ImageARModel


class Commands(TyperGroup):
    """The commands; what iarmem refuses becomes one plain line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except IarmemError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error


class Precision(StrEnum):
    """Precision of a model's weights."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class OnBadImage(StrEnum):
    """What to do with a picture that cannot be read."""

    error = "error"
    skip = "skip"


app = typer.Typer(
    cls=Commands,
    help="Find where an image autoregressive model memorized its training images, and reduce it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Argument(help="A model listed by `iarmem models`.")]
ImageSource = Annotated[
    Path, typer.Option("--images", help="Folder with a folder per class, or an .npz file.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Weights = Annotated[Path | None, typer.Option(help="File of the transformer's weights.")]
Tokenizer = Annotated[Path | None, typer.Option(help="File of the tokenizer's weights.")]
Device = Annotated[str, typer.Option(help="Such as cpu, cuda or cuda:1.")]
Dtype = Annotated[Precision, typer.Option(help="Precision of the weights.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in one pass of the model.")]
ViewCount = Annotated[int, typer.Option("--views", min=1, help="Augmented passes an image.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn at random.")]
Classes = Annotated[
    Path | None, typer.Option(help="File that maps each class folder's name to its index.")
]
BadImage = Annotated[
    OnBadImage,
    typer.Option("--on-bad-image", help="Stop at pictures that do not open, or skip them."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


def _version(asked: bool) -> None:
    if asked:
        from iarmem_plugin.version import __version__

        typer.echo(f"iarmem {__version__}")
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
    out: Out = Path("iarmem-demo"),
    full: Annotated[bool, typer.Option("--full", help="Use every picture; takes longer.")] = False,
    model: Annotated[str, typer.Option(help="The organism to use.")] = "var-organism",
    as_json: AsJson = False,
) -> None:
    """Localize and mitigate memorization in a bundled model whose memory is known."""
    from iarmem_plugin.demo import demo as run_demo

    with _progress() as progress:
        report = run_demo(out, model=model, full=full, progress=progress)
    _show(report.to_dict(), report.table(), as_json=as_json)
    typer.echo(f"Report: {out / 'report.html'}", err=True)


@app.command()
def localize(
    model: Model,
    images: ImageSource,
    out: Out,
    metric: Annotated[str, typer.Option(help="A metric listed by `iarmem plugins`.")] = "unitmem",
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    device: Device = "cpu",
    dtype: Dtype = Precision.float32,
    batch_size: BatchSize = 32,
    views: ViewCount = 10,
    seed: Seed = 0,
    classes: Classes = None,
    on_bad_image: BadImage = OnBadImage.error,
    as_json: AsJson = False,
) -> None:
    """Score every neuron of a model on images; write the scores."""
    from iarmem_plugin import plugins
    from iarmem_plugin.localize import localize as run_localize
    from iarmem_plugin.localize import save_scores

    plugins.find("metric", metric)
    pictures = _open(images, model, classes, on_bad_image)
    traced = _load(model, weights, tokenizer, device, dtype)
    with _progress() as progress:
        scores = run_localize(
            traced,
            pictures,
            metric=metric,
            views=views,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
    save_scores(scores, out)
    by_cell = scores["score"].fillna(0.0).sum("neuron").transpose("block", "scale")
    result = {"metric": metric, "out": str(out), "by_block_and_scale": by_cell.values.tolist()}
    _show(result, _score_table(metric, by_cell), as_json=as_json)


@app.command()
def mitigate(
    model: Model,
    scores: Annotated[Path, typer.Option(help="Folder or file that `localize` wrote.")],
    images: ImageSource,
    out: Out,
    fraction: Annotated[float, typer.Option(help="Share of neurons to edit, in (0, 1].")] = 0.1,
    intervention: Annotated[str, typer.Option(help="How to edit them.")] = "scale-weights",
    factor: Annotated[float | None, typer.Option(help="The intervention's factor.")] = None,
    selector: Annotated[str, typer.Option(help="Which neurons to edit.")] = "highest",
    similarity: Annotated[
        str, typer.Option(help="Compares a completion with its target.")
    ] = "correlation",
    sscd: Annotated[Path | None, typer.Option(help="TorchScript file for --similarity sscd.")] = (
        None
    ),
    candidates: Annotated[
        Path | None, typer.Option(help="Images to extract, if not --images.")
    ] = None,
    inception: Annotated[
        Path | None, typer.Option(help="Inception weights, to measure image quality.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Real images for --inception, if not --images.")
    ] = None,
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    device: Device = "cpu",
    dtype: Dtype = Precision.float32,
    batch_size: BatchSize = 32,
    seed: Seed = 0,
    classes: Classes = None,
    on_bad_image: BadImage = OnBadImage.error,
    as_json: AsJson = False,
) -> None:
    """Edit the selected neurons, and report extraction and quality before and after."""
    raise typer.Exit(2)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that the installed adapters can load."""
    from iarmem_plugin import plugins

    found = [variant for _, variant in plugins.variants().values()]
    table = _table(
        "Models", "model", "family", "blocks", "neurons", "parameters", "pixels", "files"
    )
    for one in found:
        numbers = (f"{one.blocks}", f"{one.neurons:,}", f"{one.parameters:,}", f"{one.resolution}")
        table.add_row(one.name, one.family, *numbers, ", ".join(one.files) or "bundled")
    rows = [
        {
            "name": one.name,
            "family": one.family,
            "blocks": one.blocks,
            "neurons": one.neurons,
            "parameters": one.parameters,
            "resolution": one.resolution,
            "files": list(one.files),
            "source": one.source,
            "licence": one.licence,
        }
        for one in found
    ]
    _show({"models": rows}, table, as_json=as_json)


@app.command("plugins")
def list_plugins(as_json: AsJson = False) -> None:
    """List what plugins provide, and the plugins that could not be loaded."""
    import warnings

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


def _load(
    model: str, weights: Path | None, tokenizer: Path | None, device: str, dtype: Precision
) -> ImageARModel:
    from iarmem_plugin import plugins

    return plugins.load(model, weights, tokenizer, device=device, dtype=dtype.value)


def _open(path: Path, model: str, classes: Path | None, on_bad_image: OnBadImage) -> Images:
    from iarmem_plugin import plugins
    from iarmem_plugin.images import open_images

    _, variant = plugins.find_variant(model)
    images = open_images(path, num_classes=variant.num_classes, classes=classes)
    return images.verify(on_bad_image.value)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
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


def _show(result: Mapping[str, Any], table: Table, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        Console().print(table)
