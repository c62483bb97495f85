"""Find every public function with shaped arguments, and call each with a wrong and a right shape.

Run as a program by `test_shapes.py`; prints one JSON object.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import beartype  # noqa: F401  # before nnsight, which mounts attributes on `object`
import jaxtyping
import numpy as np
import torch

PACKAGES = ("iarmem_plugin", "iarmem_adapters", "iarmem_metrics")
SHAPED = ("Float", "Int", "Bool", "UInt", "Shaped", "Num", "Integer", "Real")
PROBLEM = "problem arose whilst typechecking parameter"  # in jaxtyping's message
DTYPES = ("float32", "int64", "bool", "uint8", "int32", "float64", "int8")


def functions() -> Iterator[tuple[str, Callable[..., Any], list[Any]]]:
    """Yield name, function and leading arguments of everything public in the packages."""
    for module in modules():
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value):
                yield from methods(f"{module.__name__}.{name}", value)
            elif inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value, []


def modules() -> Iterator[types.ModuleType]:
    for package in PACKAGES:
        root = importlib.import_module(package)
        yield root
        for found in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def methods(name: str, owner: type) -> Iterator[tuple[str, Callable[..., Any], list[Any]]]:
    if "__init__" in vars(owner):
        yield name, owner.__init__, [blank(owner)]
    for key, value in list(vars(owner).items()):
        if key.startswith("_"):
            continue
        if isinstance(value, classmethod):
            yield f"{name}.{key}", value.__func__, [owner]
        elif isinstance(value, staticmethod):
            yield f"{name}.{key}", value.__func__, []
        elif inspect.isfunction(value):
            yield f"{name}.{key}", value, [blank(owner)]


def blank(owner: type) -> object:
    """Return an object of that class on which ``__init__`` was not called."""
    body = {"__abstractmethods__": frozenset()}
    concrete = type(owner.__name__, (owner,), body) if inspect.isabstract(owner) else owner
    try:
        return concrete.__new__(concrete)
    except TypeError:
        return MagicMock(spec=owner)


def shaped(annotation: Any) -> Any | None:
    """Return the array type in an annotation such as ``Float[Tensor, "image"] | None``."""
    for one in (annotation, *typing.get_args(annotation)):
        if isinstance(one, type) and issubclass(one, jaxtyping.AbstractArray):
            return None if one.dim_str == "..." else one  # of any shape
    return None


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluate the annotations one by one; a shaped one must be known at run time."""
    inner = inspect.unwrap(function)
    found = {}
    for name, value in inner.__annotations__.items():
        try:
            found[name] = eval(value, inner.__globals__) if isinstance(value, str) else value  # noqa: S307  # our own annotations
        except NameError:
            if any(value.startswith(kind) for kind in SHAPED):
                raise
            found[name] = Any
    return found


def array(annotation: Any, sizes: dict[str, int], *, wrong: bool = False) -> Any:
    """Return zeros that fit an annotation, or have a dimension too many or too few."""
    shape: list[int] = []
    variadic = False
    for dim in annotation.dim_str.split():
        bare = dim.lstrip("#?").partition("=")[-1] or dim.lstrip("#?")
        if bare == "...":
            variadic = True
        elif bare.startswith("*"):
            variadic = True
            shape += [3, 4]
        elif bare.lstrip("-").isdigit():
            shape.append(int(bare))
        elif bare.isidentifier():
            shape.append(sizes.setdefault(bare, 3 + len(sizes)))
        else:
            shape.append(int(eval(bare, {"__builtins__": {}}, sizes)))  # noqa: S307  # "token - 1"
    if wrong:
        shape = [] if variadic else [*shape, 2]
    given = annotation.dtypes if isinstance(annotation.dtypes, Sequence) else DTYPES  # Shaped: any
    dtype = next(name for name in DTYPES if name in given)
    if isinstance(annotation.array_type, type) and issubclass(annotation.array_type, np.ndarray):
        return np.zeros(shape, dtype)
    return torch.zeros(shape, dtype=getattr(torch, dtype))


def contained(value: Any, annotation: Any) -> Any:
    """Put an array into the container that an annotation asks for."""
    origin = typing.get_origin(annotation)
    if origin in (Iterable, Sequence, list):
        return [value]
    return {"name": value} if origin in (Mapping, dict) else value


def other(parameter: inspect.Parameter, annotation: Any) -> Any:
    """Return a value for an argument that is not under test."""
    if parameter.default is not inspect.Parameter.empty:
        return parameter.default
    origin = typing.get_origin(annotation) or annotation
    members = typing.get_args(annotation)
    if type(None) in members:
        return None
    if origin is typing.Literal:
        return members[0]
    if origin in (types.UnionType, typing.Union):
        return other(parameter, members[0])
    if origin is tuple and Ellipsis not in members:
        return tuple(other(parameter, member) for member in members)
    simple = {int: 1, float: 0.5, str: "name", bool: False, Path: Path("nowhere")}
    if origin in simple:
        return simple[origin]
    if origin in (list, tuple, dict, set):
        return origin()
    return MagicMock(spec=origin) if isinstance(origin, type) else MagicMock()


def call(function: Callable[..., Any], leading: list[Any], chosen: str, *, wrong: bool) -> str:
    """Call a function; return what jaxtyping says about its arguments, else nothing."""
    known = annotations(function)
    sizes: dict[str, int] = {}
    parameters = list(inspect.signature(function).parameters.values())[len(leading) :]
    arguments = {}
    for one in parameters:
        annotation = known.get(one.name, Any)
        kind = shaped(annotation)
        if kind is None and one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if kind is None:
            arguments[one.name] = other(one, annotation)
        else:
            value = array(kind, sizes, wrong=wrong and one.name == chosen)
            arguments[one.name] = contained(value, annotation)
    try:
        function(*leading, **arguments)
    except jaxtyping.TypeCheckError as error:
        return str(error)
    except Exception:  # noqa: BLE001  # beyond the arguments anything may go wrong in an empty object
        return ""
    return ""


def main() -> None:
    found = {}
    for name, function, leading in functions():
        for argument, annotation in annotations(function).items():
            if argument == "return" or shaped(annotation) is None:
                continue
            inner = inspect.unwrap(function)  # not what it calls with mocks, in an empty object
            own = f"the parameters of {inner.__module__}.{inner.__qualname__}."
            wrong = call(function, leading, argument, wrong=True)
            right = call(function, leading, argument, wrong=False)
            found[f"{name}({argument})"] = {
                "wrong": wrong[:400],
                "refused": PROBLEM in wrong,
                "right": right[:400],
                "accepted": PROBLEM not in right or own not in right,
            }
    print(json.dumps(found))


if __name__ == "__main__":
    jaxtyping.install_import_hook(list(PACKAGES), "beartype.beartype")
    main()
