"""Figures need no backend of matplotlib, and leave the one that the user named alone."""

from __future__ import annotations

import os
import subprocess
import sys

TASK = """
import os
from iarmem_plugin.report.figures import new_figure, png
assert png(new_figure(1, 1)).startswith(b"\\x89PNG")
import matplotlib
print(os.environ["MPLBACKEND"], matplotlib.rcParams._get_backend_or_none())
"""


def drawn(backend: str) -> str:
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", TASK], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_backend_that_cannot_be_imported_keeps_no_figure_from_being_drawn() -> None:
    jupyter = "module://a_module_that_is_not_there.backend_inline"
    assert drawn(jupyter).split()[0] == jupyter


def test_a_backend_that_is_there_is_the_one_that_the_user_has_afterwards() -> None:
    assert drawn("svg") == "svg svg"
