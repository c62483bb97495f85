"""Run a plan by a Slurm array: every job is a worker, and takes the next cell that nobody has.

``python examples/compare_on_slurm.py plan.toml compared --workers 8``; ``--cluster local`` runs the
workers on this machine. Needs ``pip install "iarmem[slurm]"``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import submitit
import typer

import iarmem_plugin as iarmem


def work(plan: Path, out: Path) -> None:
    """Do one worker's share of a comparison; the last one writes the report."""
    iarmem.compare(iarmem.read_plan(plan), out)


def main(
    plan: Path,
    out: Path,
    workers: int = 4,
    hours: int = 24,
    gpus: int = 0,
    cluster: Annotated[str | None, typer.Option(help="local: this machine.")] = None,
) -> None:
    """Submit the workers, and wait for them; a job that is killed may be submitted again."""
    executor = submitit.AutoExecutor(folder=f"{out}-slurm", cluster=cluster)
    executor.update_parameters(timeout_min=60 * hours, gpus_per_node=gpus, nodes=1)
    jobs = executor.map_array(work, [plan.resolve()] * workers, [out.resolve()] * workers)
    for job in jobs:
        job.result()
    print(iarmem.Report.load(out).table())


if __name__ == "__main__":
    typer.run(main)
