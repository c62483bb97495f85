"""Instances of what plugins provide, made from a name and options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

from iarmem_plugin.errors import IarmemError, InputError, PluginError
from iarmem_plugin.interfaces import (
    AnyIntervention,
    AnyQuality,
    AnyTrigger,
    ImageScorer,
    Metric,
    ModelEdit,
    Selector,
    Similarity,
)
from iarmem_plugin.plugins.blame import author
from iarmem_plugin.plugins.options import REQUIRED, Written, listed, options
from iarmem_plugin.plugins.registry import Kind, find

Offered = Mapping[str, object]
NOTHING: Offered = MappingProxyType({})


@overload
def create(kind: Literal["metric"], text: str, offered: Offered = ...) -> Metric: ...
@overload
def create(kind: Literal["scorer"], text: str, offered: Offered = ...) -> ImageScorer: ...
@overload
def create(kind: Literal["intervention"], text: str, offered: Offered = ...) -> AnyIntervention: ...
@overload
def create(kind: Literal["selector"], text: str, offered: Offered = ...) -> Selector: ...
@overload
def create(kind: Literal["similarity"], text: str, offered: Offered = ...) -> Similarity: ...
@overload
def create(kind: Literal["quality"], text: str, offered: Offered = ...) -> AnyQuality: ...
@overload
def create(kind: Literal["edit"], text: str, offered: Offered = ...) -> ModelEdit: ...
@overload
def create(kind: Literal["trigger"], text: str, offered: Offered = ...) -> AnyTrigger: ...
def create(kind: Kind, text: str, offered: Offered = NOTHING) -> Any:
    """Return a new instance of what a plugin provides.

    Args:
        kind: what it is.
        text: how the user calls it, be it with options: ``"gini"`` or ``"gini:power=2"``.
        offered: values of options that the text does not give, by name, where its class has them,
            such as ``device``.

    Raises:
        UnknownNameError: no plugin provides it; the message lists what there is.
        InputError: it cannot be made with these options; the message lists what there is.
        PluginError: its class raised an error of its own.
    """
    found, values = _looked_up(kind, text)
    known = {option.name for option in options(found)}
    fitting = {name: value for name, value in offered.items() if name in known}
    try:
        return found(**fitting | values)
    except IarmemError:
        raise
    except Exception as error:  # a stranger's class may raise anything
        raise PluginError(
            f"{author(found)} failed when it was made, with {type(error).__name__}: {error}"
        ) from error


def check(kind: Kind, text: str) -> dict[str, Path]:
    """Refuse what `create` would before anything is made; return the files that it names.

    Args:
        kind: what it is.
        text: how the user calls it.

    Returns:
        each file by its option, such as ``"sscd:file"``.

    Raises:
        UnknownNameError: no plugin provides it.
        InputError: it has no such option, a value is none of its type, or one is missing.
    """
    found, values = _looked_up(kind, text)
    files = {name: value for name, value in values.items() if isinstance(value, Path)}
    return {f"{found.name}:{name}": file for name, file in files.items()}


def _looked_up(kind: Kind, text: str) -> tuple[type[Any], dict[str, object]]:
    written = Written.of(text, kind)
    found: type[Any] = find(kind, written.name)
    values = written.values(found)
    for option in options(found):
        if option.default is REQUIRED and option.name not in values:
            if not option.types:
                raise InputError(
                    f"{kind} {found.name!r} needs {option.name!r}, which can be given in Python "
                    "only"
                )
            raise InputError(
                f"{kind} {found.name!r} needs {option.name}: "
                f"{found.name}:{option.name}=...; {listed(found)}"
            )
    return found, values
