"""What `iarmem` says of itself, and how it ends on wrong usage."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from importlib.metadata import version

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = ["demo", "fetch", "localize", "mitigate", "models", "plugins"]
COMMON = ["--weights", "--tokenizer", "--device", "--dtype", "--batch-size", "--seed", "--json"]


def test_the_version_is_the_installed_one(iarmem: Run) -> None:
    assert iarmem("--version").stdout == f"iarmem {version('iarmem')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_command(command: str, iarmem: Run) -> None:
    assert f" {command} " in iarmem("--help").stdout


@pytest.mark.parametrize("arguments", [("bogus",), ("localize",), ("demo", "--bogus")])
def test_wrong_usage_ends_with_code_2(arguments: tuple[str, ...], iarmem: Run) -> None:
    done = iarmem(*arguments)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("command", ["localize", "mitigate"])
def test_both_jobs_take_the_common_options(command: str, iarmem: Run) -> None:
    shown = iarmem(command, "--help").stdout
    assert [option for option in COMMON if f"{option} " not in shown] == []
