"""Which network a state dict is of, told by its entries."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from iarmem_plugin import plugins
from iarmem_plugin.errors import WeightsError
from iarmem_plugin.models.sound import derived_advice
from iarmem_plugin.text import shown

from .files import WeightFile
from .filling import listed
from .index import is_index
from .states import Held


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells the weights of one network of one family.

    Attributes:
        name: name of the network in messages, such as ``"VAR transformer"``.
        option: the command-line option that takes its file.
        keys: entries that no other network has, whatever its size.
    """

    name: str
    option: str
    keys: tuple[str, ...]

    def fits(self, state: Collection[str]) -> bool:
        """Tell whether a state dict has at least half of the keys."""
        return 2 * sum(key in state for key in self.keys) >= len(self.keys)


def select(file: WeightFile, signature: Signature) -> Held:
    """Return the tensors of the one network of a signature that a file holds, and their place.

    A network that is a part of a larger module is found under whatever name it has there, such as
    Lightning's ``model.``.

    Raises:
        WeightsError: the file holds none, or several; the message says what it holds instead.
    """
    found = [one for held in file.states for one in _networks(held, signature)]
    if not found:
        raise WeightsError(
            f"{file.path} holds no {signature.name}: {_describe_instead(file, signature)}"
        )
    if len(found) > 1:
        places = ", ".join(shown(one.place or "the outermost", 40) for one in found[:4])
        raise WeightsError(
            f"{file.path} holds {len(found)} of a {signature.name}, at {places}: save the one to "
            f"use as a file of its own{_saving(file.path, found)}"
        )
    return found[0]


def _networks(held: Held, signature: Signature) -> Iterator[Held]:
    """Yield the parts of a dictionary that are networks of a signature, whatever lies beside."""
    prefixes = {
        name[: len(name) - len(key)]
        for name in held.state
        for key in signature.keys
        if name == key or name.endswith(f".{key}")
    }
    for prefix in sorted(prefixes):
        inside = held.below(prefix)
        if signature.fits(inside.state):
            yield inside


def _saving(path: Path, found: Sequence[Held]) -> str:
    """Return code that saves one of several networks as a file of its own."""
    inner = [one for one in found if one.place]
    if not inner or is_index(path):
        return ""
    one = inner[0]
    read = f"torch.load({str(path)!r}, weights_only=True)"
    if path.suffix == ".safetensors":
        read = f"safetensors.torch.load_file({str(path)!r})"
    part = read + "".join(f"[{key!r}]" for key in one.keys)
    if any(one.keys == other.keys for other in found if other is not one):
        start = _common_start(one.names.values())
        part = f"{{k: v for k, v in {part}.items() if k.startswith({start!r})}}"
    label = re.sub(r"[^\w-]+", "-", one.place).strip("-")
    return f", such as by torch.save({part}, {f'{path.stem}-{label}.pth'!r})"


def _common_start(names: Collection[str]) -> str:
    pairs = zip(min(names), max(names), strict=False)
    return "".join(sign for sign, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def installed_signatures() -> Iterator[Signature]:
    """Yield the signatures of all installed adapters that have `signatures`, ours and others'."""
    for name in plugins.names("adapter"):
        adapter = plugins.find("adapter", name)
        if hasattr(adapter, "signatures"):
            yield from adapter.signatures()


def _describe_instead(file: WeightFile, wanted: Signature) -> str:
    for given in installed_signatures():
        if any(one for held in file.states for one in _networks(held, given)):
            return f"these are the weights of a {given.name}; {_cure(wanted, given)}"
    keys = sorted({key for held in file.states for key in held.state})
    if not keys:
        return "it holds no tensors at all"
    return (
        f"it has none of the entries that tell one ({', '.join(wanted.keys[:3])}), but "
        f"{listed(keys)}{derived_advice(keys)}"
    )


def _cure(wanted: Signature, given: Signature) -> str:
    if wanted.option != given.option:
        return f"name them with {given.option}, and the {wanted.name}'s with {wanted.option}"
    family = given.name.partition(" ")[0]
    return f"name a {family} model, or give the {wanted.name}'s file"
