"""Which network a state dict is of, told by its entries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from iarmem_plugin.errors import WeightsError

from .files import State, WeightFile


@dataclass(frozen=True, slots=True)
class Kind:
    """One network of one family.

    Attributes:
        name: for messages, such as ``"VAR transformer"``.
        option: the command-line option that takes its file.
        tells: entries that no other kind has, whatever the size.
    """

    name: str
    option: str
    tells: tuple[str, ...]

    def fits(self, state: Collection[str]) -> bool:
        """Tell whether a state dict has at least half of the entries that tell this kind."""
        return 2 * sum(key in state for key in self.tells) >= len(self.tells)


def pick(file: WeightFile, kind: Kind) -> tuple[str, State]:
    """Return the place and the tensors of the one network of a kind that a file holds.

    Raises:
        WeightsError: it holds none, or several; the message says what it holds instead.
    """
    found = [(place, state) for place, state in file.states.items() if kind.fits(state)]
    if not found:
        raise WeightsError(f"{file.path} holds no {kind.name}: {_instead(file, kind)}")
    if len(found) > 1:
        places = [place for place, _ in found]
        keys = "".join(f"[{key!r}]" for key in places[0].split("."))
        raise WeightsError(
            f"{file.path} holds {len(found)} of a {kind.name}, at {', '.join(places)}: save the "
            "one to use as a file of its own, such as by torch.save(torch.load("
            f"{file.path.name!r}, weights_only=True){keys}, 'weights.pth')"
        )
    return found[0]


def _instead(file: WeightFile, wanted: Kind) -> str:
    from iarmem_adapters.rar import sizes as rar  # they import this module
    from iarmem_adapters.var import sizes as var

    for kind in (var.TRANSFORMER, var.TOKENIZER, rar.TRANSFORMER, rar.TOKENIZER):
        if any(kind.fits(state) for state in file.states.values()):
            return f"these are the weights of a {kind.name}; {_cure(wanted, kind)}"
    keys = sorted({key for state in file.states.values() for key in state})
    if not keys:
        return "it holds no tensors at all"
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return (
        f"it has none of the entries that tell one ({', '.join(wanted.tells[:3])}), but "
        f"{', '.join(keys[:5])}{more}"
    )


def _cure(wanted: Kind, given: Kind) -> str:
    if wanted.option != given.option:
        return f"name them with {given.option}, and the {wanted.name}'s with {wanted.option}"
    family = given.name.partition(" ")[0]
    return f"name a {family} model, or give the {wanted.name}'s file"
