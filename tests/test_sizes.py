"""How large the rooms, files and functions may become, before a noun is missing."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
CORE = ROOT / "iarmem_plugin"
PACKAGES = (CORE, ROOT / "adapters" / "iarmem_adapters", ROOT / "metrics" / "iarmem_metrics")
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def length(*nodes: ast.stmt) -> int:
    return sum((node.end_lineno or 0) - node.lineno + 1 for node in nodes)


def body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """Return what a function does, without its docstring."""
    return function.body[ast.get_docstring(function) is not None :]


def test_no_room_of_the_core_has_more_than_fourteen_files() -> None:
    folders = (path.parent for path in SOURCES if path.is_relative_to(CORE))
    rooms = Counter(folder.relative_to(CORE).as_posix() for folder in folders)
    rooms.pop("cli")  # a file a command
    assert {room: count for room, count in rooms.items() if count > 14} == {}


def test_no_source_has_more_than_400_lines_and_no_test_more_than_500() -> None:
    assert [path.name for path in SOURCES if lines(path) > 400] == []
    assert [path.name for path in (ROOT / "tests").rglob("*.py") if lines(path) > 500] == []


def test_no_function_has_more_than_60_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{one.lineno} {one.name}: {length(one)}"
        for path in SOURCES
        for one in functions(path)
        if length(one) > 60  # signature and docstring included
    ]
    assert long == []


def test_half_of_all_functions_do_what_they_do_in_seven_lines() -> None:
    assert median(length(*body(one)) for path in SOURCES for one in functions(path)) <= 7
