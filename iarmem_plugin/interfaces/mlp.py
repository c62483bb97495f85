"""Where the neurons of an MLP are: what its outgoing map reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown


@dataclass(frozen=True, slots=True)
class Site:
    """One side of a module.

    Attributes:
        path: path of the module in the network, with ``{block}`` for the block's number.
        side: what the module is given (its first argument), or what it returns.
    """

    path: str
    side: Literal["input", "output"] = "output"

    def __str__(self) -> str:
        """Return the path, and the side where it is the input."""
        return f"{self.path} (input)" if self.side == "input" else self.path


@dataclass(frozen=True, slots=True)
class Reads:
    """A linear map that gives each neuron one incoming row.

    Attributes:
        path: path of the map's module, with ``{block}``.
        first: row of neuron 0; of a map that is fused of ``gate`` and ``up``, 0 and the number of
            neurons.
        features: dim of its ``weight`` that counts the rows: 0 for ``nn.Linear``, 1 for
            ``Conv1D``.
    """

    path: str
    first: int = 0
    features: Literal[0, 1] = 0


@dataclass(frozen=True, slots=True)
class Writes:
    """The linear map that reads the neurons; each has one of its columns.

    Attributes:
        path: path of the map's module, with ``{block}``.
        features: dim of its ``weight`` that counts neurons: 1 for ``nn.Linear``, 0 for ``Conv1D``.
    """

    path: str
    features: Literal[0, 1] = 1


@dataclass(frozen=True, slots=True)
class MLP:
    """The maps into and out of a block's neurons.

    Attributes:
        writes: the map out of them.
        reads: the maps into them by name, in the order in which the block calls them:
            ``{"fc1": …}``, or ``{"gate": …, "up": …}``.
        neuron: where the neurons are read; None for the input of `writes`. Another site must hold
            the same numbers, in evaluation mode.

    Raises:
        InputError: there is no map into them, or a path has no ``{block}``.

    Example:
        >>> gate, up = Reads("layers.{block}.gate"), Reads("layers.{block}.up")
        >>> str(MLP(Writes("layers.{block}.down"), {"gate": gate, "up": up}).site)
        'layers.{block}.down (input)'
    """

    writes: Writes
    reads: Mapping[str, Reads]
    neuron: Site | None = None

    def __post_init__(self) -> None:
        """Check that there are maps, and that each block has its own."""
        if not self.reads:
            raise InputError(
                'an MLP has no reads; give the map into its neurons: {"fc1": Reads(…)}'
            )
        for path in self.paths:
            if "{block}" not in path:
                raise InputError(
                    f"the path {shown(path)!r} of an MLP would be the same module in every block; "
                    "give it with {block} in the place of the block's number"
                )

    @property
    def site(self) -> Site:
        """Where the neurons are read."""
        return self.neuron or Site(self.writes.path, "input")

    @property
    def first_read(self) -> str:
        """Path of the first map that the block calls."""
        return next(iter(self.reads.values())).path

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the modules in the order in which a block calls them, each once."""
        return tuple(dict.fromkeys(self._paths()))

    def _paths(self) -> Iterator[str]:
        yield from (one.path for one in self.reads.values())
        yield self.site.path
        yield self.writes.path
