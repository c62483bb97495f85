"""`iarmem compare REPORT REPORT` and `compare-scores`: what is read, printed and written."""

from __future__ import annotations

import json
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import Result
from typer.testing import CliRunner

from iarmem_plugin import Report, save_scores
from iarmem_plugin.cli.main import app
from iarmem_plugin.report.results import ArmResult

NAMES = ["a.png", "b.png", "c.png"]


def scores_of(seed: int, scales: int = 2) -> xr.Dataset:
    values = np.random.default_rng(seed).random((2, scales, 20))
    return xr.Dataset(
        {"score": (("block", "scale", "neuron"), values)},
        coords={
            "block": range(2),
            "neuron": range(20),
            "scale_name": ("scale", [str(scale) for scale in range(scales)]),
            "valid": (("block", "scale", "neuron"), np.ones(values.shape, bool)),
        },
        attrs={"metric": "unitmem", "provenance": "{}"},
    )


def report_of(extracted: list[bool], seed: int, names: list[str]) -> Report:
    values = np.array([extracted])
    extraction = xr.Dataset(
        {
            "similarity": (("arm", "candidate"), values.astype("float32")),
            "equal_tokens": (("arm", "candidate"), np.full((1, 3), 4, "int32")),
            "extracted": (("arm", "candidate"), values),
            "tokens": (("arm", "candidate", "token"), np.zeros((1, 3, 8), "int32")),
        },
        coords={
            "arm": ["original"],
            "group": ("candidate", ["canary 40"] * 3),
            "role": ("candidate", ["canary"] * 3),
            "path": ("candidate", names),
            "label": ("candidate", np.zeros(3, "int32")),
            "image": ("candidate", np.arange(3)),
        },
        attrs={"threshold": 0.5, "threshold_source": "given", "similarity": "correlation"}
        | {"prefix_tokens": 2},
    )
    original = ArmResult("original", None, None, None, (), "original")
    return Report("tiny", {"seed": seed}, scores_of(0), (original,), extraction, (), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports of three candidates, one of others, and three folders of scores."""
    path = tmp_path_factory.mktemp("sides")
    report_of([True, True, False], 0, NAMES).save(path / "first")
    report_of([True, False, False], 1, NAMES).save(path / "second")
    report_of([True, False, False], 1, ["x", "y", "z"]).save(path / "other")
    for name, scores in (("one", scores_of(1)), ("two", scores_of(2)), ("few", scores_of(2, 1))):
        save_scores(scores, path / name)
    return path


@pytest.fixture(autouse=True)
def _typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = app.registered_callback
    assert main is not None
    # as users run it: the gate's type checks mind that typer gives None for `--version`
    monkeypatch.setattr(main, "callback", unwrap(main.callback or print))
    monkeypatch.chdir(folder)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="iarmem", env={"COLUMNS": "200"})


def test_two_reports_are_put_side_by_side_and_written(tmp_path: Path) -> None:
    done = run("compare", "first", "second", "--out", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    assert "2 (0.667) │ 1 (0.333) │ -0.333" in done.stdout
    assert "│ seed " in done.stdout
    assert done.stderr == f"Comparison: {tmp_path}/new/comparison.html\n"
    found = json.loads((tmp_path / "new" / "comparison.json").read_text())
    assert found["names"] == ["first", "second"]
    printed = run("compare", "first", "second", "--json")
    assert json.loads(printed.stdout) == found
    assert printed.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("first", "other"), "no candidate is in both reports: the first begins with a.png"),
        (("first", "one"), "one holds no report.json"),
        (("first", "nowhere"), "nowhere holds no report.json"),
        (("first", "second", "--out", "one"), "one holds other files, such as 'heatmap.png', and"),
        (("first", "second", "--out", "first"), "first holds other files"),
        (("first", "second", "--dry-run"), "two reports are put side by side, and nothing is run"),
        (("first", "second", "--restart"), "two reports are put side by side, and nothing is run"),
        (("first", "--out", "new"), "first is a report; give another one beside it"),
        (("first",), "first is a report; give another one beside it"),
    ],
)
def test_what_are_no_two_reports_is_refused(words: tuple[str, ...], said: str) -> None:
    done = run("compare", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_scores_are_compared_by_the_names_of_their_folders_or_their_own(tmp_path: Path) -> None:
    out = tmp_path / "new"
    words = ("compare-scores", "one", "two/scores.nc", "third=one/scores.nc")
    done = run(*words, "--fraction", "0.25", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "the top 25% of each" in done.stdout
    found = json.loads((out / "score_comparison.json").read_text())
    pairs = [(one["first"], one["second"]) for one in found["pairs"][::3]]
    assert pairs == [("one", "two"), ("one", "third"), ("two", "third")]
    same = found["pairs"][3]
    assert (same["correlation"], same["shared"]) == (pytest.approx(1), same["top"])
    assert (out / "heatmaps.png").is_file()
    assert json.loads(run(*words, "--fraction", "0.25", "--json").stdout) == found


def test_scores_of_other_scales_are_refused() -> None:
    done = run("compare-scores", "one", "few")
    assert done.exit_code == 2
    assert "few has 2 blocks of 20 neurons at 1 scales (0), and one 2 blocks" in done.stderr
