"""Whose plugin it is: never said to be ours where it is not."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent

import pytest

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins import blame as blaming
from iarmem_plugin.plugins.blame import author, blame, blamed, distribution, versions

SOURCE = """
    from iarmem_plugin import Metric

    class Mine(Metric):
        name = "mine"
"""


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    blaming._distribution.cache_clear()
    blaming._packages.cache_clear()


def lay(folder: Path, module: str, *, info: str = "", entry_points: str = "") -> None:
    """Write a module, and the facts of a distribution that has it."""
    file = folder / f"{module.replace('.', '/')}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(dedent(SOURCE))
    if info:
        place = folder / f"{info.replace('-', '_')}-0.3.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info}\nVersion: 0.3\n")
        (place / "entry_points.txt").write_text(entry_points)
        (place / "RECORD").write_text("" if entry_points else f"{module.replace('.', '/')}.py,,\n")


@pytest.mark.parametrize(
    ("module", "info", "entry_points", "expected"),
    [
        ("{}_a", "", "", "module {}_a.py (no distribution)"),
        ("{}_b", "iarmem-mine", "", "iarmem-mine 0.3"),
        ("{}_c", "iarmem-mine", "[iarmem]\nmine = {}_c\n", "iarmem-mine 0.3"),  # as editable ones
        ("{}_d.metrics", "iarmem-mine", "[iarmem]\nx = {}_d.hooks:one\n", "iarmem-mine 0.3"),
    ],
)
def test_the_distribution_of_a_module(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    info: str,
    entry_points: str,
    expected: str,
) -> None:
    unique = f"mine_{tmp_path.name}"
    monkeypatch.syspath_prepend(tmp_path)
    lay(tmp_path, module.format(unique), info=info, entry_points=entry_points.format(unique))
    made = __import__(module.format(unique), fromlist=["Mine"]).Mine
    assert distribution(made) == expected.format(unique)
    assert author(made) == f"metric 'mine' of {expected.format(unique)}"


def test_a_package_whose_name_a_distribution_has_too_is_not_its(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unique, installed = f"mine_{tmp_path.name}", tmp_path / "installed"
    installed.mkdir()
    lay(installed, unique, info="iarmem-mine")
    (tmp_path / "here").mkdir()
    lay(tmp_path / "here", unique)
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(tmp_path / "here")
    made = __import__(unique).Mine
    assert distribution(made) == f"module {unique}.py (no distribution)"


def test_what_was_made_in_a_session_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made = type("Mine", (), {"__module__": "__main__"})
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    assert distribution(made) == "module __main__ (no distribution)"


def test_ours_are_of_iarmem() -> None:
    metric: Metric = plugins.find("metric", "unitmem")()
    assert distribution(type(metric)) == f"iarmem {version('iarmem')}"
    assert versions(metric) == {"iarmem": version("iarmem")}


def test_an_error_is_blamed_once_and_on_the_innermost() -> None:
    inner, outer = plugins.find("metric", "unitmem"), plugins.find("selector", "highest")
    with pytest.raises(KeyError) as raised, blamed(outer), blamed(inner):
        raise KeyError("x")
    assert raised.value.__notes__ == [f"in metric 'unitmem' of iarmem {version('iarmem')}"]
    assert blame(ValueError("x")) is None


def test_what_is_raised_on_purpose_is_left_as_it_is() -> None:
    with pytest.raises(InputError) as raised, blamed(plugins.find("metric", "unitmem")):
        raise InputError("no")
    assert blame(raised.value) is None
