"""Whose plugin it is: the distribution that it comes from, and the errors that it raises."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from iarmem_plugin.errors import (
    EndedBySignal,
    IarmemError,
    InputError,
    NonFiniteSimilarityError,
    PluginError,
)
from iarmem_plugin.interfaces import Plugin
from iarmem_plugin.text import shown

OURS = {"iarmem_plugin", "iarmem_adapters", "iarmem_metrics"}


class Note(str):
    """A note on an exception that names the plugin which raised it."""

    __slots__ = ()


@contextmanager
def blamed(plugin: Plugin | type[Plugin]) -> Iterator[None]:
    """Add a note to whatever a plugin raises: "in metric 'gini' of iarmem-mine 0.1.0".

    What iarmem raises on purpose says enough; an `InputError` of a stranger's plugin may not.

    Args:
        plugin: what is called inside, or its class.

    Raises:
        PluginError: the plugin would end Python.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error, EndedBySignal) or _is_ours(plugin):
            raise
        raise PluginError(f"{author(plugin)} would end Python, by SystemExit: {error}") from error
    except Exception as error:
        if blame(error) is None and not _says_enough(plugin, error):
            error.add_note(Note(f"in {author(plugin)}"))
        raise


@contextmanager
def blamed_if_not_finite(plugin: Plugin) -> Iterator[None]:
    """Add the note of `blamed` where numbers that a stranger's plugin made are not finite.

    Args:
        plugin: adapter of the model that is used inside.
    """
    try:
        yield
    except NonFiniteSimilarityError as error:
        if blame(error) is None and not _is_ours(plugin):
            error.add_note(Note(f"in {author(plugin)}"))
        raise


def _says_enough(plugin: Plugin | type[Plugin], error: Exception) -> bool:
    return isinstance(error, IarmemError) and (
        _is_ours(plugin) or not isinstance(error, InputError)
    )


def _is_ours(plugin: Plugin | type[Plugin]) -> bool:
    made_by = plugin if isinstance(plugin, type) else type(plugin)
    return made_by.__module__.partition(".")[0] in OURS


def blame(error: BaseException) -> str | None:
    """Return the note of `blamed` on an exception; None if no plugin raised it."""
    notes: list[str] = getattr(error, "__notes__", [])
    return next((note for note in notes if isinstance(note, Note)), None)


def author(plugin: Plugin | type[Plugin]) -> str:
    """Return a plugin with its distribution, such as ``"metric 'gini' of iarmem-mine 0.1.0"``."""
    made_by = plugin if isinstance(plugin, type) else type(plugin)
    name = shown(plugin.name, 80)
    return f"{plugin.kind} {name!r} of {distribution(made_by)}"


def described(plugin: Plugin) -> dict[str, Any]:
    """Return what identifies a plugin's results: kind, name, parameters and distribution."""
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "parameters": dict(plugin.parameters),
        "distribution": distribution(type(plugin)),
    }


def versions(*plugins: Plugin) -> dict[str, str]:
    """Return the version of each distribution that plugins come from, by its name."""
    found = [_distribution(type(plugin).__module__) for plugin in plugins]
    return dict(one for one in found if one is not None)


def distribution(plugin: type) -> str:
    """Return name and version of the distribution that a class is part of, or what else it is.

    Returns:
        such as ``"iarmem 0.1.0"``, or ``"module mine.py (no distribution)"``.
    """
    found = _distribution(plugin.__module__)
    return _outside(plugin.__module__) if found is None else " ".join(found)


@cache
def _distribution(module: str) -> tuple[str, str] | None:
    """Return name and version of the distribution of a module; None where there is none."""
    package = module.partition(".")[0]
    if package in OURS:
        return "iarmem", metadata.version("iarmem")
    for one in metadata.entry_points(group="iarmem"):  # an editable install lists no files
        if one.dist is not None and one.module.partition(".")[0] == package:
            return one.dist.name, one.dist.version
    held = (name for name in _packages().get(package, ()) if _holds(name, module))
    return next(((name, metadata.version(name)) for name in held), None)


def _holds(name: str, module: str) -> bool:
    """Tell whether a module lies where a distribution lies: others may have its package, too."""
    file = getattr(sys.modules.get(module), "__file__", None)
    root = Path(str(metadata.distribution(name).locate_file(""))).resolve()
    return file is not None and Path(file).resolve().is_relative_to(root)


@cache
def _packages() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _outside(module: str) -> str:
    place = getattr(sys.modules.get(module), "__file__", None)
    if place is None or Path(place).name == "__init__.py":
        what = f"{'module' if place is None else 'package'} {shown(module, 80)}"
    else:
        what = f"module {shown(Path(place).name, 80)}"
    return f"{what} (no distribution)"
