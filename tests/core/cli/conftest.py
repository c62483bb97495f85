"""`iarmem` run as users run it, in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def draw_pictures(folder: Path) -> None:
    images = folder / "images" / "0"
    images.mkdir(parents=True)
    for shade in (60, 190):
        Image.new("RGB", (32, 32), (shade, 0, 255 - shade)).save(images / f"{shade}.png")


@pytest.fixture(scope="session")
def localize(iarmem: Run) -> Run:
    """Run `iarmem localize` on the `images` of a folder, with more options."""

    def run(folder: Path, *options: str | Path, model: str = "var-organism") -> Done:
        places = ("--images", folder / "images", "--out", folder / "out")
        return iarmem("localize", model, *places, *options)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder that holds ``images`` with two pictures of class 0."""
    draw_pictures(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, localize: Run) -> Path:
    """A folder that holds ``images`` and, in ``out``, scores of them."""
    folder = tmp_path_factory.mktemp("scored")
    draw_pictures(folder)
    done = localize(folder, "--views", "2")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def assert_plain_error() -> Callable[[Done, str], None]:
    """Check for code 2, nothing on stdout, one line on stderr that holds what is expected."""

    def check(done: Done, expected: str) -> None:
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("Error: ")
        assert expected in lines[0]

    return check
