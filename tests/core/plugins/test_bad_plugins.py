"""Plugins as they should not be: what is wrong is named, and everything else works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
from PIL import Image

from iarmem_plugin import plugins
from iarmem_plugin.errors import PluginError, UnknownNameError
from iarmem_plugin.interfaces import Variant
from iarmem_plugin.plugins import loading, registry
from iarmem_plugin.testing.tiny import TinyAdapter

Install = Callable[..., EntryPoint]

METRIC = """
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


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay a distribution with one module and one entry point on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(plugins.STRICT, raising=False)

    def lay(name: str, source: str, entry_point: str | None = None) -> EntryPoint:
        module, entry = f"{name}_{tmp_path.name}", entry_point or name
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (tmp_path / f"{module}.py").write_text(dedent(source))
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: iarmem-{name}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[iarmem]\n{entry} = {module}\n")
        (found,) = metadata.Distribution.at(info).entry_points
        return found

    return lay


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[plugins.Manager], None]:
    """Make a manager the one with all that is installed."""

    def replace(manager: plugins.Manager) -> None:
        monkeypatch.setattr(registry, "_installed", lambda: manager)
        found = {kind: tuple(plugins.provided(kind, manager)) for kind in plugins.KINDS}
        monkeypatch.setattr(registry, "_provided", lambda kind: found[kind])

    return replace


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iarmem_plugin", *arguments]
    given = {**os.environ, "PYTHONPATH": str(folder), plugins.STRICT: "0", **environment}
    return subprocess.run(
        command, env=given, capture_output=True, text=True, check=False, cwd=folder
    )


def test_a_hook_that_raises_costs_only_what_it_provides(install: Install, tmp_path: Path) -> None:
    install("acme", METRIC.format(name="mine").replace("return [Mine]", "return 1 / 0"))
    done = run(tmp_path, "plugins", "--json")
    listed = json.loads(done.stdout)
    reason = "provide_metrics failed with ZeroDivisionError: division by zero"
    assert (done.returncode, listed["skipped"]) == (0, {"acme": reason})
    assert "unitmem" in {one["name"] for one in listed["plugins"]}
    other = run(tmp_path, "plugins", "unitmem")
    assert (other.returncode, other.stderr) == (0, "")


def test_a_class_that_is_no_metric_costs_only_itself(install: Install) -> None:
    source = METRIC.format(name="mine").replace("return [Mine]", "return [dict, Mine]")
    manager = plugins.make_manager(entry_points=[install("acme", source)])
    with pytest.warns(plugins.PluginWarning, match=r"plugin 'acme': provide_metrics provides <cla"):
        found = plugins.provided("metric", manager)
    assert "mine" in {one.name for one in found}
    assert list(manager.problems) == ["acme"]


def test_a_clash_is_an_error_only_where_that_name_is_asked_for(
    install: Install, use: Callable[[plugins.Manager], None]
) -> None:
    manager = plugins.make_manager(entry_points=[install("acme", METRIC.format(name="unitmem"))])
    with pytest.warns(plugins.PluginWarning, match="metric 'unitmem' comes from both"):
        use(manager)
    listed = [one.plugin for one in plugins.provided("metric", manager) if one.name == "unitmem"]
    assert listed == ["iarmem_metrics.unitmem", "acme"]
    assert plugins.find("metric", "random").name == "random"
    assert "unitmem" not in plugins.names("metric")
    message = r"metric 'unitmem' comes from both 'iarmem_metrics.unitmem' and 'acme'; leave one"
    with pytest.raises(PluginError, match=message):
        plugins.find("metric", "unitmem")


def test_two_distributions_with_one_entry_point_leave_the_rest_alone(install: Install) -> None:
    first = install("acme", METRIC.format(name="one"))
    second = install("other", METRIC.format(name="two"), entry_point="acme")
    with pytest.warns(plugins.PluginWarning, match=r"twice, as 'acme' from iarmem-acme .*iarmem-o"):
        manager = plugins.make_manager(entry_points=[first, second])
    assert {"one", "unitmem"} <= {one.name for one in plugins.provided("metric", manager)}


def test_a_misspelt_hook_costs_only_its_plugin(install: Install) -> None:
    source = METRIC.format(name="mine").replace("provide_metrics", "provide_metric")
    with pytest.warns(plugins.PluginWarning, match=r"provide_metric'.*the hooks are: provide_adap"):
        manager = plugins.make_manager(entry_points=[install("acme", source)])
    assert "unitmem" in {one.name for one in plugins.provided("metric", manager)}


@pytest.mark.parametrize("left_out", ["acme", "IARMEM_ACME", "acme_{folder}", "x, acme ,y"])
def test_a_plugin_can_be_left_out_by_any_of_its_names(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    entry_point = install("acme", "1 / 0\n")
    monkeypatch.setenv(plugins.DISABLED, left_out.format(folder=tmp_path.name))
    assert plugins.make_manager(entry_points=[entry_point]).problems == {}


def test_ours_can_be_left_out_where_another_takes_their_place(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.DISABLED, "iarmem_metrics.unitmem")
    manager = plugins.make_manager(entry_points=[install("acme", METRIC.format(name="unitmem"))])
    listed = [one.plugin for one in plugins.provided("metric", manager) if one.name == "unitmem"]
    assert listed == ["acme"]


def test_an_import_that_takes_seconds_is_said(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = install("acme", "import time\ntime.sleep(1.1)\n" + dedent(METRIC.format(name="mine")))
    with pytest.warns(plugins.PluginWarning, match=r"^plugin 'acme' took \d+\.\d s to import"):
        manager = plugins.make_manager(entry_points=[slow])
    assert manager.problems == {}


@pytest.mark.parametrize("first", [True, False])
def test_the_first_to_import_torch_may_take_the_seconds_that_it_takes(
    install: Install, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    plugin = install("acme", "import sys\nsys.modules['torch'] = sys.modules['kept_torch']\n")
    monkeypatch.setattr(loading, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(loading, "DEFAULT_PLUGINS", ())
    monkeypatch.setitem(sys.modules, "kept_torch", sys.modules["torch"])
    if first:
        monkeypatch.delitem(sys.modules, "torch")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugins.make_manager(entry_points=[plugin])
    assert any("took" in str(one.message) for one in caught) != first


class Raising(TinyAdapter):
    name = "raising"

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        raise KeyError("acme")

    @classmethod
    def matches(cls, model: object) -> bool:
        raise AttributeError("no such part")


class Nonsense(TinyAdapter):
    name = "nonsense"

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        return {"nonsense": "a variant"}  # type: ignore[dict-item]  # as it must not be


class Claiming(TinyAdapter):
    name = "claiming"

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        return {"var-organism": next(iter(super().variants().values()))}

    @classmethod
    def matches(cls, model: object) -> bool:
        return model == "mine"


def with_adapters(*adapters: type[TinyAdapter]) -> plugins.Manager:
    """Return a manager with ours and a plugin of some adapters."""
    manager, module = plugins.make_manager(entry_points=[]), ModuleType("acme")
    hook = plugins.hookspecs.hookimpl(lambda: list(adapters), specname="provide_adapters")
    module.provide_adapters = hook  # type: ignore[attr-defined]  # a module made here
    manager.register(module, name="acme")
    return manager


@pytest.mark.parametrize(
    ("adapter", "reason"),
    [
        (Raising, r"plugin 'acme': variants\(\) of adapter 'raising' failed with KeyError: 'acme'"),
        (Nonsense, r"adapter 'nonsense' failed with PluginError: returned {'nonsense': 'a variant"),
    ],
)
def test_an_adapter_whose_variants_are_of_no_use_is_skipped_and_named(
    adapter: type[TinyAdapter],
    reason: str,
    use: Callable[[plugins.Manager], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(plugins.STRICT, raising=False)
    use(with_adapters(adapter))
    with pytest.warns(plugins.PluginWarning, match=reason):
        assert "var-organism" in plugins.variants()
    assert plugins.find_variant("var-organism")[0].name == "var"  # and said once
    assert list(plugins.problems()) == ["acme"]
    monkeypatch.setenv(plugins.STRICT, "1")
    with pytest.raises(PluginError, match=reason):
        plugins.variants()


def test_an_adapter_that_cannot_tell_a_model_is_skipped_and_named(
    use: Callable[[plugins.Manager], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(plugins.STRICT, raising=False)
    use(with_adapters(Raising, Claiming))
    ours = [plugins.find("adapter", name) for name in ("var", "rar")]
    for one in ours:
        monkeypatch.setattr(one, "matches", lambda _: False)
    reason = re.escape("matches() of adapter 'raising' failed with AttributeError: no such part")
    monkeypatch.setattr(registry, "_lookup", lambda _: {"raising": Raising, "claiming": Claiming})
    with pytest.warns(plugins.PluginWarning, match=reason):
        assert plugins.recognising("mine") is Claiming


def test_an_object_that_two_adapters_recognise_is_refused_by_both_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twice = type("Twice", (Claiming,), {"name": "twice"})
    monkeypatch.setattr(registry, "_lookup", lambda _: {"claiming": Claiming, "twice": twice})
    message = "both adapter 'claiming' of .* and adapter 'twice' of .* take this str for a model"
    with pytest.raises(PluginError, match=message):
        plugins.recognising("mine")


@pytest.mark.parametrize(
    ("named", "said"), [({}, "iarmem.wrap(model, tokenizer)"), ({"mine-1": None}, "are: mine-1")]
)
def test_a_family_without_a_model_of_its_name_says_how_one_is_come_by(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, None], said: str
) -> None:
    known = {name: replace(TinyAdapter.variants()["tiny"], name=name) for name in named}
    mine = type("Mine", (TinyAdapter,), {"name": "mine", "variants": classmethod(lambda _: known)})
    monkeypatch.setattr(registry, "_lookup", lambda _: {"mine": mine})
    with pytest.raises(UnknownNameError, match=re.escape(said)):
        plugins.find_variant("mine")


def test_a_model_that_two_adapters_claim_is_refused_only_itself(
    use: Callable[[plugins.Manager], None],
) -> None:
    use(with_adapters(Claiming))
    assert "var-organism" not in plugins.variants()
    assert plugins.find_variant("rar-organism")[0].name == "rar"
    with pytest.raises(PluginError, match="'var-organism' comes from both adapters 'claiming' and"):
        plugins.find_variant("var-organism")


@pytest.mark.parametrize("level", ["warning", "debug"])
def test_a_metric_that_fails_ends_the_command_in_one_plain_line(
    install: Install, tmp_path: Path, level: str
) -> None:
    install("acme", METRIC.format(name="mine").replace("activations): ...", "given): given.lost"))
    for shade in (60, 190):
        place = tmp_path / "images" / "0" / f"{shade}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (shade, 0, 0)).save(place)
    places = ("--images", "images", "--out", "out", "--views", "1", "--metric", "mine")
    done = run(tmp_path, "--log-level", level, "localize", "var-organism", *places)
    assert done.returncode == 2
    *before, line = done.stderr.splitlines()
    message = "Error: metric 'mine' of iarmem-acme 1.0 failed with AttributeError: 'DataArray'"
    assert line.startswith(message)
    assert line.endswith("its traceback is shown with --log-level debug")
    assert ("Traceback (most recent call last):" in before) == (level == "debug")
    assert not list((tmp_path / "out").glob("scores*"))


def test_what_a_strangers_plugin_refuses_is_said_with_its_name(
    install: Install, tmp_path: Path
) -> None:
    raises = "given): raise __import__('iarmem_plugin').InputError('no')"
    install("acme", METRIC.format(name="mine").replace("activations): ...", raises))
    place = tmp_path / "images" / "0" / "1.png"
    place.parent.mkdir(parents=True)
    Image.new("RGB", (32, 32), (60, 0, 0)).save(place)
    places = ("--images", "images", "--out", "out", "--views", "1", "--metric", "mine")
    done = run(tmp_path, "localize", "var-organism", *places)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "Error: metric 'mine' of iarmem-acme 1.0: no"
