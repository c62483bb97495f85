"""``iarmem export``: a mitigated checkpoint as a file, with its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.errors import InputError
from iarmem_plugin.table import TextTable
from iarmem_plugin.text import shown


def export(
    source: Annotated[
        str, typer.Argument(metavar="REPORT|MODEL", help="A report's folder, or a model.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="File to write, .pth or .safetensors; a card beside it.")
    ],
    arm: Annotated[
        str | None, typer.Option(help="Arm of the report, if several are treatments.")
    ] = None,
    half: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1,
            help="Of a cross-fitted arm: the half of the candidates that its neurons were tested "
            "with.",
        ),
    ] = None,
    neurons: Annotated[
        Path | None, typer.Option(help="Of a model: list of neurons, .csv or .nc.")
    ] = None,
    intervention: Annotated[
        str | None,
        typer.Option(help="Of a model: how to edit them, such as scale-weights:factor=0.5."),
    ] = None,
    weights: opt.Weights = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Write a mitigated checkpoint in the format of the original, and a model card beside it."""
    preflight.check_alone("export")
    preflight.check_sources({"--neurons": neurons})
    if not out.name:
        raise InputError(f"--out {shown(out)} names no file")
    from iarmem_plugin.jobs.export.job import exported, wanted_from

    said = {"arm": arm, "half": half, "neurons": neurons, "intervention": intervention}
    found = exported(wanted_from(source, **said), out, weights=weights, overwrite=overwrite)
    facts = {
        "out": str(found.path),
        "sha256": found.sha256,
        "neurons": found.neurons,
        "intervention": found.intervention,
        "lists": [str(one) for one in found.lists],
        "card": str(found.card),
    }
    rows = [(name, str(value)) for name, value in facts.items() if name != "lists"]
    table = TextTable("Exported", ("", ""), rows, tight=True)
    console.show(facts, table, as_json=as_json)
