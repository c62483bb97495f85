"""One run of a model over images: slab by slab, shared among processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import xarray as xr

from iarmem_plugin.activations.distributed import Ranks
from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.data.images import Images
from iarmem_plugin.progress import print_above, progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress


class Captured(NamedTuple):
    """A batch of activations.

    Attributes:
        batch: dims (block, scale, neuron, image).
        slab: number of the slab that its images are part of.
        completes: whether they are the last ones of that slab.
    """

    batch: xr.DataArray
    slab: int
    completes: bool


@runtime_checkable
class CapturesSlabs(Protocol):
    """What captures images: `capture`, with a model and all that is set already filled in."""

    def __call__(self, images: Images, *, slabs: Sequence[range]) -> Iterable[xr.DataArray]:
        """Yield batches of the images at the positions of each slab, slab by slab."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is captured, and by whom.

    Attributes:
        images: all images, in order.
        capture: what captures some of them.
        slab: number of images in a slab, K.
        ranks: the processes that share the slabs.
    """

    images: Images
    capture: CapturesSlabs
    slab: int = 256
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def slabs(self) -> Slabs:
        """Return which images are in which slab."""
        return Slabs(len(self.images), self.slab)

    def batches(self, pending: Sequence[int]) -> Iterator[Captured]:
        """Capture this process's share of the pending slabs, and yield its batches.

        Args:
            pending: numbers of slabs, the same ones in every process.
        """
        mine = self.slabs.share(self.ranks.rank, self.ranks.world, among=pending)
        spans = [self.slabs.positions(slab) for slab in mine]
        ahead = iter(zip(mine, map(len, spans), strict=True))
        slab, left = -1, 0
        for batch in self.capture(self.images, slabs=spans):
            slab, left = (slab, left) if left else next(ahead)
            left -= batch.sizes["image"]
            yield Captured(batch, slab, left == 0)


def show_batches(run: Run, pending: Sequence[int], progress: Progress | None) -> Iterator[Captured]:
    """Yield the batches of a run, with a bar for all processes and a line on what is left.

    Args:
        run: what is captured.
        pending: numbers of slabs, the same ones in every process.
        progress: place where the bar is shown; None shows nothing.
    """
    left, total = sum(len(run.slabs.positions(slab)) for slab in pending), len(run.images)
    advance = progress_bar(progress, "capture", total, done=total - left)
    mine, everyone, since = 0, 0, 0.0
    for number, captured in enumerate(run.batches(pending)):
        yield captured
        images = captured.batch.sizes["image"]
        mine, before = mine + images, everyone
        everyone = run.ranks.count(images, mine)
        advance(everyone - before)
        if number == 1:  # the first batch warms up
            rate = images / (time.monotonic() - since) * run.ranks.world
            print_above(progress, pace(max(0, left - everyone), rate))
        since = time.monotonic()


def pace(images: int, rate: float) -> str:
    """Say how long so many images take.

    Args:
        images: number of images to be captured.
        rate: images a second.

    >>> pace(13_000, 2.5)
    '13,000 images to go at 2.5 a second, as one batch was timed: 1.4 hours'
    """
    seconds = images / rate
    unit, length = ("hours", 3600) if seconds >= 3600 else ("minutes", 60)
    left = f"{seconds / length:.1f} {unit}"
    return f"{images:,} images to go at {rate:.3g} a second, as one batch was timed: {left}"
