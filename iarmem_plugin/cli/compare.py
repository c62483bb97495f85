"""``iarmem compare`` and ``rerun``: a plan in, a report out; or two reports side by side.

A command imports what it needs when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.cli.sides import compare_reports
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_writable
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.jobs.compare.estimate import Estimate
    from iarmem_plugin.jobs.plan.plan import Plan
    from iarmem_plugin.report.report import Report

DIFFERS = 3
"""How `iarmem rerun` ends where the numbers are not those of the report."""

Given = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A key of the plan in place of its file's, such as attack.prefix-tokens=5 or "
        "grid.0.random-sets=19: the value as in TOML, or else text. May be repeated.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu, cuda or cuda:1, in place of the plan's.")
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Images in one pass, in place of the plan's.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Discard what earlier runs into --out have finished.")
]
Planned = Annotated[
    Path | None,
    typer.Argument(help="File of the plan: .toml, see docs/plan.md; or folder of a report."),
]
Beside = Annotated[
    Path | None, typer.Argument(help="Folder of another report, to put the two side by side.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what the plan takes, and run nothing.")
]


def compare(
    plan: Planned = None,
    other: Beside = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.")] = None,
    given: Given = None,
    device: Device = None,
    batch_size: BatchSize = None,
    dry_run: DryRun = False,
    restart: Restart = False,
    preset: Annotated[
        str | None,
        typer.Option(help="A plan to begin with; --write writes it: `iarmem compare` lists them."),
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="File that the preset is written to: .toml.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model that is filled into the preset.")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Run the interventions of a plan, and report them; or put two reports side by side.

    The same command again goes on where a run was ended, and does what was added to the plan.
    """
    running = given or device or batch_size or dry_run or restart
    if plan is None:
        _write_preset(preset, write, model, running=bool(running or out is not None))
        return
    beside = {"--preset": preset, "--write": write, "--model": model}
    if other is not None:
        if running or any(beside.values()):
            raise InputError(
                "two reports are put side by side, and nothing is run; leave all options but "
                "--out and --json out"
            )
        compare_reports(plan, other, out, as_json=as_json)
        return
    if wrong := next((option for option, value in beside.items() if value is not None), None):
        raise InputError(
            f"{wrong} is for writing a plan, and {shown(plan, 120)} is one; leave one of them out "
            "(--set model.name=NAME changes the model)"
        )
    if (plan / "report.json").is_file():
        raise InputError(
            f"{shown(plan, 120)} is a report; give another one beside it, or a plan's file"
        )
    if out is None and not dry_run:
        raise InputError("--out is missing; name the folder to write")
    from iarmem_plugin.jobs.plan.reading import read_plan

    chosen = read_plan(plan, given=given or ()).on(device=device, batch_size=batch_size)
    if out is None or dry_run:
        taken = estimated(chosen)
        console.show(taken.to_dict(), taken.table(), as_json=as_json)
        return
    run_and_show(chosen, out, restart=restart, as_json=as_json)


def run_and_show(plan: Plan, out: Path, *, restart: bool, as_json: bool) -> None:
    """Run a plan, and print what came out: by the first of the processes alone."""
    found = _run(plan, out, restart=restart)
    if _is_first():
        from rich.console import Group

        from iarmem_plugin.report.depth.section import depth_table
        from iarmem_plugin.report.recovery.section import recovery_table

        deep = None if found.depth is None else depth_table(found)
        every = (found.table(), recovery_table(found.recovery), deep)
        tables = [one for one in every if one is not None]
        console.show(found.to_dict(), Group(*tables), as_json=as_json)
        console.say(f"Report: {out / 'report.html'}")
        _tell(found)


def rerun(
    report: Annotated[Path, typer.Argument(help="Folder that `iarmem compare` wrote.")],
    out: opt.Out,
    given: Given = None,
    device: Device = None,
    batch_size: BatchSize = None,
    restart: Restart = False,
    as_json: opt.AsJson = False,
) -> None:
    """Run the plan of a report again, and say what differs; ends with 3 where numbers do."""
    if out.resolve() == report.resolve():
        raise InputError(f"--out {shown(out, 120)} is the report itself; name another folder")
    check_writable(out)
    from iarmem_plugin.jobs.compare.rerun.differences import differences
    from iarmem_plugin.jobs.plan.reading import plan_of
    from iarmem_plugin.report.report import Report

    old = Report.load(report)
    plan = plan_of(old, given=tuple(given or ()), name=str(report))
    _run(plan.on(device=device, batch_size=batch_size), out, restart=restart)
    found = differences(old, Report.load(out))
    console.show(found.to_dict(), found.table(), as_json=as_json)
    console.say(f"Report: {out / 'report.html'}")
    if found.found:
        raise typer.Exit(DIFFERS)


def _run(plan: Plan, out: Path, *, restart: bool) -> Report:
    """Compare, once what can be refused quickly is not."""
    from iarmem_plugin.cli.memory import keep_freed_memory
    from iarmem_plugin.jobs.compare.job import compare

    check_writable(out)
    sources = {f"[pictures] {key}": path for key, path in plan.pictures.sources.items()}
    preflight.check_apart(out, sources)
    preflight.check_device(plan.model.device)
    keep_freed_memory()
    with console.progress_bars() as progress:
        return compare(plan, out, restart=restart, progress=progress)


def _is_first() -> bool:
    """Tell whether this is the one of the processes of torchrun that prints, or a process alone."""
    from iarmem_plugin.activations.distributed import started_processes

    return started_processes()[0] == 0


def estimated(plan: Plan) -> Estimate:
    """Say what a plan would take."""
    from iarmem_plugin.jobs.compare.estimate import estimate

    preflight.check_device(plan.model.device)
    with console.progress_bars() as progress:
        return estimate(plan, progress)


def _tell(report: Report) -> None:
    """Say which arms are not in the report; the command then ends with an error.

    Raises:
        InputError: some arms failed.
    """
    for one in report.provenance["dropped"]:
        console.say(f"Dropped before its {one['before']}: {one['name']} ({one['why']})")
    failed = report.provenance["failed"]
    for one in failed:
        console.say(f"Failed at its {one['stage']}: {one['name']} ({one['error']})")
    if failed:
        raise InputError(
            f"{len(failed)} of {len(failed) + len(report.arms)} arms failed; the report has the "
            "others, and the same command tries them again"
        )


def _write_preset(
    preset: str | None, write: Path | None, model: str | None, *, running: bool
) -> None:
    from iarmem_plugin.jobs.plan.presets import presets, write_preset

    if preset is None or write is None or running:
        listed = ", ".join(presets())
        raise InputError(
            "no plan is given; name its file, or write one with --preset NAME --write FILE, where "
            f"NAME is one of {listed}"
        )
    file = write_preset(preset, write, model=model)
    console.say(f"{file}: fill in what is marked, then iarmem compare {file} --out FOLDER")
