"""The docs cannot drift: commands, code, names and links are what they say."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo
from typer.main import get_command

import iarmem_plugin
from iarmem_plugin import Plan
from iarmem_plugin.cli.main import app
from iarmem_plugin.jobs.plan.parts.measures import DecodingPart
from iarmem_plugin.jobs.plan.parts.table import Part
from iarmem_plugin.jobs.plan.presets import presets
from iarmem_plugin.plugins import hookspecs

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "adapters/*.md", "metrics/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def run(code: str, folder: Path) -> None:
    """Run code from a file, as nnsight reads the source of what it traces."""
    script = folder / "example.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


def imported_for_type_checkers() -> set[str]:
    tree = ast.parse((ROOT / "iarmem_plugin" / "__init__.py").read_text())
    guards = [node for node in tree.body if isinstance(node, ast.If)]
    (guarded,) = [node for node in guards if isinstance(node.test, ast.Name)]  # not its opposite
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    declared = [node.target for node in guarded.body if isinstance(node, ast.AnnAssign)]
    names = {name.name for node in imports for name in node.names}
    return names | {target.id for target in declared if isinstance(target, ast.Name)}


@pytest.mark.parametrize(
    "command",
    [
        "pip install -c constraints.txt -e . && iarmem demo",
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ],
)
def test_the_readme_gives_each_of_its_two_commands_once(command: str) -> None:
    assert (ROOT / "README.md").read_text().splitlines().count(command) == 1


def test_the_readme_example_runs(tmp_path: Path) -> None:
    (example,) = blocks("README.md", "python")
    run(example, tmp_path)
    report = json.loads((tmp_path / "iarmem-report" / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == ["original", "highest UnitMem", "random"]


def test_the_plugin_example_runs_and_passes_its_tests(tmp_path: Path) -> None:
    run("\n".join(blocks("docs/plugins.md", "python")), tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "example.py"]
    # the options of this run, such as a bound on coverage, are not that one's
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("block", blocks("docs/adapters.md", "python"), ids=lambda one: one[:30])
def test_the_code_of_adapters_is_that_of_files_which_tests_run(block: str) -> None:
    files = (
        "examples/imagegpt_adapter.py",
        "tests/core/models/janus_adapter.py",
        "tests/core/models/labelled_adapter.py",
        "iarmem_plugin/testing/tiny.py",
    )
    texts = [(ROOT / file).read_text() for file in files]
    assert any(block in text or indent(block, "    ") in text for text in texts)


def test_every_command_in_the_readme_exists() -> None:
    used = set(re.findall(r"^iarmem (\w+)", "\n".join(blocks("README.md", "sh")), re.MULTILINE))
    command = [sys.executable, "-m", "iarmem_plugin", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert used
    assert [name for name in used if f" {name} " not in shown] == []


def test_the_commands_that_reproduce_the_paper_are_ones() -> None:
    """Every option is the command's, every key of a plan is one, and every model is there."""
    group: Any = get_command(app)
    text = "\n".join(blocks("docs/reproducing.md", "sh")).replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line]
    assert {line[1] for line in lines} == {"fetch", "localize", "rank", "compare", "features"}
    for program, command, *words in lines:
        assert program == "iarmem"
        known = {option for one in group.commands[command].params for option in one.opts}
        assert [word for word in words if word.startswith("--") and word not in known] == []
        assert set(words) & {"var-d30", "plan.toml"}
        for given in (word for before, word in pairwise(words) if before == "--set"):
            table, _, key = given.partition("=")[0].rpartition(".")
            part = plan_tables()[f"[[{table[:-2]}]]" if table.endswith(".0") else f"[{table}]"]
            assert key.replace("-", "_") in part.model_fields


@pytest.mark.parametrize("name", sorted(iarmem_plugin.__all__))
def test_every_public_name_is_documented_and_typed(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "index.md").read_text()
    typed = (ROOT / "tests" / "typing").glob("*.py")
    assert any(re.search(rf"\b{name}\b", file.read_text()) for file in typed)


@pytest.mark.parametrize("name", sorted(set(iarmem_plugin.__all__) - {"__version__"}))
def test_every_public_name_explains_itself(name: str) -> None:
    assert getattr(iarmem_plugin, name).__doc__


def plan_tables() -> dict[str, type[Part]]:
    """Return the tables of a plan by the heads that they have in the docs."""
    fields = Plan.model_fields
    one = {"model", "pictures", "attack", "quality"}
    listed = {"grid", "arm", "drop"}
    kinds = {name: fields[name].annotation for name in (*one, *listed)}
    named: dict[str, Any] = {"the plan itself": Plan, "[attack] decoding": DecodingPart}
    named |= {f"[{name}]": kinds[name] for name in one}
    return named | {f"[[{name}]]": get_args(kinds[name])[0] for name in listed}


def plan_row(name: str, field: FieldInfo) -> str:
    """Return a key's line of a table in docs/plan.md."""
    key, default = f"`{name.replace('_', '-')}`", field.get_default(call_default_factory=True)
    if field.is_required():
        said = "required"
    elif isinstance(default, Part) or default in (None, (), {}):
        said = "–"
    else:
        said = f"`{json.dumps(default)}`"
    return f"| {key} | {said} | {field.description} |"


@pytest.mark.parametrize("table", sorted(plan_tables()))
def test_every_key_of_a_plan_is_in_its_table(table: str) -> None:
    page = (ROOT / "docs" / "plan.md").read_text()
    title = "### The plan itself" if table == "the plan itself" else f"### `{table}`"
    _, found, rest = page.partition(f"{title}\n")
    assert found
    fields = plan_tables()[table].model_fields
    rows = [line for line in rest.partition("\n#")[0].splitlines() if line.startswith("| `")]
    assert rows == [plan_row(*one) for one in fields.items()]


def test_the_example_of_a_plan_is_one(tmp_path: Path) -> None:
    (example,) = blocks("docs/plan.md", "toml")
    for place in re.findall(r'= "([a-z-]+)" *# path', example):
        (tmp_path / place).mkdir()
    (tmp_path / "plan.toml").write_text(example)
    plan = iarmem_plugin.read_plan(tmp_path / "plan.toml")
    counted = Counter(arm.role for arm in plan.arms())
    said = f"{counted['treatment']} treatments and {counted['control']} controls"
    assert said in (ROOT / "docs" / "plan.md").read_text()


def test_every_preset_is_named_with_the_plan() -> None:
    page = (ROOT / "docs" / "plan.md").read_text()
    assert [name for name in presets() if f"| `{name}` |" not in page] == []


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    assert imported_for_type_checkers() == set(iarmem_plugin.__all__)
    assert set(iarmem_plugin.__all__) <= set(dir(iarmem_plugin))


def test_no_public_function_shares_its_name_with_a_room() -> None:
    rooms = {path.stem for path in (ROOT / "iarmem_plugin").iterdir() if path.stem != "__init__"}
    assert rooms & set(iarmem_plugin.__all__) == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recall'"):
        iarmem_plugin.recall  # type: ignore[attr-defined]  # noqa: B018  # that is the test


def hooks() -> Iterable[str]:
    return [name for name in vars(hookspecs) if name.startswith("provide_")]


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_documented(hook: str) -> None:
    assert f"`{hook}`" in (ROOT / "docs" / "plugins.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == iarmem_plugin.__version__


def test_the_report_schema_is_a_schema() -> None:
    import jsonschema

    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    jsonschema.validators.validator_for(schema).check_schema(schema)
