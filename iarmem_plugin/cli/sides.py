"""``iarmem compare REPORT REPORT`` and ``compare-scores``: results side by side.

A command imports what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iarmem_plugin.cli import console
from iarmem_plugin.cli import options as opt
from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.report.report import Report


def compare_reports(first: Path, second: Path, out: Path | None, *, as_json: bool) -> None:
    """Put two reports side by side; see `iarmem compare`.

    Raises:
        InputError: one of them is no report, or no candidate is in both.
    """
    from iarmem_plugin.report.sides.folder import check_folder
    from iarmem_plugin.report.sides.reports import side_by_side
    from iarmem_plugin.report.sides.showing import FILES

    if out is not None:
        check_folder(out, FILES)
    names = (str(first), str(second))
    found = side_by_side(_report(first), _report(second), names=names)
    if out is not None:
        found.save(out)
    console.show(found.to_dict(), found.table(), as_json=as_json)
    if out is not None:
        console.say(f"Comparison: {out / 'comparison.html'}")


def compare_scores(
    scores: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]SCORES...",
            help="Folders or files that `iarmem localize` wrote, two or more.",
        ),
    ],
    fraction: Annotated[
        float, typer.Option(help="Share of the neurons that is called the top, in (0, 1].")
    ] = 0.1,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write tables and heatmaps into.")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Say whether scores lead to the same neurons: rank correlation and overlap, pair by pair."""
    from iarmem_plugin.jobs.scores import load_scores
    from iarmem_plugin.neurons.selectors import check_fraction
    from iarmem_plugin.report.sides import scores as sides
    from iarmem_plugin.report.sides.folder import check_folder

    check_fraction(fraction)
    if out is not None:
        check_folder(out, sides.FILES)
    loaded = {name: load_scores(path) for name, path in _named(scores).items()}
    found = sides.compare_scores(loaded, fraction=fraction)
    if out is not None:
        found.save(out)
    console.show(found.to_dict(), found.table(), as_json=as_json)
    if out is not None:
        console.say(f"Comparison: {out / sides.FILES[1]}")


def _report(folder: Path) -> Report:
    from iarmem_plugin.report.report import Report

    if folder.is_file():
        raise InputError(
            f"{shown(folder, 120)} is a file, and reports are folders; give two folders of "
            "reports, or one plan"
        )
    return Report.load(folder)


def _named(given: Sequence[str]) -> dict[str, Path]:
    """Return what is compared by its name: the given one, or that of its folder, or its path.

    Raises:
        InputError: two have one name.
    """
    pairs = [_split(text) for text in given]
    short = [name or _short(path) for name, path in pairs]
    full = [
        one if short.count(one) == 1 else name or str(path)
        for one, (name, path) in zip(short, pairs, strict=True)
    ]
    if twice := [name for name in full if full.count(name) > 1]:
        raise InputError(
            f"{shown(twice[0], 120)} is given twice; give each scores once, with a name of its "
            "own: NAME=SCORES"
        )
    return {name: path for name, (_, path) in zip(full, pairs, strict=True)}


def _split(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    named = sign and name and path and not Path(text).exists()
    return (name, Path(path)) if named else ("", Path(text))


def _short(path: Path) -> str:
    folder = path.parent if path.name == "scores.nc" else path
    return folder.name or str(path)
