"""What others wrote is shown by `iarmem_plugin.text` alone; this finds what goes round it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "iarmem_plugin"
PACKAGES = (CORE, ROOT / "adapters" / "iarmem_adapters", ROOT / "metrics" / "iarmem_metrics")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for package in PACKAGES
    for path in sorted(package.rglob("*.py"))
}

TABLE, CONSOLE, PROGRESS = "table.py", "cli/console.py", "progress.py"
FIGURES, PAGE, TEXT = "report/figures.py", "report/page.py", "text.py"
HOMES = {  # calls that read markup, or show what they are given; and who may make them
    "Table": {TABLE},
    "add_row": {TABLE},
    "add_column": {TABLE},
    "Text": {TABLE, TEXT},
    "from_markup": {CONSOLE},
    "add_task": {PROGRESS},
    "TextColumn": set(),
    "SpinnerColumn": set(),
    "Panel": set(),
    "track": set(),
    "rule": set(),
    "render_str": set(),
    "print": {TABLE, CONSOLE, PROGRESS},
    "print_json": set(),
    "secho": set(),
    "legend": {FIGURES},  # where `keep_plain` is
    "Markup": {PAGE},
}
WRITING = {  # calls of matplotlib that read dollar signs as mathematics
    *("set_title", "suptitle", "supxlabel", "supylabel", "text", "figtext", "annotate"),
    *("set_xlabel", "set_ylabel", "set_label", "set_xticks", "set_yticks"),
    *("set_xticklabels", "set_yticklabels", "clabel", "bar_label"),
}
DRAWING = {"plot", "errorbar", "bar", "barh", "scatter", "stairs", "hist", "step", "fill_between"}
TICKS = {"set_xticks", "set_yticks"}
HELPERS = {"shown", "one_line", "rich_text", "dumps"}


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def ours(node: ast.AST) -> bool:
    """Tell whether a text is our own, or went through a helper."""
    return constant(node) or (isinstance(node, ast.Call) and name_of(node) in HELPERS)


def plain(call: ast.Call) -> bool:
    """Tell whether matplotlib is given no foreign text, or told not to read it."""
    flag = keyword(call, "parse_math")
    if isinstance(flag, ast.Constant) and flag.value is False:
        return True
    if name_of(call) in TICKS and len(call.args) == 1 and not isinstance(call.args[0], ast.Starred):
        return keyword(call, "labels") is None
    return any(constant(argument) for argument in call.args)


def wrong(call: ast.Call, place: str) -> bool:
    name = name_of(call)
    if name in HOMES:
        return place not in HOMES[name]
    if name in {"echo", "status"} and place != CONSOLE:
        return not all(map(ours, call.args))
    if name in DRAWING and keyword(call, "label") is not None:
        return True
    return name in WRITING and not plain(call)


def goes_round(source: str, place: str = "somewhere.py") -> Iterator[str]:
    """Yield the calls of a module that show text without the helper."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and wrong(node, place.removeprefix("iarmem_plugin/")):
            yield f"{place}:{node.lineno} {name_of(node)}"


def test_no_source_shows_text_without_the_helper() -> None:
    assert [one for place, source in SOURCES.items() for one in goes_round(source, place)] == []


@pytest.mark.parametrize(
    "source",
    [
        "Table(title=store.name)",
        "table.add_row(name)",
        "table.add_column(name)",
        "console.print(name)",
        "print(name)",
        "progress.add_task(name)",
        "TextColumn('{task.description}')",
        "track(work, name)",
        "Text(name)",
        "typer.echo(f'{out}: 3 images', err=True)",
        "typer.echo(path)",
        "typer.secho('x')",
        "console.status(f'reading {name}')",
        "axes.set_title(name)",
        "axes.set_title(name, parse_math=True)",
        "figure.suptitle(f'block {name}')",
        "axes.text(0, 1, name)",
        "axes.annotate(name, (0, 1))",
        "axes.set_xlabel(metric)",
        "bar.set_label(metric)",
        "axes.set_xticks(places, names)",
        "axes.set_yticks(*named)",
        "axes.set_xticks(places, labels=names)",
        "axes.plot(x, y, label=name)",
        "axes.legend()",
        "Markup(name)",
    ],
)
def test_what_goes_round_the_helper_is_found(source: str) -> None:
    assert len(list(goes_round(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "typer.echo('done')",
        "typer.echo(one_line(error), err=True)",
        "typer.echo(json.dumps(found))",
        "axes.set_xlabel('block')",
        "axes.set_xlabel(metric, parse_math=False)",
        "axes.set_xticks([0, 1])",
        "axes.plot(x, y)",
    ],
)
def test_what_goes_through_the_helper_is_let_be(source: str) -> None:
    assert list(goes_round(source)) == []


def test_no_template_takes_text_for_markup() -> None:
    texts = "".join(template.read_text() for template in CORE.rglob("*.j2"))
    assert re.findall(r"\|\s*safe\b|autoescape|Markup", texts) == []
