"""Instances of what plugins provide, made from a name and parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

from iarmem_plugin.errors import IarmemError, InputError, PluginError
from iarmem_plugin.interfaces import AnyIntervention, Metric, Selector, Similarity
from iarmem_plugin.plugins.registry import Kind, find

Parameters = Mapping[str, object]


@overload
def create(kind: Literal["metric"], name: str, parameters: Parameters = ...) -> Metric: ...
@overload
def create(
    kind: Literal["intervention"], name: str, parameters: Parameters = ...
) -> AnyIntervention: ...
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
        PluginError: its class raised an error of its own.
    """
    found: type[Any] = find(kind, name)
    try:
        return found(**(parameters or {}))
    except TypeError as error:
        raise InputError(
            f"{kind} {name!r} cannot be made here: {error}; use it in Python"
        ) from error
    except IarmemError:
        raise
    except Exception as error:  # a stranger's class may raise anything
        raise PluginError(
            f"{kind} {name!r} failed when it was made, with {type(error).__name__}: {error}"
        ) from error


def create_intervention(name: str, factor: float | None) -> AnyIntervention:
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


def create_similarity(
    name: str, file: Path | str | None, *, threshold: float | None = None
) -> Similarity:
    """Return the similarity measure of that name, from its file where it needs one.

    Args:
        name: how the user calls it.
        file: file that the measure is read from, where it needs one.
        threshold: similarity above which a candidate counts as extracted; None for its own.

    Raises:
        UnknownNameError: no such measure.
        InputError: a file is missing, or one is given that is not needed, or the threshold is no
            finite number.
    """
    check_similarity(name, file, threshold=threshold)
    similarity = create("similarity", name, {} if file is None else {"file": file})
    if threshold is not None:
        similarity.threshold, similarity.threshold_source = threshold, "given by the user"
    return similarity


def check_similarity(name: str, file: Path | str | None, *, threshold: float | None = None) -> None:
    """Refuse what `create_similarity` would, but for what is in the file; nothing is loaded."""
    needs_file = _takes("similarity", name, "file")
    if needs_file and file is None:
        raise InputError(f"similarity {name!r} needs a TorchScript file; name it with --sscd FILE")
    if not needs_file and file is not None:
        raise InputError(f"similarity {name!r} takes no file; use --similarity sscd with --sscd")
    if threshold is not None and not math.isfinite(threshold):
        raise InputError(f"the threshold {threshold} was given; expected a finite number")


def _takes(kind: Kind, name: str, parameter: str) -> bool:
    return parameter in inspect.signature(find(kind, name)).parameters
