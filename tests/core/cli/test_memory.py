"""What is kept is counted in page faults, in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

TASK = """
import resource, sys
from iarmem_plugin.cli.memory import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
import numpy as np
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(12_000_000)  # 96 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
GLIBC = platform.libc_ver()[0] == "glibc"


def run(argument: str, **settings: str) -> list[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    clean.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", TASK, argument],
        capture_output=True,
        check=True,
        text=True,
        env=clean | settings,
    )
    return done.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="only glibc is told anything")
def test_a_large_block_is_taken_from_the_system_once() -> None:
    set_, faults = run("keep")
    assert set_ == "True"
    assert int(faults) < 50  # 96 MB in pages of 4 KiB are 23 000, in huge pages 46


def test_settings_of_the_environment_are_left_alone() -> None:
    assert run("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
