"""A bad value of any option is refused in one plain line, as early as it can be told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from inspect import unwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import typer
from click import unstyle
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from iarmem_plugin.cli.main import app
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.jobs.plan.reading import read_plan
from iarmem_plugin.jobs.scores import load_scores, save_scores
from iarmem_plugin.models import loading
from iarmem_plugin.plugins import registry
from iarmem_plugin.store import ActivationStore, ModelGroup
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter
from iarmem_plugin.testing.tiny_model import TinyNetwork, TinyTokenizer

_spec = spec_from_file_location("refusals", Path(__file__).with_name("refusals.py"))
assert _spec is not None
assert _spec.loader is not None
table = module_from_spec(_spec)
_spec.loader.exec_module(table)

ROWS = [
    (command, option, *row)
    for command, options in table.REFUSED.items()
    for option, rows in options.items()
    for row in rows
]
KNOWN = {
    "model": "tiny",
    "place": "x.zarr",
    "name": "unitmem",
    "plan": "plan.toml",
    "report": "report",
    "other": "",
    "scores": "scores others",
    "source": "report",
}
PLAN = """\
model = { name = "tiny" }
pictures = { images = "images" }
scores = { unitmem = "scores" }
grid = [{ random-sets = 0 }]
"""


class TooLateError(Exception):
    """What must not have been reached was."""


def too_late(*_: object, **__: object) -> None:
    raise TooLateError


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="iarmem", env={"COLUMNS": "200"})


def draw(folder: Path) -> None:
    for label in range(CLASSES):
        for number in range(2):
            file = folder / str(label) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            random = np.random.default_rng([label, number])
            pixels = random.integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
            Image.fromarray(pixels).save(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory: pictures, scores and a store of the tiny model, and files."""
    path = tmp_path_factory.mktemp("refusals")
    known, main = registry._provided, app.registered_callback
    assert main is not None
    tiny = registry.Provided("adapter", "tiny", "tests", TinyAdapter)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(
            registry, "_provided", lambda kind: known(kind) + (tiny,) * (kind == "adapter")
        )
        # as users run it: the gate's type checks mind that typer gives None for `--version`
        patch.setattr(main, "callback", unwrap(main.callback or print))
        draw(path / "images")
        (path / "empty").mkdir()
        (path / "empty.pth").touch()
        (path / "page.pth").write_text("<!DOCTYPE html><html>Sign in</html>")
        (path / "list.txt").write_text("images/0/0.png\t0\n")
        np.savez(path / "odd.npz", mu=np.zeros(3), sigma=np.eye(2))
        (path / "list.onnx").write_text("no network")
        np.savez(
            path / "many.npz",
            images=np.zeros((100, PIXELS, PIXELS, 3), np.uint8),
            labels=np.arange(100) % CLASSES,
        )
        common = "localize tiny --images images --views 1 --slab 4"
        done = run(*common.split(), "--out", "scores", "--store", "x.zarr")
        assert done.exit_code == 0, done.output
        save_others(path)
        save_reports(path)
        yield path


def save_others(path: Path) -> None:
    """Write scores of a model with fewer neurons, and rankings of other images and models."""
    images = Images.from_folder(path / "images", num_classes=CLASSES)
    others = replace(images.subset(range(4)), paths=("a", "b", "c", "d"))
    for name, listed in (("other.nc", others), ("foreign.nc", images)):
        values, content = np.zeros(len(listed)), np.zeros((len(listed), 32), np.uint8)
        known = {"model": "big", "image_list_sha256": listed.digest}
        Ranking.of(listed, values, values, content, known).save(path / name)
    state = TinyAdapter.make().network.state_dict()
    torch.save(state, path / "tiny.pth")
    torch.save({key: one + 1 for key, one in state.items()}, path / "other.pth")
    save_scores(load_scores(path / "scores").isel(neuron=slice(3)), path / "others")


def save_reports(path: Path) -> None:
    """Write a plan, a report that holds it, and one that holds none."""
    (path / "plan.toml").write_text(PLAN)
    words = "mitigate tiny --images images --scores scores --random-sets 0 --out planless"
    done = run(*words.split())
    assert done.exit_code == 0, done.output
    shutil.copytree(path / "planless", path / "report")
    file = path / "report" / "report.json"
    document = json.loads(file.read_text())
    document["provenance"]["plan"] = read_plan("plan.toml").to_document()
    file.write_text(json.dumps(document))


def words_of(command: str, option: str, value: str) -> list[str]:
    """Return what is typed; the last of an option that is given twice counts."""
    arguments = KNOWN | ({} if option.startswith("-") else {option: value})
    typed = table.COMMANDS[command].format(**arguments).split(" ")
    if not option.startswith("-"):
        return typed
    if not value or value.startswith("="):
        return [*typed, f"{option}{value}"]
    first, *rest = value.split(" --")
    more = [word for one in rest for word in f"--{one}".split(" ")]
    return [*typed, option, first, *more]


@pytest.mark.parametrize(("command", "option", "value", "stage", "message"), ROWS)
def test_a_bad_value_is_refused_at_its_stage_in_one_plain_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    value: str,
    stage: str,
    message: str,
) -> None:
    forbid(monkeypatch, stage)
    before = sorted(folder.iterdir())
    done = run(*words_of(command, option, value))
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stdout == ""
    *bars, line = unstyle(done.stderr).splitlines()
    assert message in line
    assert line.startswith("Error: ")
    assert len(line) <= 400
    assert line.isprintable()
    assert not bars
    assert (stage == table.PARSE) == line.endswith(" --help'")
    assert sorted(folder.iterdir()) == before


def forbid(patch: pytest.MonkeyPatch, stage: str) -> None:
    """Let whatever comes after a stage fail."""
    if stage == table.PASS:
        patch.setattr(TinyNetwork, "forward", too_late)
        patch.setattr(TinyTokenizer, "encode", too_late)
        return
    patch.setattr(loading, "load", too_late)
    patch.setattr(huggingface_hub, "hf_hub_download", too_late)
    for place, name in ((ActivationStore, "batches"), (ModelGroup, "put")):
        patch.setattr(place, name, too_late)


def typed_commands() -> dict[str, Any]:
    """Return every command by the words that are typed for it."""
    found: dict[str, Any] = {}
    group: Any = typer.main.get_command(app)
    for name, one in group.commands.items():
        inner = getattr(one, "commands", None)
        found |= {name: one} if inner is None else {f"{name} {k}": c for k, c in inner.items()}
    return found


def test_every_option_of_every_command_has_a_bad_value_in_the_table() -> None:
    expected = {
        command: {
            one.opts[0] if one.param_type_name == "option" else one.name
            for one in typed.params
            if one.name != "help"
        }
        for command, typed in typed_commands().items()
    }
    assert {command: set(rows) for command, rows in table.REFUSED.items()} == expected


def test_mitigate_says_which_pictures_it_skipped_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(folder / "spoilt")
    (folder / "spoilt" / "0" / "broken.png").write_bytes(b"no picture")
    forbid(monkeypatch, table.MODEL)
    typed = table.COMMANDS["mitigate"].format(**KNOWN).split()
    done = run(*typed, "--images", "spoilt", "--on-bad-image", "skip")
    assert isinstance(done.exception, TooLateError)
    assert done.stderr == "Warning: skipped 1 of 11 pictures: 0/broken.png\n"


def test_a_folder_of_progress_that_cannot_be_written_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, table.MODEL)
    for place, message in (("progress", "is a file"), ("heatmap.png", "is a folder, where a file")):
        out = folder / f"out {place}"
        out.mkdir()
        (out / place).touch() if place == "progress" else (out / place).mkdir()
        done = run("localize", "tiny", "--images", "images", "--out", str(out))
        assert done.exit_code == 2, done.output
        assert message in done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/x\x1b[31m"), "/x\\x1b[31m: Permission denied"),
        (OSError(40, "Too many levels of symbolic links", "a"), "a: Too many levels"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_the_system_refuses_is_one_plain_line(
    monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr("iarmem_plugin.plugins.problems", refuse)
    done = run("plugins")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {message}")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iarmem_plugin.plugins.problems", too_late)
    assert isinstance(run("plugins").exception, TooLateError)


def test_a_disk_with_too_little_room_for_the_scores_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, table.PASS)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    for command in ("localize", "mitigate"):
        done = run(*table.COMMANDS[command].format(**KNOWN).split())
        assert done.exit_code == 2, done.output
        assert "new needs about 2." in done.stderr
        assert "MB are free" in done.stderr


def test_scores_of_which_no_neuron_can_be_selected_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, table.MODEL)
    scores = load_scores(folder / "scores")
    save_scores(scores.assign_coords(valid=~scores["valid"] & False), folder / "invalid")
    typed = table.COMMANDS["mitigate"].format(**KNOWN).split()
    done = run(*typed, "--scores", "invalid")
    assert done.exit_code == 2
    assert "no neuron is valid" in done.stderr


def test_several_metrics_are_one_document_of_json(folder: Path) -> None:
    metrics = ("--metric", "unitmem", "--metric", "random")
    images = ("--images", "images", "--views", "1", "--json")
    done = run("localize", "tiny", *images, *metrics, "--out", "both")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert [one["metric"] for one in printed["metrics"]] == ["unitmem", "random"]
    alone = run("localize", "tiny", *images, "--out", "one")
    assert json.loads(alone.stdout) == printed["metrics"][0] | {"out": "one"}


def test_a_command_that_runs_in_one_process_refuses_several(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}
    for name, text in (names | {"MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, text)
    for command in ("demo", "mitigate"):
        done = run(*table.COMMANDS[command].format(**KNOWN).split())
        assert done.exit_code == 2
        assert f"process 1 of 2 (WORLD_SIZE), and 'iarmem {command}' runs in one" in done.stderr


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("localize", "tiny", "--images", "images", "--out", ""), "--out"),
        (("localize", "tiny", "--images=", "--out", "new"), "--images"),
        (("store", "info", ""), "info"),
    ],
)
def test_an_empty_value_is_not_the_current_folder(words: tuple[str, ...], option: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    said = f"Error: {option} was given an empty value; a variable may be unset\n"
    assert done.stderr == said
