"""Which network a state dict is of, told by its entries."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from iarmem_plugin import plugins
from iarmem_plugin.errors import WeightsError

from .files import State, WeightFile


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


def select(file: WeightFile, signature: Signature) -> tuple[str, State]:
    """Return the place and the tensors of the one network of a signature that a file holds.

    Raises:
        WeightsError: the file holds none, or several; the message says what it holds instead.
    """
    found = [(place, state) for place, state in file.states.items() if signature.fits(state)]
    if not found:
        raise WeightsError(
            f"{file.path} holds no {signature.name}: {_describe_instead(file, signature)}"
        )
    if len(found) > 1:
        places = [place for place, _ in found]
        keys = "".join(f"[{key!r}]" for key in places[0].split("."))
        raise WeightsError(
            f"{file.path} holds {len(found)} of a {signature.name}, at {', '.join(places)}: save "
            "the one to use as a file of its own, such as by torch.save(torch.load("
            f"{file.path.name!r}, weights_only=True){keys}, 'weights.pth')"
        )
    return found[0]


def installed_signatures() -> Iterator[Signature]:
    """Yield the signatures of all installed adapters that have `signatures`, ours and others'."""
    for name in plugins.names("adapter"):
        adapter = plugins.find("adapter", name)
        if hasattr(adapter, "signatures"):
            yield from adapter.signatures()


def _describe_instead(file: WeightFile, wanted: Signature) -> str:
    for given in installed_signatures():
        if any(given.fits(state) for state in file.states.values()):
            return f"these are the weights of a {given.name}; {_cure(wanted, given)}"
    keys = sorted({key for state in file.states.values() for key in state})
    if not keys:
        return "it holds no tensors at all"
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return (
        f"it has none of the entries that tell one ({', '.join(wanted.keys[:3])}), but "
        f"{', '.join(keys[:5])}{more}"
    )


def _cure(wanted: Signature, given: Signature) -> str:
    if wanted.option != given.option:
        return f"name them with {given.option}, and the {wanted.name}'s with {wanted.option}"
    family = given.name.partition(" ")[0]
    return f"name a {family} model, or give the {wanted.name}'s file"
