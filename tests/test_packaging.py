"""The wheel holds what it should, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("iarmem_plugin", "iarmem_adapters", "iarmem_metrics")
EXACT = re.compile(r"==[^,+*]+")  # no local suffix, so that each build of it will do
LARGEST = 16 * 1024**2  # bytes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_three_packages_and_its_metadata(contents: list[str]) -> None:
    tops = {name.partition("/")[0] for name in contents}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert len(tops) == len(PACKAGES) + 1


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_the_wheel_carries_its_licence_and_notice(contents: list[str], name: str) -> None:
    assert [one for one in contents if one.endswith(f".dist-info/licenses/{name}")] != []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(contents: list[str], package: str) -> None:
    assert f"{package}/py.typed" in contents


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [
        ("iarmem_adapters/organisms/", ".safetensors"),
        ("iarmem_adapters/organisms/", ".npz"),
        ("iarmem_plugin/report/templates/", ".html.j2"),
        ("iarmem_plugin/jobs/plan/presets/", ".toml"),
    ],
)
def test_the_wheel_carries_its_data(contents: list[str], folder: str, suffix: str) -> None:
    assert [one for one in contents if one.startswith(folder) and one.endswith(suffix)] != []


def test_every_source_in_the_checkout_is_in_the_wheel(contents: list[str]) -> None:
    roots = {"iarmem_plugin": ROOT, "iarmem_adapters": ROOT / "adapters"}
    roots["iarmem_metrics"] = ROOT / "metrics"
    expected = {
        path.relative_to(root).as_posix()
        for package, root in roots.items()
        for path in (root / package).rglob("*.py")
    }
    assert {one for one in contents if one.endswith(".py")} == expected


def test_the_wheel_carries_no_leftovers(contents: list[str]) -> None:
    assert [one for one in contents if "__pycache__" in one or "/tests/" in one] == []


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST


def test_the_wheel_offers_the_command(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (points,) = [one for one in archive.namelist() if one.endswith("entry_points.txt")]
        assert "iarmem = iarmem_plugin.cli:app" in archive.read(points).decode()


def pins(python: str) -> dict[str, SpecifierSet]:
    """Return what `constraints.txt` asks for on a Python, by package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    asked = [Requirement(line) for line in lines if not line.startswith("#")]
    here = [one for one in asked if not one.marker or one.marker.evaluate(environment(python))]
    found = {canonicalize_name(one.name): one.specifier for one in here}
    assert len(found) == len(here)  # each once
    return found


def environment(python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.0"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_constraints_pin_every_dependency_exactly(python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    others = [one for name, extra in extras.items() if name != "dev" for one in extra]
    wanted = [*project["dependencies"], *(one for one in others if not one.startswith("iarmem["))]
    names = {canonicalize_name(Requirement(one).name) for one in wanted}
    found = pins(python)
    assert names - found.keys() == set()
    assert [str(one) for one in found.values() if not EXACT.fullmatch(str(one))] == []


def test_python_3_11_keeps_the_last_zarr_that_runs_there() -> None:
    found = {python: str(pins(python)["zarr"]) for python in ("3.11", "3.12", "3.13")}
    assert found == {"3.11": "==3.1.6", "3.12": "==3.4.2", "3.13": "==3.4.2"}
