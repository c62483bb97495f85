"""The sizes of networks, read from the shapes of their weights and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from iarmem_plugin.errors import WeightsError
from iarmem_plugin.models.sound import derived_advice

from .filling import listed
from .states import State

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Sizes = TypeVar("Sizes")


def infer(read: Callable[[State], Sizes], state: State, path: Path, what: str) -> Sizes:
    """Return the sizes that `read` finds in a state dict.

    Raises:
        WeightsError: entries that are missing, or of shapes that make no sense.
    """
    try:
        return read(state)
    except KeyError as error:
        raise WeightsError(f"{path} is not {what}: {_lacking(error.args[0], state)}") from error
    except IndexError as error:
        raise WeightsError(f"{path} is not {what}: an entry has too few dimensions") from error
    except ValueError as error:
        raise WeightsError(f"{path} is not {what}: {error}") from error


def _lacking(key: str, state: State) -> str:
    """Name an entry that is missing, and those that may be it under another name."""
    last = key.rpartition(".")[2]
    named_so = [name for name in state if name.rpartition(".")[2] == last]
    alike = get_close_matches(key, named_so, n=3, cutoff=0.8)
    other = f", but has {listed(alike)}" if alike else ""
    return f"it lacks {key}{other}{derived_advice(state)}"


def autoencoder_sizes(state: State) -> dict[str, Any]:
    """Return ``ch``, ``ch_mult``, ``res_blocks``, ``vocab_size`` and ``code_width`` by name.

    Raises:
        KeyError: an entry is missing.
        ValueError: the codebook is not a matrix, or there is no resolution.
    """
    vocab_size, code_width = state["quantize.embedding.weight"].shape
    levels = numbered(state, "encoder.down.")
    if not levels:
        raise KeyError("encoder.down.0.block.0.conv1.weight")
    convolutions = [f"encoder.down.{level}.block.0.conv1.weight" for level in range(levels)]
    widths = [state[key].shape[0] for key in convolutions]
    ch = math.gcd(*widths)
    return {
        "ch": ch,
        "ch_mult": tuple(width // ch for width in widths),
        "res_blocks": numbered(state, "encoder.down.0.block."),
        "vocab_size": vocab_size,
        "code_width": code_width,
    }


def numbered(keys: Iterable[str], prefix: str) -> int:
    """Return how many numbers, from 0, follow a prefix among keys such as ``blocks.3.attn``."""
    numbers = {key[len(prefix) :].partition(".")[0] for key in keys if key.startswith(prefix)}
    return len(numbers)


def check_sizes(
    found: DataclassInstance,
    asked: DataclassInstance,
    *,
    path: Path,
    name: str,
    family: str,
    released: Mapping[str, DataclassInstance],
) -> None:
    """Compare the sizes that a transformer's weights have with those that were asked for.

    Args:
        found: sizes that the weights have.
        asked: sizes of the model that was asked for.
        path: file of the weights, for messages.
        name: name of the model that was asked for; the family's where sizes were given.
        family: name that loads weights of any size.
        released: sizes of the family's models, by name.

    Raises:
        WeightsError: they differ; the message says which model it is.
    """
    if found == asked:
        return
    differences = _differences(found, asked)
    if name == family:
        raise WeightsError(f"{path} has other sizes than those given: {differences}")
    named = [other for other, sizes in released.items() if sizes == found]
    if named:
        raise WeightsError(
            f"{path} holds the weights of {named[0]}, and {name} was asked for: "
            f"name the model {named[0]}"
        )
    raise WeightsError(
        f"{path} is not {name}, nor of any released size: {differences}; to load "
        f"it as it is, name the model {family!r}"
    )


def check_codes(
    tokenizer: DataclassInstance,
    transformer: DataclassInstance,
    names: Sequence[str],
    *,
    path: Path,
    what: str,
) -> None:
    """Compare sizes that a tokenizer shares with its transformer.

    Raises:
        WeightsError: they differ.
    """
    given, wanted = asdict(tokenizer), asdict(transformer)
    wrong = [f"{key} {given[key]} instead of {wanted[key]}" for key in names]
    if any(given[key] != wanted[key] for key in names):
        raise WeightsError(
            f"{path} is not {what}: it has {', '.join(wrong)}; give the tokenizer that the "
            "transformer was trained with"
        )


def _differences(found: DataclassInstance, asked: DataclassInstance) -> str:
    wanted = asdict(asked)
    return ", ".join(
        f"{key} {value} instead of {wanted[key]}"
        for key, value in asdict(found).items()
        if value != wanted[key]
    )
