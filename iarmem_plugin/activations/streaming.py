"""Streaming: metrics that see every image once, and nothing kept but their states."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import xarray as xr

from iarmem_plugin.activations.checkpoints import Checkpoints
from iarmem_plugin.activations.metrics import merge_into, states_of, update
from iarmem_plugin.activations.run import Run, show_batches
from iarmem_plugin.errors import IncompleteCaptureError
from iarmem_plugin.interfaces import Metric

if TYPE_CHECKING:
    from rich.progress import Progress

_RUN_PER_SAVING = 20  # seconds that a run takes, at least, for each second that goes into saving


def stream(
    run: Run,
    metrics: Mapping[str, Metric],
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
) -> None:
    """Give every image to every metric, in one run; go on where a killed run has ended.

    Each process's metrics take its own slabs. In the end those of the first process hold all.

    Args:
        run: what to capture.
        metrics: fresh metrics, by key.
        checkpoints: where states are saved after slabs; None saves none.
        progress: place where a progress bar is shown; None shows nothing.

    Raises:
        FingerprintMismatchError: what is to be gone on with was captured with other settings.
        InputError: a checkpoint cannot be read, or none can be written.
        IncompleteCaptureError: the run ended before all images were captured.
    """
    ranks = run.ranks
    if checkpoints is not None:
        checkpoints.check()
    before = {} if checkpoints is None else ranks.broadcast(checkpoints.slabs)
    finished = {slab for slabs in before.values() for slab in slabs}
    mine = _Share(ranks.rank, before.get(ranks.rank, []), metrics, checkpoints)
    pending = [slab for slab in run.slabs if slab not in finished]
    for batch, slab, completes in show_batches(run, pending, progress):
        for metric in metrics.values():
            update(metric, batch)
        if completes:
            mine.finish(slab)
    mine.save()
    left = [rank for rank in before if rank >= ranks.world]
    _require_all(run, [*ranks.gather(mine.slabs), *(before[rank] for rank in left)])
    for rank in range(1, ranks.world):
        states = ranks.broadcast(mine.states, source=rank)
        if ranks.first:
            merge(metrics, states)
    if ranks.first and checkpoints is not None:
        for rank in left:
            checkpoints.merge_into(metrics, rank)


def merge(metrics: Mapping[str, Metric], states: Mapping[str, xr.Dataset]) -> None:
    """Add states to the metrics of the same keys."""
    for key, metric in metrics.items():
        merge_into(metric, states[key])


class _Share:
    """The slabs of one process, and when their states were last saved."""

    def __init__(
        self,
        rank: int,
        slabs: Sequence[int],
        metrics: Mapping[str, Metric],
        checkpoints: Checkpoints | None,
    ) -> None:
        self.slabs = list(slabs)
        self._rank, self._metrics, self._checkpoints = rank, metrics, checkpoints
        self._saved, self._next = len(self.slabs), 0.0
        if checkpoints is not None and slabs:
            checkpoints.merge_into(metrics, rank)

    def states(self) -> dict[str, xr.Dataset]:
        return states_of(self._metrics)

    def finish(self, slab: int) -> None:
        self.slabs.append(slab)
        if time.monotonic() >= self._next:
            self.save()

    def save(self) -> None:
        if self._checkpoints is None or self._saved == len(self.slabs):
            return
        begun = time.monotonic()
        self._checkpoints.save(self._rank, self.slabs, self.states())
        now = time.monotonic()
        self._saved, self._next = len(self.slabs), now + (_RUN_PER_SAVING - 1) * (now - begun)


def _require_all(run: Run, shares: Sequence[Sequence[int]]) -> None:
    slabs = sorted(slab for share in shares for slab in share)
    if slabs != list(run.slabs):
        raise IncompleteCaptureError(
            f"{len(set(slabs))} of {len(run.slabs)} slabs were captured in the end; start the "
            "same command again, and see that all processes find the same folder"
        )
