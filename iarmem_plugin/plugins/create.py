"""Instances of what plugins provide, made from a name and parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Intervention, Selector, Similarity
from iarmem_plugin.plugins.registry import Kind, find

Parameters = Mapping[str, object]


@overload
def create(
    kind: Literal["intervention"], name: str, parameters: Parameters = ...
) -> Intervention: ...
@overload
def create(kind: Literal["selector"], name: str, parameters: Parameters = ...) -> Selector: ...
@overload
def create(kind: Literal["similarity"], name: str, parameters: Parameters = ...) -> Similarity: ...
def create(kind: Kind, name: str, parameters: Parameters | None = None) -> Any:
    """Return a new instance of what a plugin provides.

    Args:
        kind: what it is.
        name: how the user calls it.
        parameters: values by the names that its class gives them.

    Raises:
        UnknownNameError: no plugin provides it; the message lists what there is.
        InputError: it cannot be made with these parameters alone.
    """
    found: type[Any] = find(kind, name)
    try:
        return found(**(parameters or {}))
    except TypeError as error:
        raise InputError(
            f"{kind} {name!r} cannot be made here: {error}; use it in Python"
        ) from error


def create_intervention(name: str, factor: float | None) -> Intervention:
    """Return the intervention of that name, with a factor where one is given.

    Raises:
        UnknownNameError: no such intervention.
        InputError: a factor for an intervention that takes none.
    """
    if factor is None:
        return create("intervention", name)
    if not _takes("intervention", name, "factor"):
        raise InputError(f"intervention {name!r} takes no factor; leave out --factor {factor}")
    return create("intervention", name, {"factor": factor})


def create_similarity(name: str, file: Path | str | None) -> Similarity:
    """Return the similarity measure of that name, from its file where it needs one.

    Raises:
        UnknownNameError: no such measure.
        InputError: a file is missing, or one is given that is not needed.
    """
    needs_file = _takes("similarity", name, "file")
    if needs_file and file is None:
        raise InputError(f"similarity {name!r} needs a TorchScript file; name it with --sscd FILE")
    if not needs_file and file is not None:
        raise InputError(f"similarity {name!r} takes no file; use --similarity sscd with --sscd")
    return create("similarity", name, {"file": file} if needs_file else {})


def _takes(kind: Kind, name: str, parameter: str) -> bool:
    return parameter in inspect.signature(find(kind, name)).parameters
