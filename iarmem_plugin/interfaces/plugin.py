"""What every plugin is: a name, and the options that its constructor was given."""

from __future__ import annotations

import hashlib
import inspect
import math
from abc import ABC
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

from iarmem_plugin.errors import PluginError
from iarmem_plugin.text import as_call

_LONGEST_KEY = 120  # bytes, so that a key can be part of a file's name
_PLAIN = (bool, int, str, type(None))


class _Signature:
    """The constructor's signature, of which `Plugin.__new__` would show nothing."""

    def __get__(self, instance: object, owner: type[Plugin]) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        return inspect.Signature(list(constructor(owner).values()))


class Plugin(ABC):
    """What a plugin provides; its options are what its constructor takes.

    Nothing is asked of an author: what the constructor was given, defaults included, is noted
    when an instance is made, and goes into reports and into what a resumed run compares.

    Attributes:
        name: name that users choose it by.
        kind: what it is for, such as ``"metric"``.
    """

    name: ClassVar[str]
    kind: ClassVar[str]

    if not TYPE_CHECKING:  # to type checkers, a class is made as its __init__ says
        __signature__ = _Signature()

        def __new__(cls, *args: object, **kwargs: object) -> Plugin:
            """Make an instance, and note what it was given."""
            made = super().__new__(cls)
            if cls.kind != "adapter":  # which is made of a whole network
                object.__setattr__(made, "_given", _bound(cls, args, kwargs))
            return made

    def __repr__(self) -> str:
        """Return the class and its options."""
        try:
            return as_call(self, self.parameters)
        except PluginError:
            return as_call(self, self._noted)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return the options by name, as JSON values, for the report.

        A file appears by its name without folder and the beginning of its SHA-256, a folder by
        its name, a number that is not finite as text, another plugin by its key.

        Raises:
            PluginError: one is no such value; the class then needs ``parameters`` of its own.
        """
        return {name: _plain(self, name, value) for name, value in self._noted.items()}

    @property
    def key(self) -> str:
        """Return the name with the options that are not the defaults: ``"gini(power=2)"``."""
        defaults = {
            name: _plain(self, name, parameter.default)
            for name, parameter in constructor(type(self)).items()
            if isinstance(parameter.default, (*_PLAIN, float, tuple, list, Path))
        }
        absent = object()
        said = [
            f"{name}={_said(value)}"
            for name, value in self.parameters.items()
            if repr(defaults.get(name, absent)) != repr(value)
        ]
        return _safe(f"{self.name}({','.join(said)})") if said else self.name

    @property
    def _noted(self) -> Mapping[str, object]:
        given: Mapping[str, object] = getattr(self, "_given", MappingProxyType({}))
        return given


def constructor(plugin: type[Plugin]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class's constructor, without ``self``."""
    if plugin.__init__ is object.__init__:
        return {}
    _, *parameters = inspect.signature(plugin.__init__).parameters.items()
    return dict(parameters)


def types_of(plugin: type[Plugin]) -> dict[str, Any]:
    """Return the types of a constructor's parameters; what cannot be looked up is left out."""
    return {} if plugin.__init__ is object.__init__ else _annotations(plugin.__init__)


@lru_cache(maxsize=256)
def _annotations(init: Callable[..., None]) -> dict[str, Any]:
    function = inspect.unwrap(init)
    found: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        one = SimpleNamespace(__annotations__={name: annotation})
        try:
            found |= get_type_hints(one, globalns=getattr(function, "__globals__", {}))
        except Exception:  # noqa: BLE001  # a name that only type checkers know
            continue
    return found


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type that there is."""
    union = type(annotation).__name__ in ("UnionType", "_UnionGenericAlias", "Union")
    return get_args(annotation) if union else (annotation,)


def _bound(
    plugin: type[Plugin], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> dict[str, object]:
    """Return what a constructor is given, defaults included; nothing where it refuses that."""
    parameters = constructor(plugin)
    try:
        bound = inspect.Signature(list(parameters.values())).bind(*args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    hints = types_of(plugin)
    found: dict[str, object] = {}
    for name, value in bound.arguments.items():
        if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL or value:
            found[name] = _meant(value, members(hints.get(name)))
    return found


def _meant(value: object, types: tuple[Any, ...]) -> object:
    """Return a value as its annotation means it, so that 2 and 2.0, or two spellings of a path,
    are the same."""
    if type(value) is int and float in types and int not in types:
        return float(value)
    return Path(value) if isinstance(value, str) and Path in types else value


def _plain(plugin: Plugin, name: str, value: object) -> Any:
    if isinstance(value, Plugin):
        return value.key
    if isinstance(value, Path):
        return _path(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple | range):
        return [_plain(plugin, name, one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(plugin, name, one) for key, one in value.items()}
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return _plain(plugin, name, value.item())  # type: ignore[attr-defined]  # numpy's numbers
    if type(value).__name__ in ("dtype", "device"):  # of numpy or torch
        return str(value).removeprefix("torch.")
    raise PluginError(
        f"{plugin.kind} {plugin.name!r} was given {name} of type {type(value).__name__}, which no "
        "report can tell from another; give its class a property 'parameters' that says what it is"
    )


def _path(path: Path) -> str:
    if not path.is_file():
        return path.name
    found = path.stat()
    return f"{path.name} sha256 {_sha256(path, found.st_mtime_ns, found.st_size)[:12]}"


@lru_cache(maxsize=64)
def _sha256(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _said(value: object) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return f"[{','.join(map(_said, value))}]"
    return str(value)


def _safe(key: str) -> str:
    """Return a key that can be part of a file's name, and is like no other."""
    clean = "".join(sign if sign.isprintable() and sign not in "/\\" else "_" for sign in key)
    if clean == key and len(key.encode()) <= _LONGEST_KEY:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return f"{clean.encode()[: _LONGEST_KEY - 13].decode(errors='ignore')}~{digest}"
