"""Plugins on disk are found, checked and named; a broken one harms nobody else."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from shutil import copytree
from textwrap import dedent

import jaxtyping
import pytest

from iarmem_plugin import plugins
from iarmem_plugin.errors import PluginError, UnknownNameError

ACME = Path(__file__).parents[2] / "installed_plugin"


def run_iarmem(*arguments: str, folder: Path, strict: bool = False) -> dict[str, object]:
    """Run `iarmem` with a folder of installed distributions on the path; return its answer."""
    environment = {**os.environ, "PYTHONPATH": str(folder), plugins.STRICT: str(int(strict))}
    command = [sys.executable, "-m", "iarmem_plugin", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=folder
    )
    output = json.loads(done.stdout) if done.stdout else {}
    return {"rc": done.returncode, "stderr": done.stderr, **output}


def install(folder: Path, *, name: str, source: str) -> EntryPoint:
    """Lay a distribution with one module and one entry point into a folder."""
    module = f"{name}_plugin_{folder.name}"
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (folder / f"{module}.py").write_text(dedent(source))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[iarmem]\n{name} = {module}\n")
    return EntryPoint(name, module, "iarmem")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


ONE_METRIC = """
    from iarmem_plugin import hookimpl
    from iarmem_plugin.interfaces import Metric

    class Mine(Metric):
        name = "{name}"
        def update(self, activations): ...
        def state(self): ...
        def merge(self, state): ...
        def compute(self): ...

    @hookimpl
    def provide_metrics():
        return [Mine]
"""


def test_every_default_plugin_provides_something() -> None:
    manager = plugins.make_manager(entry_points=[])
    found = {one.plugin for kind in plugins.KINDS for one in plugins.provided(kind, manager)}
    assert found == set(plugins.DEFAULT_PLUGINS)


def test_a_plugin_on_disk_stands_beside_ours() -> None:
    listed = run_iarmem("plugins", "--json", folder=ACME)["plugins"]
    assert isinstance(listed, list)
    found = {(one["kind"], one["name"]): one["plugin"] for one in listed}
    assert found["metric", "acme-loudest"] == "acme"
    assert found["intervention", "acme-negate"] == "acme"
    assert found["metric", "unitmem"] == "iarmem_metrics.unitmem"


def test_a_broken_plugin_is_reported_by_name_and_skipped(tmp_path: Path) -> None:
    install(tmp_path, name="acme", source="import a_module_that_is_not_there\n")
    answer = run_iarmem("plugins", "--json", folder=tmp_path)
    assert answer["rc"] == 0
    assert "a_module_that_is_not_there" in answer["skipped"]["acme"]  # type: ignore[index]  # JSON
    assert "unitmem" in {one["name"] for one in answer["plugins"]}  # type: ignore[attr-defined]  # JSON


def test_a_broken_plugin_costs_other_commands_one_line(tmp_path: Path) -> None:
    install(tmp_path, name="acme", source="1 / 0\n")
    answer = run_iarmem("models", "--json", folder=tmp_path)
    reason = "cannot be imported and is skipped: ZeroDivisionError: division by zero"
    assert (answer["rc"], answer["stderr"]) == (0, f"Warning: plugin 'acme' {reason}\n")


def test_a_broken_plugin_is_fatal_when_strict(tmp_path: Path) -> None:
    install(tmp_path, name="acme", source="1 / 0\n")
    answer = run_iarmem("plugins", "--json", folder=tmp_path, strict=True)
    assert answer["rc"] == 2
    expected = "Error: plugin 'acme' cannot be imported: ZeroDivisionError: division by zero\n"
    assert answer["stderr"] == expected


def test_a_skipped_plugin_warns_whoever_uses_python(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(plugins.STRICT, raising=False)
    broken = install(folder, name="acme", source="1 / 0\n")
    with pytest.warns(plugins.PluginWarning, match="plugin 'acme' cannot be imported"):
        manager = plugins.make_manager(entry_points=[broken])
    assert manager.problems == {"acme": "ZeroDivisionError: division by zero"}


def test_a_plugin_that_exits_at_import_is_skipped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(plugins.STRICT, raising=False)
    broken = install(folder, name="acme", source="raise SystemExit('bye')\n")
    with pytest.warns(plugins.PluginWarning, match="plugin 'acme' cannot be imported"):
        manager = plugins.make_manager(entry_points=[broken])
    assert manager.problems == {"acme": "SystemExit: bye"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("yield 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
    ],
)
def test_a_hook_that_raises_is_named_with_its_plugin(folder: Path, body: str, reason: str) -> None:
    source = ONE_METRIC.format(name="mine").replace("return [Mine]", body)
    manager = plugins.make_manager(entry_points=[install(folder, name="acme", source=source)])
    message = f"plugin 'acme': provide_metrics failed with {reason}"
    with pytest.raises(PluginError, match=f"^{message}$"):
        plugins.provided("metric", manager)


def test_a_clash_names_both_sides(folder: Path) -> None:
    acme = install(folder, name="acme", source=ONE_METRIC.format(name="unitmem"))
    manager = plugins.make_manager(entry_points=[acme])
    message = "plugin 'acme': metric 'unitmem' comes from both 'iarmem_metrics.unitmem' and 'acme'"
    with pytest.raises(PluginError, match=f"^{message}$"):
        plugins.provided("metric", manager)


def test_a_misspelt_hook_fails_at_once(folder: Path) -> None:
    source = ONE_METRIC.format(name="mine").replace("provide_metrics", "provide_metric")
    acme = install(folder, name="acme", source=source)
    with pytest.raises(PluginError, match=r"provide_metric'?.*acme.*provide_metrics"):
        plugins.make_manager(entry_points=[acme])


def test_two_plugins_of_one_name_are_refused(folder: Path) -> None:
    acme = install(folder, name="acme", source=ONE_METRIC.format(name="mine"))
    with pytest.raises(PluginError, match="plugin 'acme' is installed twice"):
        plugins.make_manager(entry_points=[acme, acme])


def test_two_distributions_with_one_entry_point_are_named_in_one_plain_line(folder: Path) -> None:
    install(folder, name="acme", source=ONE_METRIC.format(name="mine"))
    copy = folder / "copy-1.0.dist-info"
    copytree(next(folder.glob("acme*.dist-info")), copy)
    (copy / "METADATA").write_text("Metadata-Version: 2.1\nName: copy\nVersion: 1.0\n")
    importlib.invalidate_caches()  # of a folder that changed within a tick of its clock
    found = [one for one in entry_points(group="iarmem") if one.name == "acme"]
    assert len(found) == 2
    jaxtyping.config.update("jaxtyping_disable", True)  # the backport, if loaded, has its own class
    try:
        with pytest.raises(PluginError) as refused:
            plugins.make_manager(entry_points=found)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    line = str(refused.value)
    assert line.startswith("plugin 'acme' is installed twice, as 'acme' from ")
    assert "from copy (" in line
    assert "from acme_plugin_" in line
    assert len(line) < 400


def test_one_module_under_two_names_is_named_in_one_plain_line(folder: Path) -> None:
    acme = install(folder, name="acme", source=ONE_METRIC.format(name="mine"))
    other = EntryPoint("other", acme.value, "iarmem")
    with pytest.raises(PluginError, match=r"twice, as 'acme' from .* and as 'other' from") as line:
        plugins.make_manager(entry_points=[acme, other])
    assert len(str(line.value)) < 400


def test_the_error_of_a_plugin_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugins.STRICT, raising=False)
    source = f"raise ImportError('it needs [/more]\\n' + {'x' * 9000!r})\n"
    broken = install(folder, name="acme", source=source)
    with pytest.warns(plugins.PluginWarning):
        (problem,) = plugins.make_manager(entry_points=[broken]).problems.values()
    assert problem.startswith("ImportError: it needs [/more] xxx")
    assert len(problem) == 400


@pytest.mark.parametrize("name", ["", "a/b", "..\\b", "a\nb", "x" * 61])
def test_a_name_that_could_not_be_typed_or_be_in_a_files_name_is_refused(
    folder: Path, name: str
) -> None:
    source = ONE_METRIC.format(name="mine").replace('"mine"', repr(name))
    manager = plugins.make_manager(entry_points=[install(folder, name="acme", source=source)])
    with pytest.raises(PluginError, match=r"provides Mine with the name .* no slash"):
        plugins.provided("metric", manager)


@pytest.mark.parametrize(
    ("provides", "message"),
    [
        ("[Mine()]", "provides .*expected a subclass of iarmem_plugin.Metric"),
        ("[dict]", "provides <class 'dict'>; expected a subclass of iarmem_plugin.Metric"),
        ("Mine", "returned .*expected a list of classes"),
        ("'Mine'", "returned 'Mine'; expected a list of classes"),
        (
            "[type('Half', (Metric,), {'name': 'half'})]",
            "provides Half, which lacks compute, merge, state, update",
        ),
        ("[type('Nameless', (Mine,), {'name': None})]", "provides Nameless without a name"),
    ],
)
def test_what_is_provided_is_checked(folder: Path, provides: str, message: str) -> None:
    source = ONE_METRIC.format(name="mine").replace("[Mine]", provides)
    manager = plugins.make_manager(entry_points=[install(folder, name="acme", source=source)])
    with pytest.raises(PluginError, match=f"^plugin 'acme': provide_metrics {message}"):
        plugins.provided("metric", manager)


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_an_unknown_name_lists_what_there_is(kind: plugins.Kind) -> None:
    names = ", ".join(one.name for one in plugins.provided(kind))
    with pytest.raises(UnknownNameError, match=f"^no {kind} named 'x'; installed: {names}$"):
        plugins.find(kind, "x")  # type: ignore[call-overload]  # one overload a kind


def test_every_model_is_found_under_its_own_name() -> None:
    names = {name: variant.name for name, (_, variant) in plugins.variants().items()}
    assert names == {name: name for name in names}


def test_changing_a_looked_up_table_changes_nothing_for_others() -> None:
    plugins.names("metric").clear()
    assert "unitmem" in plugins.names("metric")
