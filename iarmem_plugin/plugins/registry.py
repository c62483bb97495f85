"""Look up what plugins provide, ours like anyone's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast, overload

from iarmem_plugin.errors import EndedBySignal, PluginError, UnknownNameError
from iarmem_plugin.interfaces import (
    ActivationIntervention,
    Adapter,
    AnyIntervention,
    AnyQuality,
    AnyTrigger,
    ImageScorer,
    Intervention,
    LossQuality,
    Metric,
    ModelEdit,
    ModelTrigger,
    Quality,
    Selector,
    Similarity,
    Trigger,
    Variant,
)
from iarmem_plugin.plugins.blame import author
from iarmem_plugin.plugins.loading import Manager, make_manager
from iarmem_plugin.text import shown

LONGEST_NAME = 60

Kind = Literal[
    "adapter",
    "metric",
    "scorer",
    "intervention",
    "selector",
    "similarity",
    "quality",
    "edit",
    "trigger",
]

_HOOKS: dict[Kind, tuple[str, tuple[type[Any], ...]]] = {
    "adapter": ("provide_adapters", (Adapter,)),
    "metric": ("provide_metrics", (Metric,)),
    "scorer": ("provide_scorers", (ImageScorer,)),
    "intervention": ("provide_interventions", (Intervention, ActivationIntervention)),
    "selector": ("provide_selectors", (Selector,)),
    "similarity": ("provide_similarities", (Similarity,)),
    "quality": ("provide_qualities", (Quality, LossQuality)),
    "edit": ("provide_edits", (ModelEdit,)),
    "trigger": ("provide_triggers", (Trigger, ModelTrigger)),
}
KINDS: tuple[Kind, ...] = tuple(_HOOKS)


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


def provided(kind: Kind, manager: Manager | None = None) -> list[Provided]:
    """Return what plugins provide of one kind, by name.

    A hook that fails is skipped with a `PluginWarning`, and so is a class of another kind; a name
    that two plugins provide is there twice.

    Args:
        kind: kind of the classes.
        manager: manager of the plugins; by default the one with all that are installed.

    Raises:
        PluginError: when strict (``IARMEM_STRICT_PLUGINS=1``), a hook fails or provides something
            that is not a class of that kind, or two plugins provide one name.
    """
    manager = _installed() if manager is None else manager
    hook, bases = _HOOKS[kind]
    found: list[Provided] = []
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        plugin = implementation.plugin_name
        for value in _classes(manager, plugin, implementation.function, hook):
            if (wrong := _wrong(value, bases)) is not None:
                manager.skip(plugin, f": {hook} {wrong}")
                continue
            one = Provided(kind, value.name, plugin, value)
            if one in found:
                continue
            if (clash := _clash([*found, one], value.name)) is not None:
                manager.skip(plugin, f": {clash}")
            found.append(one)
    return sorted(found, key=lambda one: one.name)


def problems() -> dict[str, str]:
    """Return what is wrong with installed plugins that were skipped, or a part of them was."""
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
    """Return every model that an installed adapter can load, by name; none that two claim."""
    return {name: found[0] for name, found in _claimed().items() if len(found) == 1}


def families() -> dict[str, type[Adapter]]:
    """Return the adapters that load weights of any size, by name; a model's name goes first."""
    known = variants()
    return {
        name: adapter
        for name, adapter in _lookup("adapter").items()
        if adapter.infers_sizes and name not in known
    }


def recognising(model: object) -> type[Adapter] | None:
    """Return the installed adapter that recognises a model; one that fails is skipped.

    Raises:
        PluginError: two recognise it; or, when strict, an adapter raised an error.
    """
    found = [adapter for adapter in _lookup("adapter").values() if _recognises(adapter, model)]
    if len(found) > 1:
        both = " and ".join(author(adapter) for adapter in found[:2])
        raise PluginError(
            f"both {both} take this {type(model).__name__} for a model of theirs; leave one of "
            "them out with IARMEM_DISABLE_PLUGINS"
        )
    return found[0] if found else None


def _recognises(adapter: type[Adapter], model: object) -> bool:
    try:
        return _truth(adapter.matches(cast(Any, model)))
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's may raise anything
        _skip_adapter(adapter, "matches", error)
        return False


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
def find(kind: Literal["scorer"], name: str) -> type[ImageScorer]: ...
@overload
def find(kind: Literal["intervention"], name: str) -> type[AnyIntervention]: ...
@overload
def find(kind: Literal["selector"], name: str) -> type[Selector]: ...
@overload
def find(kind: Literal["similarity"], name: str) -> type[Similarity]: ...
@overload
def find(kind: Literal["quality"], name: str) -> type[AnyQuality]: ...
@overload
def find(kind: Literal["edit"], name: str) -> type[ModelEdit]: ...
@overload
def find(kind: Literal["trigger"], name: str) -> type[AnyTrigger]: ...
def find(kind: Kind, name: str) -> type[Any]:
    """Return the class of that name.

    Args:
        kind: kind of the class.
        name: name that users choose it by.

    Raises:
        UnknownNameError: no plugin provides it; the message lists what there is.
        PluginError: two plugins provide it.
    """
    if clash := _clash(_provided(kind), name):
        raise PluginError(f"{clash}; leave one of them out with IARMEM_DISABLE_PLUGINS")
    return cast(type[Any], _find(_lookup(kind), kind, name))


def find_variant(name: str) -> tuple[type[Adapter], Variant]:
    """Return a model's adapter and what is known about the model.

    Args:
        name: name of the model.

    Raises:
        UnknownNameError: no adapter knows it; the message lists what there is.
        PluginError: two adapters claim it.
    """
    claims = _claimed().get(name, [])
    if not claims and (adapter := _lookup("adapter").get(name)) and not adapter.infers_sizes:
        raise UnknownNameError(
            f"{author(adapter)} has no model named {shown(name, 60)!r} to load; {_instead(adapter)}"
        )
    if len(claims) > 1:
        families = " and ".join(repr(adapter.name) for adapter, _ in claims)
        raise PluginError(f"model {name!r} comes from both adapters {families}")
    return cast(tuple[type[Adapter], Variant], _find(variants(), "model", name))


@cache
def _installed() -> Manager:
    return make_manager()


@cache
def _provided(kind: Kind) -> tuple[Provided, ...]:
    return tuple(provided(kind))


def _lookup(kind: Kind) -> dict[str, type[Any]]:
    """Return the classes of one kind by name, but for names that two plugins provide."""
    every = _provided(kind)
    return {one.name: one.value for one in every if _clash(every, one.name) is None}


def _clash(every: Iterable[Provided], name: str) -> str | None:
    claims = [one for one in every if one.name == name]
    if len(claims) < 2:
        return None
    both = " and ".join(repr(one.plugin) for one in claims)
    return f"{claims[0].kind} {name!r} comes from both {both}"


def _claimed() -> dict[str, list[tuple[type[Adapter], Variant]]]:
    """Return the adapters that can load each model, by its name; one that fails is skipped."""
    found: dict[str, list[tuple[type[Adapter], Variant]]] = {}
    for adapter in _lookup("adapter").values():
        try:
            known = _checked_variants(adapter.variants())
        except EndedBySignal:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's may raise anything
            _skip_adapter(adapter, "variants", error)
            continue
        for name, variant in known.items():
            found.setdefault(name, []).append((adapter, variant))
    return found


def _checked_variants(given: object) -> Mapping[str, Variant]:
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) and isinstance(variant, Variant) for name, variant in given.items()
    ):
        raise PluginError(f"returned {shown(given, 80)}; expected a Variant by each name")
    return given


def _truth(given: object) -> bool:
    if not isinstance(given, bool):
        raise PluginError(f"returned {shown(given, 80)}; expected True or False")
    return given


def _skip_adapter(adapter: type[Adapter], method: str, error: BaseException) -> None:
    plugin = next(one.plugin for one in _provided("adapter") if one.value is adapter)
    _installed().skip(plugin, f": {method}() of adapter {adapter.name!r} failed with", error)


def _find(known: dict[str, Any], kind: str, name: str) -> Any:
    if name not in known:
        message = (
            f"no {kind} named {shown(name, 60)!r}; installed: {', '.join(sorted(known)) or 'none'}"
        )
        raise UnknownNameError(message)
    return known[name]


def _instead(adapter: type[Adapter]) -> str:
    """Say how a model of a family is come by, when it is not by the family's name."""
    named = [name for name, (owner, _) in variants().items() if owner is adapter]
    if named:
        return f"its models are: {', '.join(named)}"
    return "it takes objects that you hold: iarmem.wrap(model, tokenizer) in Python"


def _classes(manager: Manager, plugin: str, hook: Callable[[], object], name: str) -> list[Any]:
    """Return what a hook provides; nothing where it fails."""
    try:
        value = hook()
        if isinstance(value, Iterable) and not isinstance(value, str):
            value = list(value)  # a generator fails here
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's hook may raise anything
        manager.skip(plugin, f": {name} failed with", error)
        return []
    if not isinstance(value, list):
        manager.skip(plugin, f": {name} returned {shown(value)!r}; expected a list of classes")
        return []
    return value


def _wrong(value: object, bases: tuple[type[Any], ...]) -> str | None:
    """Say what is wrong with a class that a hook provides; None where nothing is."""
    if not (isinstance(value, type) and issubclass(value, bases)):
        expected = " or ".join(f"iarmem_plugin.{base.__name__}" for base in bases)
        return f"provides {shown(repr(value))}; expected a subclass of {expected}"
    missing = sorted(getattr(value, "__abstractmethods__", ()))
    if missing:
        return f"provides {value.__name__}, which lacks {', '.join(missing)}"
    name = getattr(value, "name", None)
    if not isinstance(name, str):
        return f"provides {value.__name__} without a name; set its `name`"
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or set(name) & set("/\\:"):
        return (
            f"provides {value.__name__} with the name {shown(name, 60)!r}, which is to be typed, "
            f"and be part of a file's name: up to {LONGEST_NAME} signs, no slash, no colon"
        )
    return None
