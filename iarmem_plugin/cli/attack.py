"""``iarmem attack``: how much work brings pictures back, before and after edits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from iarmem_plugin.cli import compare, console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.errors import InputError

Triggers = Annotated[
    list[str] | None,
    typer.Option(
        "--trigger",
        metavar="NAME[:KEY=VALUE,...]",
        help="A way to bring pictures back, as `iarmem plugins` lists them; may be repeated.",
        show_default="learned-embedding, prefix, samples",
    ),
]
Mitigated = Annotated[
    Path | None,
    typer.Option(
        help="A comparison of this model, whose edits are tried, too: its report's folder, or the "
        "file of its plan."
    ),
]


def attack(
    model: opt.Model,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.")] = None,
    trigger: Triggers = None,
    mitigated: Mitigated = None,
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="Name of an arm to try them in, if not all; may be repeated."),
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option("--candidates", help="Pictures to bring back.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out",
            help="Pictures the model never saw: every other one fixes thresholds, the rest are "
            "tried beside the candidates.",
        ),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=1, help="How many pictures to bring back, and never-seen ones.")
    ] = 108,
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    file: opt.Files = None,
    device: compare.Device = None,
    batch_size: compare.BatchSize = None,
    dry_run: compare.DryRun = False,
    restart: compare.Restart = False,
    as_json: opt.AsJson = False,
) -> None:
    """Say how much work brings pictures back, beside the same work on pictures never seen.

    The same command again goes on where a run was ended. What takes long is said by --dry-run.
    """
    if out is None and not dry_run:
        raise InputError("--out is missing; name the folder to write")
    from iarmem_plugin.jobs.triggers.job import TRIGGERS, attack_plan

    files = opt.read_files(weights, tokenizer, file or ())
    _check(model, files, seed, {"--candidates": candidates, "--held-out": held_out})
    plan = attack_plan(
        _part(model, files),
        triggers=trigger or TRIGGERS,
        mitigated=mitigated,
        arms=arm or (),
        candidates=candidates,
        held_out=held_out,
        pictures=pictures,
        seed=seed,
    ).on(device=device, batch_size=batch_size)
    if out is None or dry_run:
        taken = compare.estimated(plan)
        console.show(taken.to_dict(), taken.table(), as_json=as_json)
        return
    compare.run_and_show(plan, out, restart=restart, as_json=as_json)


def _check(
    model: str, files: Mapping[str, Path | None], seed: int, pictures: Mapping[str, Path | None]
) -> None:
    """Refuse what can be told to be wrong before any picture is read."""
    from iarmem_plugin.cli.inputs import open_pictures
    from iarmem_plugin.models.hub import check_files

    preflight.check_numbers({"--seed": seed})
    check_files(model, files)
    preflight.check_pictures(pictures)
    for path in pictures.values():
        if path is not None:
            open_pictures(path, model, opt.ReadingOptions(None, None, opt.OnBadImage.error, 0))


def _part(model: str, files: Mapping[str, Path | None]) -> dict[str, Any]:
    """Return a plan's ``[model]``."""
    named = {role: str(path) for role, path in files.items() if path is not None}
    own: dict[str, Any] = {
        role: named.pop(role) for role in ("weights", "tokenizer") if role in named
    }
    return {"name": model, **own, **({"files": named} if named else {})}
