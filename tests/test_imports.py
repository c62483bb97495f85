"""Who imports whom, read from the sources, and what starting up loads, seen from outside."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "iarmem_plugin"
ADAPTERS = ROOT / "adapters" / "iarmem_adapters"
METRICS = ROOT / "metrics" / "iarmem_metrics"
EVERYTHING = (CORE, ADAPTERS, METRICS)
HEAVY = {"torch", "nnsight", "xarray", "zarr", "torchvision", "torch_fidelity", "matplotlib"}

# Each room imports itself and what stands below it, and nothing else. Ground files are rooms, too.
ROOMS = (
    {"__main__"},
    {"cli"},
    {"jobs"},
    {"report"},
    {"store"},
    {"evaluation"},
    {"activations", "testing"},
    {"models"},
    {"neurons"},
    {"plugins"},
    {"interfaces"},
    {"data"},
    {"stages"},
    {"files"},
    {"disk"},
    {"untrusted"},
    {"table"},
    {"progress"},
    {"checks"},
    {"text"},
    {"fingerprint"},
    {"borrowing"},
    {"typing"},
    {"errors"},
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
DOORS = {  # libraries, and the only place that may import each
    "nnsight": "iarmem_plugin/models/tracing.py",
    "torch_fidelity": "iarmem_plugin/evaluation/quality.py",
    "transformers": "iarmem_plugin/evaluation/dinov2.py",
    "onnxruntime": "iarmem_plugin/evaluation/networks/onnx.py",
    "zarr": "iarmem_plugin/store/",
    "matplotlib": "iarmem_plugin/report/",
    "typer": "iarmem_plugin/cli/",
    "pydantic": "iarmem_plugin/jobs/plan/",
    "tomlkit": "iarmem_plugin/jobs/plan/",
}


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the module of a source, such as ``iarmem_plugin.store.lock``."""
    root = next(folder for folder in EVERYTHING if path.is_relative_to(folder)).parent
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sources(*EVERYTHING)}


def named(module: str, node: ast.AST) -> set[str]:
    """Return the modules that an import statement names, in full."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    package = module if MODULES[module].stem == "__init__" else module.rpartition(".")[0]
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*above, *([node.module] if node.module else [])])
    inside = {f"{source}.{alias.name}" for alias in node.names} & MODULES.keys()
    rest = {alias.name for alias in node.names if f"{source}.{alias.name}" not in MODULES}
    return inside | ({source} if rest else set())


def imports(module: str) -> set[str]:
    """Return what a module imports, also inside functions and for type checkers alone."""
    tree = ast.parse(MODULES[module].read_text())
    return {name for node in ast.walk(tree) for name in named(module, node)}


def packages(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)}


def room_of(module: str) -> str:
    return module.split(".")[1]


def upward(module: str, imported: str) -> bool:
    """Tell whether a module of the core imports another room that is not below its own."""
    if "." not in imported:  # the package itself, whose public names stand above all rooms
        return True
    mine, other = room_of(module), room_of(imported)
    return mine != other and LEVEL[other] <= LEVEL[mine]


def core_imports() -> list[tuple[str, str]]:
    core = [module for module in MODULES if module.startswith("iarmem_plugin.")]
    return [(one, other) for one in core for other in imports(one) if other in MODULES]


def loaded_by(*arguments: str) -> set[str]:
    """Return the packages that a fresh interpreter has loaded after running `-c`."""
    shown = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", arguments[0] + shown, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def iarmem(arguments: str) -> str:
    """Return code that runs `iarmem` and goes on."""
    return f"from iarmem_plugin.cli import app\napp({arguments.split()!r}, standalone_mode=False)"


def test_every_part_of_the_core_has_its_place_among_the_rooms() -> None:
    found = {room_of(module) for module in MODULES if module.startswith("iarmem_plugin.")}
    assert found == LEVEL.keys()


def test_each_room_imports_only_rooms_below_it() -> None:
    assert [f"{one} -> {other}" for one, other in core_imports() if upward(one, other)] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({one: imports(one) & MODULES.keys() for one in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("library", DOORS)
def test_a_borrowed_library_comes_in_by_its_own_door(library: str) -> None:
    found = [one for one in MODULES if library in packages(one)]
    importers = [MODULES[one].relative_to(ROOT).as_posix() for one in found]
    assert importers
    assert [one for one in importers if not one.startswith(DOORS[library])] == []


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
    modules = [one for one, path in MODULES.items() if path.is_relative_to(folder)]
    wrong = {module: packages(module) & never for module in modules}
    assert {module: found for module, found in wrong.items() if found} == {}


def test_every_module_postpones_its_annotations() -> None:
    first = "from __future__ import annotations"
    files = [path for module, path in MODULES.items() if imports(module)]
    assert [str(path) for path in files if first not in path.read_text()] == []


def test_no_file_is_a_drawer_for_leftovers() -> None:
    drawers = {"utils", "helpers", "common", "misc", "base", "util"}
    assert [str(path) for path in sources(*EVERYTHING) if path.stem in drawers] == []


def test_the_tests_of_the_core_know_no_model_family() -> None:
    tests = sources(ROOT / "tests" / "core")
    families = re.compile(r"^\s*(from|import) iarmem_adapters(?! import organisms$)", re.MULTILINE)
    assert [path.name for path in tests if families.search(path.read_text())] == []


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


def test_a_plan_is_checked_without_torch() -> None:
    document = {"model": {"name": "var-organism"}, "pictures": {"organism": True}, "grid": [{}]}
    code = f"from iarmem_plugin import Plan\nPlan.from_document({document})"
    assert loaded_by(code) & (HEAVY - {"xarray"}) == set()


@pytest.mark.parametrize("family", ["var", "rar"])
def test_a_familys_package_gives_its_networks_and_loads_torch_for_them_alone(family: str) -> None:
    package = f"iarmem_adapters.{family}"
    assert "torch" not in loaded_by(f"import {package}")
    module = import_module(package)
    named = [getattr(module, name) for name in module.__all__]
    assert [one.__name__ for one in named] == module.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Sizes'"):
        module.Sizes  # noqa: B018  # that is the test


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_and_version_take_less_than_a_second_of_cpu_time(arguments: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "iarmem_plugin", arguments]
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
