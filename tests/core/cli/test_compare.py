"""`iarmem compare` and `rerun`: what is given to the job, and what is printed of its result."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from inspect import unwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from iarmem_plugin import Plan
from iarmem_plugin.cli.main import app
from iarmem_plugin.jobs.compare.estimate import Estimate, Step
from iarmem_plugin.jobs.compare.rerun import differences as rerun
from iarmem_plugin.jobs.plan import reading
from iarmem_plugin.table import TextTable

JOB = "iarmem_plugin.jobs.compare.job"
TEXT = "seed = 4\nmodel = { name = 'var-organism' }\npictures.organism = true\ngrid = [{}]\n"


class Outcome:
    """What stands for a report."""

    def __init__(self, plan: Plan | None = None, **provenance: Any) -> None:
        self.provenance = provenance | ({} if plan is None else {"plan": plan.to_document()})
        self.arms = ("original",)
        self.recovery = self.depth = None

    def to_dict(self) -> dict[str, Any]:
        return {"provenance": self.provenance}

    def table(self) -> TextTable:
        return TextTable("compared", ("arm",), [("original",)])


class Job(ModuleType):
    """Stands for the module of the job, and keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__(JOB)
        self.calls: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []
        self.dropped: list[dict[str, str]] = []

    def compare(self, plan: Plan, out: Path, **settings: Any) -> Outcome:
        self.calls.append({"plan": plan, "out": out, **settings})
        return Outcome(plan, failed=self.failed, dropped=self.dropped)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Job:
    made, main = Job(), app.registered_callback
    assert main is not None
    monkeypatch.setitem(sys.modules, JOB, made)
    # as users run it: the gate's type checks mind that typer gives None for `--version`
    monkeypatch.setattr(main, "callback", unwrap(main.callback or print))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(TEXT)
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="iarmem", env={"COLUMNS": "200"})


def test_the_plan_is_run_with_what_is_typed_in_place_of_its_keys(job: Job) -> None:
    typed = ("--set", "attack.per-class=2", "--set", "grid.0.random-sets=3", "--batch-size", "7")
    done = run("compare", "plan.toml", "--out", "out", *typed, "--restart")
    assert done.exit_code == 0, done.output
    (call,) = job.calls
    plan = call["plan"]
    assert (plan.seed, plan.attack.per_class, plan.attack.batch_size) == (4, 2, 7)
    assert plan.grid[0].random_sets == 3
    assert (call["out"], call["restart"]) == (Path("out"), True)
    assert "compared" in done.stdout
    assert done.stderr == "Report: out/report.html\n"


def test_a_dry_run_needs_no_folder_and_runs_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Estimate((Step("losses", 4, 40, 40, 7200.0, 1_000_000),), 2, "cpu")
    known = "iarmem_plugin.jobs.compare.estimate"
    stand_in = ModuleType(known)
    vars(stand_in)["estimate"] = lambda plan, progress: taken
    monkeypatch.setitem(sys.modules, known, stand_in)
    done = run("compare", "plan.toml", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"][0]["seconds"] == 7200
    assert done.stderr == ""
    assert "2.00" in run("compare", "plan.toml", "--dry-run").stdout  # hours
    assert job.calls == []


def test_arms_that_failed_or_were_dropped_are_told_and_the_command_fails(job: Job) -> None:
    job.failed = [{"name": "a", "stage": "losses", "error": "ValueError: no"}]
    job.dropped = [{"name": "b", "before": "images", "why": "held-out change 2.000: a rule"}]
    done = run("compare", "plan.toml", "--out", "out")
    assert done.exit_code == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "Report: out/report.html"
    assert lines[1] == "Dropped before its images: b (held-out change 2.000: a rule)"
    assert lines[2] == "Failed at its losses: a (ValueError: no)"
    assert lines[3].startswith("Error: 1 of 2 arms failed; the report has the others")


def test_without_a_folder_or_a_plan_nothing_is_run(job: Job) -> None:
    for words, said in (
        (("compare", "plan.toml"), "--out is missing; name the folder to write"),
        (("compare",), "no plan is given; name its file, or write one with --preset NAME"),
        (("compare", "--out", "x"), "no plan is given"),
        (("compare", "--preset", "paper"), "no plan is given"),
        (("compare", "--preset", "paper", "--write", "x.toml", "--out", "x"), "no plan is given"),
        (("compare", "--preset", "best", "--write", "x.toml"), "no preset named 'best'; there"),
        (("compare", "--preset", "paper", "--write", "plan.toml"), "is there already, and is not"),
    ):
        done = run(*words)
        assert done.exit_code == 2, words
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert job.calls == []
    assert Path("plan.toml").read_text() == TEXT


def test_a_preset_is_written_and_runs(job: Job) -> None:
    words = ("compare", "--preset", "organism", "--write", "new.toml", "--model", "rar-organism")
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "iarmem compare new.toml --out FOLDER" in done.stderr
    assert run("compare", "new.toml", "--out", "out").exit_code == 0
    assert job.calls[0]["plan"].model.name == "rar-organism"


@pytest.mark.parametrize(("numbers", "code"), [((), 0), ((0.5,), 3)])
def test_a_report_is_run_again_and_ends_with_3_where_numbers_differ(
    job: Job, monkeypatch: pytest.MonkeyPatch, numbers: tuple[float, ...], code: int
) -> None:
    plan = Plan.from_document(
        {"model": {"name": "var-organism"}, "pictures": {"organism": True}, "grid": [{}]}
    )
    monkeypatch.setattr(
        "iarmem_plugin.report.report.Report.load", lambda folder: Outcome(plan, folder=str(folder))
    )
    same = rerun.Differences((), (), (), (), 4)
    differing = tuple(rerun.Difference("highest", "loss", 1, 1.0, 1.5, one) for one in numbers)
    monkeypatch.setattr(rerun, "differences", lambda *_: replace(same, numbers=differing))
    monkeypatch.setattr(
        reading,
        "plan_of",
        lambda old, given, name: reading.with_given(old.provenance["plan"], given, name=name),
    )
    done = run("rerun", "report", "--out", "again", "--set", "seed=9")
    assert done.exit_code == code, done.output
    assert job.calls[0]["plan"] == plan.model_copy(update={"seed": 9})
    said = "What differs" if numbers else "Nothing differs in 4 arms"
    assert said in done.stdout
