"""What the commands print, where there is a terminal and where there is none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from inspect import unwrap
from io import BytesIO, TextIOWrapper
from types import SimpleNamespace

import pytest
import xarray as xr
from click.testing import Result
from typer.testing import CliRunner

from iarmem_plugin import plugins
from iarmem_plugin.cli import console
from iarmem_plugin.cli import store as store_commands
from iarmem_plugin.cli.localize import _table
from iarmem_plugin.cli.main import app
from iarmem_plugin.progress import progress_bar
from iarmem_plugin.store.store import ActivationStore

LOG = logging.getLogger("iarmem_plugin.progress")
HOSTILE = "needs more: pip install 'acme[cuda]' (see [/docs/extras])\x1b[31m\u202e"


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (None, ["information", "a warning"]),
        (console.LogLevel.info, ["information", "a warning"]),
        (console.LogLevel.warning, ["a warning"]),
        (console.LogLevel.error, []),
    ],
)
def test_without_a_terminal_the_log_tells_what_was_asked_for(
    level: console.LogLevel | None, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.terminal(level):
        LOG.debug("much")
        LOG.info("information")
        LOG.warning("a warning")
    LOG.warning("afterwards")
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[2] for line in said] == expected


def test_only_the_first_of_several_processes_tells_more_than_warnings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with console.terminal(console.LogLevel.debug):
        LOG.info("information")
    assert capsys.readouterr().err == ""


def test_a_job_without_a_terminal_logs_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with console.terminal(), console.progress_bars() as progress:
        progress_bar(progress, "arms", 2)(2)
    assert capsys.readouterr().err.partition(" ")[2] == "arms: 2 of 2\n"


def test_a_bar_shows_its_description_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "bars_are_seen", lambda: True)
    with console.progress_bars() as progress:
        progress_bar(progress, "[/a] :smile:", 2)(2)
    assert "[/a] :smile:" in capsys.readouterr().err


def test_a_sign_that_the_terminal_lacks_is_printed_by_its_escape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(buffer, encoding="latin-1"))
    with console.terminal():
        console.say("猫", err=False)
    sys.stdout.flush()
    assert buffer.getvalue().split() == [rb"\u732b"]
    assert sys.stdout.errors == "strict"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `iarmem` here, wide enough that no line is broken."""
    main = app.registered_callback
    assert main is not None
    # the gate's type checks mind that typer gives None for `--version`
    monkeypatch.setattr(main, "callback", unwrap(main.callback))
    return lambda *arguments: CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})


def test_a_plugin_that_cannot_be_loaded_is_listed_with_its_own_words(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "problems", lambda: {"[/acme]": f"ImportError: {HOSTILE}"})
    done = run("plugins")
    assert done.exit_code == 0, done.stderr
    assert "[/acme]" in done.stdout
    assert r"'acme[cuda]' (see [/docs/extras])\x1b[31m\u202e" in done.stdout


def test_completion_names_the_commands() -> None:
    asked = {"_IARMEM_COMPLETE": "complete_bash", "COMP_WORDS": "iarmem lo", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], prog_name="iarmem", env=asked)
    assert done.stdout.split() == ["localize"]


def test_the_name_of_a_band_or_a_metric_is_text_in_the_table() -> None:
    values = xr.DataArray([[12.5]], {"block": [0], "scale": [0]}, ("block", "scale"))
    table = _table("[/m]", values.assign_coords(scale_name=("scale", ["[/a]\x1b[31m"])))
    assert "[/m], summed" in str(table)
    assert r"[/a]\x1b[31m" in str(table)


def test_the_name_of_a_store_is_text_in_the_table(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = dict.fromkeys(store_commands.COLUMNS, 1) | {"model": "[/m]"}
    row |= {"pending_slabs": [], "damages": []}
    opened = SimpleNamespace(name="q[/x]", models=["m"])
    monkeypatch.setattr(ActivationStore, "open", lambda *_: opened)
    monkeypatch.setattr(store_commands, "_summary", lambda *_: row)
    done = run("store", "info", "q[/x]")
    assert "q[/x]" in done.stdout
    assert "[/m]" in done.stdout
