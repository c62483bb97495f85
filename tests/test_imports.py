"""Who imports whom, read from the sources, and what starting up loads, seen from outside."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "iarmem_plugin"
ADAPTERS = ROOT / "adapters" / "iarmem_adapters"
METRICS = ROOT / "metrics" / "iarmem_metrics"
HEAVY = {"torch", "nnsight", "xarray", "zarr", "torchvision", "torch_fidelity", "matplotlib"}


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a source imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
    return found


def importers(package: str) -> set[str]:
    files = sources(CORE, ADAPTERS, METRICS)
    return {path.relative_to(ROOT).as_posix() for path in files if package in imports(path)}


def loaded_by(*arguments: str) -> set[str]:
    """Return the packages that a fresh interpreter has loaded after running `-c`."""
    shown = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", arguments[0] + shown, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def iarmem(arguments: str) -> str:
    """Return code that runs `iarmem` and goes on."""
    return f"from iarmem_plugin.cli import app\napp({arguments.split()!r}, standalone_mode=False)"


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("nnsight", "iarmem_plugin/models/tracing.py"),
        ("torch_fidelity", "iarmem_plugin/evaluation/quality.py"),
        ("zarr", "iarmem_plugin/store/store.py"),
    ],
)
def test_a_borrowed_library_is_imported_in_one_file(package: str, only: str) -> None:
    assert importers(package) == {only}


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        (CORE, {"iarmem_adapters", "iarmem_metrics"}),
        (ADAPTERS, {"iarmem_metrics"}),
        (METRICS, {"iarmem_adapters", "torch", "torchvision", "nnsight"}),
    ],
    ids=["core", "adapters", "metrics"],
)
def test_imports_go_in_one_direction(folder: Path, never: set[str]) -> None:
    wrong = {path.name: imports(path) & never for path in sources(folder)}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_every_module_postpones_its_annotations() -> None:
    first = "from __future__ import annotations"
    files = [path for path in sources(CORE, ADAPTERS, METRICS) if imports(path)]
    assert [str(path) for path in files if first not in path.read_text()] == []


def test_no_file_is_a_drawer_for_leftovers() -> None:
    drawers = {"utils", "helpers", "common", "misc", "base", "util"}
    assert [str(path) for path in sources(CORE, ADAPTERS, METRICS) if path.stem in drawers] == []


def test_source_folders_are_no_packages() -> None:
    assert not (ROOT / "adapters" / "__init__.py").exists()
    assert not (ROOT / "metrics" / "__init__.py").exists()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import iarmem_plugin") & HEAVY == set()


@pytest.mark.parametrize("arguments", ["--help", "--version", "localize --help"])
def test_help_and_version_load_no_plugin_and_nothing_heavy(arguments: str) -> None:
    never = HEAVY | {"numpy", "pluggy", "iarmem_adapters", "iarmem_metrics"}
    assert loaded_by(iarmem(arguments)) & never == set()


@pytest.mark.parametrize("arguments", ["plugins", "models"])
def test_our_plugins_cost_no_import_of_torch(arguments: str) -> None:
    loaded = loaded_by(iarmem(arguments))
    assert loaded & (HEAVY - {"xarray"}) == set()
    assert {"iarmem_adapters", "iarmem_metrics"} <= loaded


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_and_version_take_less_than_a_second_of_cpu_time(arguments: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "iarmem_plugin", arguments]
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
