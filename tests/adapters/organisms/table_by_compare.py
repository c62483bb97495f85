"""What one table costs: by `iarmem compare` of one plan, and by an `iarmem mitigate` for each arm.

``python tests/adapters/organisms/table_by_compare.py [--pictures 60]`` runs, in one thread, two
selectors at three fractions with five random sets beside each, without image quality, on as many
canaries and held-out pictures of the VAR organism, and prints CPU-seconds of whole processes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import typer

from iarmem_plugin import plugins
from iarmem_plugin.interfaces.organism import role_of
from iarmem_plugin.report.report import Report

SELECTORS, FRACTIONS, RANDOM_SETS = ("highest", "lowest"), (0.05, 0.1, 0.2), 5
MODEL = "var-organism"


def main(pictures: int = 60) -> None:
    """Make the same table both ways, and say what each took."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw(folder, pictures)
        cpu(folder, "localize", MODEL, "--images", "tried", "--views", "2", "--out", "scores")
        (folder / "plan.toml").write_text(plan())
        compared = cpu(folder, "compare", "plan.toml", "--out", "compared")
        one_by_one = [
            cpu(
                *(folder, "mitigate", MODEL, "--images", "tried", "--candidates", "tried"),
                *("--held-out", "held-out", "--few-held-out", "--scores", "scores"),
                *("--selector", selector, "--fraction", str(fraction)),
                *("--random-sets", str(RANDOM_SETS), "--out", f"{selector}-{fraction}"),
            )
            for selector in SELECTORS
            for fraction in FRACTIONS
        ]
        arms = len(Report.load(folder / "compared").arms)
    runs = len(one_by_one) * (2 + RANDOM_SETS)
    each = sum(one_by_one)
    print(f"compare: {arms} arms, {compared:.0f} CPU-s ({compared / arms:.1f} an arm)")
    print(f"mitigate: {runs} runs of arms, {each:.0f} CPU-s ({each / runs:.1f} a run)")
    print(f"the same table takes {each / compared:.2f} times as long by mitigate")


def draw(folder: Path, count: int) -> None:
    """Write canaries and held-out pictures of the organism, a folder a class."""
    maker = plugins.find_variant(MODEL)[1].organism
    assert maker is not None
    organism = maker()
    roles = np.array([role_of(str(name)) for name in organism.group])
    for role, name in (("canary", "tried"), ("held-out", "held-out")):
        for place in np.flatnonzero(roles == role)[:count].tolist():
            file = folder / name / str(organism.pictures.labels[place]) / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            organism.pictures.load(place).save(file)


def plan() -> str:
    """Return the plan of the table."""
    return f"""
model = {{ name = "{MODEL}" }}
pictures = {{ candidates = "tried", held-out = "held-out" }}
scores = {{ unitmem = "scores" }}
attack.few-held-out = true
[[grid]]
selectors = {list(SELECTORS)}
fractions = {list(FRACTIONS)}
random-sets = {RANDOM_SETS}
"""


def cpu(folder: Path, *words: str) -> float:
    """Run a command, and return the CPU-seconds of its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = [sys.executable, "-m", "iarmem_plugin", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(run, check=True, cwd=folder, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    typer.run(main)
