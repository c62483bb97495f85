"""How long it takes to start; run as plain tests unless --benchmark-enable."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import iarmem_plugin"),
        ("-m", "iarmem_plugin", "--version"),
        ("-m", "iarmem_plugin", "--help"),
        ("-m", "iarmem_plugin", "plugins"),
    ],
    ids=["import", "version", "help", "plugins"],
)
def test_start(benchmark: Any, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, *arguments]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, check=False), rounds=15
    )
    assert done.returncode == 0
