"""Load plugins and look up what they provide, ours like anyone's."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal, cast, overload

import pluggy

from iarmem_plugin.errors import PluginError, UnknownNameError
from iarmem_plugin.interfaces import (
    ActivationIntervention,
    Adapter,
    AnyIntervention,
    Intervention,
    Metric,
    Quality,
    Selector,
    Similarity,
    Variant,
)
from iarmem_plugin.plugins import hookspecs
from iarmem_plugin.text import one_line, shown

DEFAULT_PLUGINS = (
    "iarmem_adapters.rar",
    "iarmem_adapters.var",
    "iarmem_metrics.unitmem",
    "iarmem_metrics.mean_activation",
    "iarmem_metrics.random_score",
    "iarmem_plugin.neurons.interventions",
    "iarmem_plugin.neurons.selectors",
    "iarmem_plugin.evaluation.similarity",
    "iarmem_plugin.evaluation.quality",
)
STRICT = "IARMEM_STRICT_PLUGINS"
LONGEST_NAME = 60

Kind = Literal["adapter", "metric", "intervention", "selector", "similarity", "quality"]

_HOOKS: dict[Kind, tuple[str, type[Any] | tuple[type[Any], ...]]] = {
    "adapter": ("provide_adapters", Adapter),
    "metric": ("provide_metrics", Metric),
    "intervention": ("provide_interventions", (Intervention, ActivationIntervention)),
    "selector": ("provide_selectors", Selector),
    "similarity": ("provide_similarities", Similarity),
    "quality": ("provide_qualities", Quality),
}
KINDS: tuple[Kind, ...] = tuple(_HOOKS)


class PluginWarning(UserWarning):
    """A plugin was skipped; the message names it and gives its error."""


class Manager(pluggy.PluginManager):
    """Pluggy's manager, with the plugins that were skipped.

    Attributes:
        problems: error of each skipped plugin, by its name.
        origins: distribution and module of each plugin, by its name.
    """

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.problems: dict[str, str] = {}
        self.origins: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Provided:
    """One class that a plugin provides.

    Attributes:
        kind: what the class is for.
        name: name that users choose it by.
        plugin: module or entry point that it comes from.
        value: class itself.
    """

    kind: Kind
    name: str
    plugin: str
    value: type[Any]


def make_manager(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Manager:
    """Load the default plugins, then those of other distributions, each on its own.

    A plugin that fails to import is skipped with a `PluginWarning`;
    with ``IARMEM_STRICT_PLUGINS=1`` in the environment it is an error.

    Args:
        entry_points: plugins of other distributions; by default the installed entry points of
            the group ``iarmem``.

    Returns:
        a manager with the plugins, and with the errors of those that were skipped.

    Raises:
        PluginError: a hook has a misspelt name, two plugins have one name, or, when strict, a
            plugin fails to import.
    """
    manager = Manager()
    manager.add_hookspecs(hookspecs)
    for name in DEFAULT_PLUGINS:
        _add(manager, metadata.EntryPoint(name, name, hookspecs.PROJECT))
    if entry_points is None:
        entry_points = metadata.entry_points(group=hookspecs.PROJECT)
    for entry_point in entry_points:
        _add(manager, entry_point)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = ", ".join(hook for hook, _ in _HOOKS.values())
        raise PluginError(f"{error}; the hooks are: {hooks}") from error
    return manager


def provided(kind: Kind, manager: Manager | None = None) -> list[Provided]:
    """Return what plugins provide of one kind, by name.

    Args:
        kind: kind of the classes.
        manager: manager of the plugins; by default the one with all that are installed.

    Raises:
        PluginError: a hook fails or provides something that is not a class of that kind, or two
            plugins provide one name.
    """
    manager = _installed() if manager is None else manager
    hook, base = _HOOKS[kind]
    found: dict[str, Provided] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        plugin = implementation.plugin_name
        where = f"plugin {plugin!r}: {hook}"
        for value in _classes(implementation.function, base, where):
            other = found.setdefault(value.name, Provided(kind, value.name, plugin, value))
            if other.value is not value or other.plugin != plugin:
                message = f"{kind} {value.name!r} comes from both {other.plugin!r} and {plugin!r}"
                raise PluginError(message)
    return [found[name] for name in sorted(found)]


def problems() -> dict[str, str]:
    """Return the installed plugins that were skipped, each with its error."""
    return dict(_installed().problems)


def names(kind: Kind) -> list[str]:
    """Return the names of what is installed of one kind, in their order.

    Args:
        kind: kind of the classes.

    Raises:
        PluginError: see `provided`.
    """
    return list(_lookup(kind))


def variants() -> dict[str, tuple[type[Adapter], Variant]]:
    """Return every model that an installed adapter can load, by name.

    Raises:
        PluginError: two adapters claim one name.
    """
    found: dict[str, tuple[type[Adapter], Variant]] = {}
    for adapter in _lookup("adapter").values():
        for name, variant in adapter.variants().items():
            if name in found:
                families = f"{found[name][0].name!r} and {adapter.name!r}"
                raise PluginError(f"model {name!r} comes from both adapters {families}")
            found[name] = (adapter, variant)
    return found


def families() -> dict[str, type[Adapter]]:
    """Return the adapters that load weights of any size, by name; a model's name goes first."""
    known = variants()
    return {
        name: adapter
        for name, adapter in _lookup("adapter").items()
        if adapter.infers_sizes and name not in known
    }


def num_classes(name: str) -> int | None:
    """Return how many classes a model has; None for a family, whose weights tell it.

    Args:
        name: name of a model or a family.

    Raises:
        UnknownNameError: no adapter knows it; the message lists what there is.
    """
    return None if name in families() else find_variant(name)[1].num_classes


def conditions(name: str) -> frozenset[str]:
    """Return what a model, or each of a family, must be told of an image; see `Adapter`.

    Raises:
        UnknownNameError: no adapter knows it; the message lists what there is.
    """
    return (families().get(name) or find_variant(name)[0]).conditions


@overload
def find(kind: Literal["adapter"], name: str) -> type[Adapter]: ...
@overload
def find(kind: Literal["metric"], name: str) -> type[Metric]: ...
@overload
def find(kind: Literal["intervention"], name: str) -> type[AnyIntervention]: ...
@overload
def find(kind: Literal["selector"], name: str) -> type[Selector]: ...
@overload
def find(kind: Literal["similarity"], name: str) -> type[Similarity]: ...
@overload
def find(kind: Literal["quality"], name: str) -> type[Quality]: ...
def find(kind: Kind, name: str) -> type[Any]:
    """Return the class of that name.

    Args:
        kind: kind of the class.
        name: name that users choose it by.

    Raises:
        UnknownNameError: no plugin provides it; the message lists what there is.
    """
    return cast(type[Any], _find(_lookup(kind), kind, name))


def find_variant(name: str) -> tuple[type[Adapter], Variant]:
    """Return a model's adapter and what is known about the model.

    Args:
        name: name of the model.

    Raises:
        UnknownNameError: no adapter knows it; the message lists what there is.
    """
    return cast(tuple[type[Adapter], Variant], _find(variants(), "model", name))


@cache
def _installed() -> Manager:
    return make_manager()


@cache
def _provided(kind: Kind) -> tuple[Provided, ...]:
    return tuple(provided(kind))


def _lookup(kind: Kind) -> dict[str, type[Any]]:
    return {one.name: one.value for one in _provided(kind)}


def _find(known: dict[str, Any], kind: str, name: str) -> Any:
    if name not in known:
        message = f"no {kind} named {name!r}; installed: {', '.join(sorted(known)) or 'none'}"
        raise UnknownNameError(message)
    return known[name]


def _add(manager: Manager, entry_point: metadata.EntryPoint) -> None:
    name = entry_point.name
    try:
        plugin = entry_point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's module may raise anything
        _skip(manager, name, error)
        return
    origin = _origin(entry_point)
    if other := manager.get_name(plugin) or (name if manager.has_plugin(name) else None):
        raise PluginError(
            f"plugin {name!r} is installed twice, as {other!r} from {manager.origins[other]} and "
            f"as {name!r} from {origin}; uninstall one of them"
        )
    manager.origins[name] = origin
    try:
        manager.register(plugin, name=name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {name!r}: {error}") from error


def _origin(entry_point: metadata.EntryPoint) -> str:
    module = shown(entry_point.value, 60)
    return module if entry_point.dist is None else f"{shown(entry_point.dist.name, 60)} ({module})"


def _skip(manager: Manager, name: str, error: BaseException) -> None:
    reason = one_line(f"{type(error).__name__}: {error}")
    if os.environ.get(STRICT) == "1":
        raise PluginError(f"plugin {name!r} cannot be imported: {reason}") from error
    manager.problems[name] = reason
    message = f"plugin {name!r} cannot be imported and is skipped: {reason}"
    warnings.warn(message, PluginWarning, stacklevel=2)


def _classes(
    hook: Callable[[], object], base: type | tuple[type, ...], where: str
) -> list[type[Any]]:
    try:
        value = hook()
        if isinstance(value, Iterable) and not isinstance(value, str):
            value = list(value)  # a generator fails here
    except (Exception, SystemExit) as error:  # a stranger's hook may raise anything
        raise PluginError(f"{where} failed with {type(error).__name__}: {error}") from error
    if not isinstance(value, list):
        raise PluginError(f"{where} returned {value!r}; expected a list of classes")
    return [_checked(one, base, where) for one in value]


def _checked(value: object, base: type | tuple[type, ...], where: str) -> type[Any]:
    names = [one.__name__ for one in (base if isinstance(base, tuple) else (base,))]
    expected = f"expected a subclass of iarmem_plugin.{' or '.join(names)}"
    if not (isinstance(value, type) and issubclass(value, base)):
        raise PluginError(f"{where} provides {value!r}; {expected}")
    missing = sorted(getattr(value, "__abstractmethods__", ()))
    if missing:
        raise PluginError(f"{where} provides {value.__name__}, which lacks {', '.join(missing)}")
    name = getattr(value, "name", None)
    if not isinstance(name, str):
        raise PluginError(f"{where} provides {value.__name__} without a name; set its `name`")
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or set(name) & set("/\\"):
        raise PluginError(
            f"{where} provides {value.__name__} with the name {shown(name, 60)!r}, which is to be "
            f"typed, and be part of a file's name: up to {LONGEST_NAME} signs, no slash"
        )
    return value
