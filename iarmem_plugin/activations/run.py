"""One pass of a model over images: slab by slab, shared among ranks, with one progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from iarmem_plugin.activations.distributed import Ranks
from iarmem_plugin.data.images import Images
from iarmem_plugin.store.format import slab_bounds
from iarmem_plugin.store.writer import deal

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


@dataclass(frozen=True, slots=True)
class Pass:
    """What is captured, by whom, and where the user sees how far it is.

    Attributes:
        images: all of them, in order.
        capture: called as ``capture(images, slabs=…)`` with the positions of each slab; yields
            batches of them, slab by slab.
        slab: images in a slab, K.
        ranks: the processes that share the slabs.
        progress: where a progress bar may be shown; by the first process alone.
    """

    images: Images
    capture: Callable[..., Iterable[xr.DataArray]]
    slab: int = 256
    ranks: Ranks = field(default_factory=Ranks)
    progress: Progress | None = None

    @property
    def slabs(self) -> range:
        """Return the numbers of all slabs."""
        return range(-(-len(self.images) // self.slab))

    def positions(self, slab: int) -> range:
        """Return the positions of a slab's images; see `slab_bounds`."""
        return range(*slab_bounds(slab, size=self.slab, images=len(self.images)))

    def say(self, line: str) -> None:
        """Show a line above the progress bar."""
        if self.progress is not None and self.ranks.first:
            self.progress.console.print(line, highlight=False, soft_wrap=True)

    def shown(self, batches: Iterable[xr.DataArray], description: str) -> Iterator[xr.DataArray]:
        """Yield batches of all images, with a progress bar."""
        task = (
            None
            if self.progress is None
            else self.progress.add_task(description, total=len(self.images))
        )
        for batch in batches:
            yield batch
            if self.progress is not None and task is not None:
                self.progress.advance(task, batch.sizes["image"])

    def over(self, pending: Sequence[int]) -> Iterator[Captured]:
        """Capture this process's share of the pending slabs.

        Args:
            pending: numbers of slabs, the same ones in every process.
        """
        mine = deal(pending, rank=self.ranks.rank, world=self.ranks.world)
        ahead = iter([(slab, len(self.positions(slab))) for slab in mine])
        shown = _Shown(self, sum(len(self.positions(slab)) for slab in pending))
        slab, left = -1, 0
        for batch in self.capture(self.images, slabs=[self.positions(slab) for slab in mine]):
            slab, left = (slab, left) if left else next(ahead)
            left -= batch.sizes["image"]
            yield Captured(batch, slab, left == 0)
            shown.advance(batch.sizes["image"])


class _Shown:
    """The progress bar, and what the rest will take once a batch was timed."""

    def __init__(self, work: Pass, pending: int) -> None:
        self._work, self._pending = work, pending
        self._progress = work.progress if work.ranks.first else None
        self._batches, self._done, self._since = 0, 0, 0.0
        if self._progress is not None:
            images = len(work.images)
            self._already = images - pending
            self._task = self._progress.add_task("capture", total=images, completed=self._already)

    def advance(self, images: int) -> None:
        self._batches += 1
        self._done += images
        everyone = self._work.ranks.count(images, self._done)
        if self._progress is None:
            return
        self._progress.update(self._task, completed=self._already + everyone)
        if self._batches == 2:  # the first one warms up
            rate = images / (time.monotonic() - self._since) * self._work.ranks.world
            self._work.say(pace(max(0, self._pending - everyone), rate))
        self._since = time.monotonic()


def pace(images: int, rate: float) -> str:
    """Say how long so many images take.

    Args:
        images: to be captured.
        rate: images a second.

    >>> pace(13_000, 2.5)
    '13,000 images to go at 2.5 a second, as one batch was timed: 1.4 hours'
    """
    seconds = images / rate
    unit, length = ("hours", 3600) if seconds >= 3600 else ("minutes", 60)
    left = f"{seconds / length:.1f} {unit}"
    return f"{images:,} images to go at {rate:.3g} a second, as one batch was timed: {left}"
