"""The kit itself: what is right passes, and what is wrong fails by the test that names it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from .broken_adapters import LAWS
from .broken_edits import TESTS as EDITS
from .broken_measures import TESTS
from .broken_triggers import TESTS as TRIGGERS

FOLDER = Path(__file__).parent
RIGHT = ("TinyAdapter", "Means", "Shifted", "Twice", "Brighter")
WRONG = {name: f"test_{law}" for name, law in (LAWS | TESTS | EDITS | TRIGGERS).items()}


@pytest.fixture(scope="module")
def failed() -> dict[str, set[str]]:
    """Run the kit on all of them, once; the names of the tests that each failed."""
    options = ["-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore"]
    files = [
        str(FOLDER / f"broken_{name}.py") for name in ("adapters", "measures", "edits", "triggers")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTEST_ADDOPTS": ""},  # those of the run that this one is part of
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, set[str]] = defaultdict(set)
    for name, test in re.findall(r"^(?:FAILED|ERROR) \S+?::Test(\w+)::(\S+)", done.stdout, re.M):
        found[name].add(test)
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(failed: dict[str, set[str]], name: str) -> None:
    assert failed.get(name, set()) == set()


@pytest.mark.parametrize(("name", "test"), WRONG.items())
def test_what_is_wrong_fails_by_name(failed: dict[str, set[str]], name: str, test: str) -> None:
    assert any(one.startswith(test) for one in failed[name]), failed[name]
