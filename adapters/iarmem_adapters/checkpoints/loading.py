"""Load a family's transformer and tokenizer from their two files, strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iarmem_adapters.layers.undrawn import undrawn
from iarmem_adapters.organisms import weight_files
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Checkpoint, ModelLayout, Variant
from iarmem_plugin.models.hub import ROLES, named_files

from .files import WeightFile, file_facts, read_weights
from .filling import check_entries, load_strictly
from .identify import Signature, select
from .sizes import check_codes, check_sizes, infer
from .states import Held, State


@dataclass(frozen=True, slots=True)
class Blueprint:
    """How one of a family's two networks is told by its weights, and built.

    Attributes:
        signature: the entries that tell its weights.
        build: its class, called with its sizes.
        infer: reads its sizes from its weights; a tokenizer's is given the transformer's sizes,
            as `transformer`, too.
    """

    signature: Signature
    build: type[nn.Module]
    infer: Callable[..., Any]


def _as_it_is(state: State, config: Any) -> None:
    """Leave a tokenizer's weights alone."""


@dataclass(frozen=True, slots=True)
class Family:
    """The two networks of a family, and the sizes that are known.

    Attributes:
        name: the family's name, which loads weights of any size.
        variants: gives what is known about each model, by name.
        configs: gives the sizes of a variant's transformer and tokenizer.
        transformer: its transformer.
        tokenizer: its image tokenizer.
        shared: names of the sizes that the two must share.
        adapt: changes a tokenizer's weights in place to fit its sizes, where that changes no
            result.
    """

    name: str
    variants: Callable[[], Mapping[str, Variant]]
    configs: Callable[[str], tuple[Any, Any]]
    transformer: Blueprint
    tokenizer: Blueprint
    shared: tuple[str, ...]
    adapt: Callable[[State, Any], None] = _as_it_is


@dataclass(frozen=True, slots=True)
class Loaded:
    """Two networks in evaluation mode, with their weights.

    Attributes:
        transformer: the transformer.
        tokenizer: its image tokenizer.
        files: what identifies each file, by its role; see `Adapter`.
    """

    transformer: nn.Module
    tokenizer: nn.Module
    files: Mapping[str, Mapping[str, str | int]]


def load_networks(
    family: Family,
    name: str,
    files: Mapping[str, Path],
    *,
    device: str,
    dtype: torch.dtype,
    sizes: tuple[Any, Any] | None = None,
) -> Loaded:
    """Return a transformer and its tokenizer with their weights.

    Args:
        family: what is known about the family.
        name: name of a variant, or the family's own name for weights of any size.
        files: the transformer's and the tokenizer's file by role; an organism needs none, and may
            be given the transformer's.
        device: device for both networks, in torch's naming.
        dtype: precision of the transformer; the tokenizer stays in float32.
        sizes: sizes that the weights must have; by default those of the variant or, for the
            family's name, whatever their shapes tell.

    Raises:
        InputError: a file that is not named, or not there, or an organism's tokenizer is named.
        WeightsError: a file that does not hold such weights.
    """
    variant = family.variants().get(name)
    named = named_files(name, variant, files, bundled=_bundled(family.name, variant))
    paths = [named[role] for role in ROLES]
    if sizes is None and variant is not None:
        sizes = family.configs(name)
    asked = (None, None) if sizes is None else sizes
    network, place = _transformer(family, paths[0], name, asked[0], device, dtype)
    tokenizer, other_place = _tokenizer(family, paths[1], name, network.config, asked[1], device)
    facts = {
        "transformer": file_facts(paths[0], place),
        "tokenizer": file_facts(paths[1], other_place),
    }
    return Loaded(network, tokenizer, facts)


def _bundled(family: str, variant: Variant | None) -> dict[str, Path] | None:
    """Return the files of an organism or a twin; None of any other model."""
    if variant is None or variant.organism is None:
        return None
    return dict(zip(ROLES, weight_files(family, twin=bool(variant.twin_of)), strict=True))


def open_checkpoint(
    family: Family,
    name: str,
    weights: Path | None,
    layout_of: Callable[[Any], ModelLayout],
) -> Checkpoint:
    """Return a transformer's weights as their file holds them, in the file's own precision.

    Args:
        family: what is known about the family.
        name: name of a variant, or the family's own name for weights of any size.
        weights: the transformer's file; None for an organism, whose file is bundled.
        layout_of: returns where the neurons of a transformer of some sizes are.

    Raises:
        InputError: there is no such file.
        WeightsError: it does not hold such weights.
    """
    variant = family.variants().get(name)
    bundled = _bundled(family.name, variant)
    path = bundled["weights"] if bundled is not None and weights is None else weights
    if path is None:
        raise InputError(f"{name} needs --weights, the file of its transformer")
    file = read_weights(path)
    asked = None if variant is None else family.configs(name)[0]
    held, network = _built(family, file, name, asked)
    official = network.state_dict()
    check_entries(official, held.state, path, name)
    network.load_state_dict(held.state, strict=True, assign=True)
    state = {key: held.state[key] for key in official}
    flat = type(file.content) is dict and file.content.keys() == state.keys()
    content = state if flat else file.content
    facts = file_facts(path, held.place)
    return Checkpoint(network.eval(), layout_of(network.config), content, state, path, facts)


def _transformer(
    family: Family, path: Path, name: str, asked: Any, device: str, dtype: torch.dtype
) -> tuple[nn.Module, str]:
    """Return the transformer and the place of its weights in the file."""
    held, network = _built(family, read_weights(path), name, asked)
    load_strictly(network, held.state, path=path, what=name, device=device, dtype=dtype)
    return network.eval(), held.place


def _built(family: Family, file: WeightFile, name: str, asked: Any) -> tuple[Held, Any]:
    """Return the transformer's weights in a file, and a transformer of their sizes without any."""
    blueprint, path = family.transformer, file.path
    held = select(file, blueprint.signature)
    config = infer(blueprint.infer, held.state, path, name)
    if asked is not None:
        released = {known: family.configs(known)[0] for known in family.variants()}
        check_sizes(config, asked, path=path, name=name, family=family.name, released=released)
    with undrawn():
        return held, blueprint.build(config)


def _tokenizer(
    family: Family, path: Path, name: str, transformer: Any, asked: Any, device: str
) -> tuple[nn.Module, str]:
    """Return the tokenizer and the place of its weights in the file."""
    blueprint, what = family.tokenizer, f"the tokenizer of {name}"
    held = select(read_weights(path), blueprint.signature)
    state = held.state
    found = infer(partial(blueprint.infer, transformer=transformer), state, path, what)
    check_codes(found, transformer, family.shared, path=path, what=what)
    config = found if asked is None else asked
    family.adapt(state, config)
    with undrawn():
        tokenizer = blueprint.build(config)
    load_strictly(tokenizer, state, path=path, what=what, device=device, dtype=torch.float32)
    return tokenizer.eval(), held.place
