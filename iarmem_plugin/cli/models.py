"""``iarmem models``, ``fetch``, ``plugins`` and ``demo``: what there is, and a look at it."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.errors import UnknownNameError
from iarmem_plugin.files import check_writable
from iarmem_plugin.table import TextTable
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.plugins import Provided

WHOLE = 4000  # signs of a line that is to be copied


def demo(
    out: opt.Out = Path("iarmem-demo"),
    full: Annotated[bool, typer.Option("--full", help="Use every picture; takes longer.")] = False,
    model: Annotated[str, typer.Option(help="The organism to use.")] = "var-organism",
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Localize and mitigate memorization in a bundled model whose memory is known."""
    started = time.monotonic()
    preflight.check_alone("demo")
    preflight.check_numbers({"--seed": seed})
    from iarmem_plugin.cli.memory import keep_freed_memory
    from iarmem_plugin.jobs import demo as job

    job.check(out, model)
    keep_freed_memory()
    with console.progress_bars() as progress:
        report = job.demo(out, model=model, full=full, seed=seed, progress=progress)
    console.show(report.to_dict(), report.table(), as_json=as_json)
    cost = report.provenance["cost"]
    parts = ", ".join(f"{part} {spent:.0f}" for part, spent in cost["cpu_seconds_of"].items())
    console.say(
        f"{time.process_time():.0f} CPU-seconds, imports and writing included ({parts}), "
        f"{time.monotonic() - started:.0f} s in all, {cost['peak_memory_mib']} MiB of memory"
    )
    console.say(f"Report: {out / 'report.html'}")
    others = [name for name in job.organisms() if name != model]
    for other in others:
        console.say(f"The same job on {other}: iarmem demo --model {other}")


def models(as_json: opt.AsJson = False) -> None:
    """List the models that the installed adapters can load."""
    from iarmem_plugin import plugins
    from iarmem_plugin.models import hub

    rows = hub.known_models()
    cells = map(hub.model_cells, rows)
    numbers = hub.MODEL_COLUMNS[2:5]
    table = TextTable("Models", hub.MODEL_COLUMNS, cells, numbers=numbers, tight=True)
    families = ", ".join(sorted(plugins.families()))
    note = f"Weights of any other size: {families}, with --weights and --tokenizer"
    listed = map(hub.file_cells, rows)
    whole = hub.FILE_COLUMNS[1:2]
    files = TextTable("Files", hub.FILE_COLUMNS, listed, whole=whole, notes=[note], tight=True)
    console.show({"models": rows}, Group(table, files, *_exposures(rows)), as_json=as_json)


def _exposures(rows: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return a table of each way in which organisms' pictures were shown, named by the models."""
    from iarmem_plugin.models import hub

    trained: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    for row in rows:
        if row["exposures"]:
            trained.setdefault(tuple(hub.exposure_cells(row)), []).append(row["name"])
    titles = {f"Shown to {', '.join(names)}": cells for cells, names in trained.items()}
    columns = hub.EXPOSURE_COLUMNS
    return [
        TextTable(title, columns, cells, numbers=columns[1:], tight=True)
        for title, cells in titles.items()
    ]


def fetch(
    model: opt.Model,
    out: Annotated[Path | None, typer.Option(help="Folder, if not the hub's cache.")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Download a model's files, and say what to type next."""
    from iarmem_plugin.models import hub

    if out is not None:
        check_writable(out / "file")
    files = hub.fetch(model, out)
    then = f"iarmem localize {model} {hub.options(files)} --images FOLDER --out FOLDER"
    if as_json:
        paths = {role: str(path) for role, path in files.items()}
        console.echo(json.dumps({"model": model, **paths, "next": then}))
        return
    for line in (*files.values(), f"Next, with your pictures: {then}"):
        console.say(line, err=False, limit=WHOLE)


def list_plugins(
    name: Annotated[str | None, typer.Argument(help="Show one, with its options.")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """List what plugins provide, and what is wrong with them; or show the options of one."""
    from iarmem_plugin import plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", plugins.PluginWarning)  # they are in the table
        plugins.problems()
        found = [one for kind in plugins.KINDS for one in plugins.provided(kind)]
        plugins.variants()
        problems = plugins.problems()
    if name is not None:
        _show_plugin(name, found, as_json=as_json)
        return
    rows = [
        {"kind": one.kind, "name": one.name, "plugin": one.plugin, "does": _summary(one.value)}
        for one in found
    ]
    skipped = [("skipped", "", plugin, reason) for plugin, reason in problems.items()]
    cells = [*(tuple(row.values()) for row in rows), *skipped]
    columns = ("kind", "name", "plugin", "what it does")
    table = TextTable("Plugins", columns, cells, whole=columns[1:2], tight=True)
    console.show({"plugins": rows, "skipped": problems}, table, as_json=as_json)


def _show_plugin(name: str, found: Sequence[Provided], *, as_json: bool) -> None:
    """Show every plugin of a name: there may be several kinds."""
    chosen = [one for one in found if one.name == name]
    if not chosen:
        known = ", ".join(sorted({one.name for one in found}))
        raise UnknownNameError(f"no plugin named {shown(name, 60)!r}; installed: {known}")
    rows = [_facts(one) for one in chosen]
    console.show({"plugins": rows}, Group(*map(_option_table, rows)), as_json=as_json)


def _facts(one: Provided) -> dict[str, Any]:
    from iarmem_plugin.plugins.blame import distribution
    from iarmem_plugin.plugins.options import REQUIRED, options

    listed = [
        {
            "name": option.name,
            "type": option.form,
            "default": "required" if option.default is REQUIRED else shown(option.default, 60),
            "does": option.does,
        }
        for option in (() if one.kind == "adapter" else options(one.value))
    ]
    facts = {"kind": one.kind, "name": one.name, "plugin": one.plugin}
    made_by = {"distribution": distribution(one.value), "does": _summary(one.value)}
    return facts | made_by | {"options": listed}


def _option_table(row: Mapping[str, Any]) -> TextTable:
    title = f"{row['kind']} {row['name']} of {row['distribution']}"
    columns = ("option", "type", "default", "what it does")
    cells = [tuple(one.values()) for one in row["options"]] or [("none", "", "", "")]
    return TextTable(title, columns, cells, notes=[row["does"]], whole=columns[:1], tight=True)


def _summary(value: object) -> str:
    return (value.__doc__ or "").strip().partition("\n")[0]
