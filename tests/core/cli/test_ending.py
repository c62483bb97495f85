"""A command that is ended from outside leaves every context, and only once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import typer
from typer.testing import CliRunner

from iarmem_plugin.cli.ending import ends_orderly
from iarmem_plugin.cli.main import Commands

ENDING = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear what a test runner that was started by ``nohup`` would ignore."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def end(by: signal.Signals) -> None:
    os.kill(os.getpid(), by)


@contextmanager
def left(steps: list[str], by: signal.Signals) -> Iterator[None]:
    try:
        yield
    finally:
        end(by)  # a scheduler that does not wait
        steps.append("left")


@pytest.mark.parametrize("by", ENDING)
def test_contexts_are_left_and_a_second_signal_does_not_interrupt_that(by: signal.Signals) -> None:
    before, steps = [signal.getsignal(one) for one in ENDING], list[str]()
    with pytest.raises(SystemExit) as ended, ends_orderly(), left(steps, by):
        end(by)
    assert (ended.value.code, steps) == (128 + by, ["left"])
    assert [signal.getsignal(one) for one in ENDING] == before


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_orderly():
            end(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_every_command_ends_so() -> None:
    app = typer.Typer(cls=Commands)
    app.command("one")(lambda: end(signal.SIGTERM))
    app.command("other")(lambda: None)
    assert CliRunner().invoke(app, ["one"]).exit_code == 128 + signal.SIGTERM


def test_a_thread_that_hears_no_signals_runs_commands_all_the_same() -> None:
    done: list[bool] = []

    def work() -> None:
        with ends_orderly():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
