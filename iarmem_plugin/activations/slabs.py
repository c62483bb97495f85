"""Slabs: consecutive images that are finished, and saved, together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iarmem_plugin.errors import InputError


@dataclass(frozen=True, slots=True)
class Slabs:
    """Which images are in which slab; iterating gives the numbers of the slabs.

    Attributes:
        images: number of images.
        size: images in a slab, K; the last slab may have fewer.
    """

    images: int
    size: int

    def __len__(self) -> int:
        """Return the number of slabs."""
        return -(-self.images // self.size)

    def __iter__(self) -> Iterator[int]:
        """Give the numbers of all slabs, from 0."""
        return iter(range(len(self)))

    def bounds(self, slab: int) -> tuple[int, int]:
        """Return the positions of a slab's first image and of the one after its last.

        Raises:
            InputError: there is no such slab.

        >>> Slabs(images=21, size=8).bounds(2)
        (16, 21)
        """
        if not 0 <= slab < len(self):
            raise InputError(f"slab {slab} was given; there are slabs 0 to {len(self) - 1}")
        return slab * self.size, min((slab + 1) * self.size, self.images)

    def positions(self, slab: int) -> range:
        """Return the positions of a slab's images; see `bounds`."""
        return range(*self.bounds(slab))

    def of(self, position: int) -> int:
        """Return the number of the slab that the image at a position is part of."""
        return position // self.size

    def share(self, rank: int, world: int, among: Sequence[int] | None = None) -> list[int]:
        """Return one process's share of slabs: every ``world``-th, beginning with its ``rank``.

        Args:
            rank: number of the process.
            world: number of processes.
            among: numbers of the slabs that are shared, in order; all by default.

        Raises:
            InputError: unless 0 <= rank < world.

        >>> Slabs(images=80, size=8).share(1, 2, among=[0, 3, 4, 7, 9])
        [3, 7]
        """
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} of {world} was given; ranks are 0 to {world - 1}")
        return list(range(len(self)) if among is None else among)[rank::world]
