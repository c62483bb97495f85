"""`iarmem audit` and `iarmem inspect`: what is read, printed and written."""

from __future__ import annotations

import json
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from iarmem_plugin.cli.main import app
from iarmem_plugin.plugins import registry
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with 5 pictures in ``mine`` and 40 in ``other``."""
    known, main = registry._provided, app.registered_callback
    assert main is not None
    tiny = registry.Provided("adapter", "tiny", "tests", TinyAdapter)
    monkeypatch.setattr(
        registry, "_provided", lambda kind: known(kind) + (tiny,) * (kind == "adapter")
    )
    # as users run it: the gate's type checks mind that typer gives None for `--version`
    monkeypatch.setattr(main, "callback", unwrap(main.callback or print))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, count in (("mine", 5), ("other", 40)):
        for number in range(count):
            file = Path(name, str(number % CLASSES), f"{number:02}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)).save(file)
    return tmp_path


def run(line: str) -> Result:
    return CliRunner().invoke(app, line.split(), prog_name="iarmem", env={"COLUMNS": "200"})


def test_an_audit_writes_its_folder_and_prints_counts_and_the_path(folder: Path) -> None:
    done = run("audit tiny --images mine --held-out other --out audited --no-neurons")
    assert done.exit_code == 0, done.output
    assert "Audit of 5 pictures by tiny" in done.stdout
    assert "of 20" in done.stdout
    assert "Audit: audited/audit.html" in done.stderr
    assert {one.name for one in (folder / "audited").iterdir()} == {
        *("audit.html", "audit.csv", "audit.json", "values.csv"),
    }
    again = run("audit tiny --images mine --held-out other --out audited --no-neurons --json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == json.loads((folder / "audited/audit.json").read_text())


def test_named_triggers_replace_the_usual_ones(folder: Path) -> None:
    options = "--trigger prefix:budgets='1,5' --trigger samples:budgets='1' --no-neurons --json"
    done = run(f"audit tiny --images mine --held-out other --out audited {options}")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["triggers"] == ["prefix(budgets=[1,5])", "samples(budgets=[1])"]


def test_one_picture_is_inspected_with_the_class_of_its_folder_or_of_an_option(
    folder: Path,
) -> None:
    done = run("inspect tiny --image mine/3/03.png --held-out other --json")
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout)["pictures"]
    assert (one["path"], one["label"], len(one["neurons"])) == ("03.png", 3, 3)
    Path("mine/3").rename("cats")
    unknown = run("inspect tiny --image cats/03.png --held-out other")
    assert unknown.exit_code == 2
    assert "its folder 'cats' is no class index; give it by --label" in unknown.stderr
    told = run("inspect tiny --image cats/03.png --label 3 --held-out other --no-neurons")
    assert told.exit_code == 0, told.output
    assert "Nothing found is no proof of absence" in told.stdout
