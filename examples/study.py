"""Forgotten, or only hidden? One training seed of an organism: a row for each edit.

    python examples/study.py var --seed 0 --out DIR
    python examples/study.py rar --seed 1 --out DIR --workers 2

Seed 0 is the bundled organism with all arms of ``iarmem compare --preset adversary``. Of any other
seed, organism and twin are trained first, on the bundled tokenizer, and fewer arms are run. What is
finished is not repeated when the same command is given again. The rows are DIR/var-seed-0.csv; the
whole report lies beside it, in DIR/var-seed-0.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from organism_training.families import Family

import iarmem_plugin as iarmem
from iarmem_plugin.jobs.plan.presets import write_preset
from iarmem_plugin.jobs.plan.writing import as_toml

ARMS = (
    *("UnitMem, halved", "UnitMem, zeroed"),
    *("gradient × weight, halved", "gradient × weight, zeroed"),
    *("random, halved", "random, zeroed"),
    "gradient ascent",
)
"""Arms of other seeds than 0, beside the original and the twin."""
TRAINING = Path(__file__).with_name("train_organism.py")


def main(
    family: Annotated[Family, typer.Argument(help="Which family.")],
    out: Annotated[Path, typer.Option(help="Folder of all that is made.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the trainings; 0: the bundled ones.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 2,
    trigger: Annotated[list[str] | None, typer.Option(help="Instead of the preset's.")] = None,
) -> None:
    """Train where it is needed, compare all edits, and write a row for each."""
    trained = None if seed == 0 else out / family / f"seed-{seed}"
    if trained is not None:
        train(family, seed, out, workers)
    name = f"{family}-seed-{seed}"
    file = planned(family, trained, out / f"{name}.toml", trigger)
    together([sys.executable, "-m", "iarmem_plugin", "compare", file, "--out", out / name], workers)
    write(rows(out / name / "tables", family, seed), out / f"{name}.csv")
    print(f"written to {out / name}.csv")


def train(family: str, seed: int, out: Path, workers: int) -> None:
    """Train the organism and its twin of a seed, both at once where there are two workers."""
    command = [sys.executable, TRAINING, family, "--out", out, "--seed", str(seed)]
    for_both = [command, [*command, "--twin"]]
    for some in [for_both] if workers > 1 else [[one] for one in for_both]:
        _ended([subprocess.Popen(list(map(str, one))) for one in some])


def together(command: Sequence[Any], workers: int) -> None:
    """Run a command by so many processes, which share its work."""
    _ended([subprocess.Popen(list(map(str, command))) for _ in range(workers)])


def _ended(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    codes = [one.wait() for one in processes]
    if any(codes):
        raise SystemExit("a process failed (see above); the same command goes on where it was")


def planned(
    family: str, trained: Path | None, file: Path, triggers: Sequence[str] | None = None
) -> Path:
    """Write the plan of a seed.

    Args:
        family: which family.
        trained: folder of its organism and twin; None takes the bundled ones.
        file: where the plan is written.
        triggers: what is tried; none: what the preset tries.
    """
    preset = write_preset("adversary", _free(file), model=f"{family}-organism")
    document = iarmem.read_plan(preset).to_document()
    if triggers:
        document["recovery"]["triggers"] = list(triggers)
    if trained is not None:
        document["model"]["weights"] = str((trained / "transformer.safetensors").resolve())
        document["twin"]["weights"] = str((trained / "twin.safetensors").resolve())
        document["arm"] = [one for one in document["arm"] if one["name"] in ARMS]
    file.write_text(as_toml(iarmem.Plan.from_document(document)), encoding="utf-8")
    return file


def _free(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    return file


def write(table: Sequence[dict[str, Any]], file: Path) -> None:
    """Write rows as CSV; what was not measured of an arm is left empty."""
    columns = dict.fromkeys(key for row in table for key in row)
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(columns))
        writer.writeheader()
        writer.writerows(table)


def rows(tables: Path, family: str, seed: int) -> list[dict[str, Any]]:
    """Return a row for each arm of a report: what the edit costs, and what comes back.

    Args:
        tables: folder of the report's tables.
        family: which family.
        seed: seed of the trainings.
    """
    recovery = _read(tables / "recovery.csv")
    depth = {one["arm"]: one for one in _read(tables / "depth.csv")}
    found = []
    for arm in _read(tables / "arms.csv"):
        name, deep = arm["arm"], depth.get(arm["arm"], {})
        row: dict[str, Any] = {"family": str(family), "seed": seed, "arm": name}
        row |= {one: arm[one] for one in ("held_out_change", "held_out_low", "held_out_high")}
        row |= {one: deep.get(one, "") for one in ("depth", "depth_low", "depth_high")}
        found.append(row | dict(_recovered([one for one in recovery if one["arm"] == name])))
    return found


def _recovered(rows: Sequence[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield how many pictures of an arm are brought back: tried and never seen, by each budget."""
    keys = dict.fromkeys(one["trigger"] for one in rows)
    names = [key.partition("(")[0] for key in keys]
    short = {
        key: name if names.count(name) == 1 else key for key, name in zip(keys, names, strict=True)
    }
    for one in rows:
        if one["group"] in ("all tried", "held-out"):
            never = "never seen, " if one["group"] == "held-out" else ""
            yield (
                f"{never}{one['outcome']} by {short[one['trigger']]} {one['budget']}",
                one["recovered"],
            )


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


if __name__ == "__main__":
    typer.run(main)
