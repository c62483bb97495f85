"""How far halving a selector's neurons takes an organism to its twin, beside random sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

import iarmem_plugin as iarmem
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.jobs.contrast import halves

from .pairs import Pair, Pictures, Sizes
from .scalars import TOP, scored

HALVE = iarmem.ScaleWeights(0.5)


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of one model at its own fitted temperature, nats a token.

    Attributes:
        canaries: of each canary.
        held_out: mean over held-out pictures.
    """

    canaries: np.ndarray
    held_out: float


class Gap:
    """The canaries' loss between an organism and its twin, and how an edit closes it.

    Args:
        organism: is edited, and comes back as it was.
        twin: has seen no canary.
        pictures: canaries, those that temperatures are fitted on, and held-out ones.
    """

    def __init__(
        self, organism: iarmem.ImageARModel, twin: iarmem.ImageARModel, pictures: Pictures
    ) -> None:
        self.organism, self._pictures = organism, pictures
        views = organism.adapter.variant.views
        self._protocol: LossProtocol = iarmem.loss_protocol(
            organism, iarmem.HeldOutLoss(), pictures.fixing.images, views
        )
        self._both = pictures.canaries.joined(pictures.held_out.images, pictures.held_out.group)
        self._tokens = iarmem.make_targets(organism, self._both, views).tokens
        self.before, self.target = self.losses(organism), self.losses(twin)
        self._all: Losses | None = None

    def losses(self, model: iarmem.ImageARModel) -> Losses:
        """Return a model's losses."""
        measured = self._protocol.measured(model, xr.Dataset(), self._both, self._tokens)
        values, count = measured["loss"].to_numpy(), len(self._pictures.canaries)
        return Losses(values[:count], float(values[count:].mean()))

    def halved(self, neurons: xr.DataArray) -> Losses:
        """Return the organism's losses while some neurons' weights are halved."""
        with iarmem.intervene(self.organism, neurons, HALVE, backend="weights") as edited:
            return self.losses(edited)

    def _all_halved(self, scores: xr.Dataset) -> Losses:
        """Return the losses with all neurons halved: the end of every random curve."""
        if self._all is None:
            self._all = self.halved(iarmem.select(scores, fraction=1.0))
        return self._all

    def closed(self, canaries: np.ndarray) -> float:
        """Return the share of the gap that some losses of the canaries close: 1 is the twin's."""
        gap = float((self.target.canaries - self.before.canaries).mean())
        return float((canaries - self.before.canaries).mean()) / gap

    def curve(self, scores: xr.Dataset, seed: int, fractions: tuple[float, ...]) -> iarmem.Curve:
        """Halve one nested random set at each fraction, and all neurons."""
        every = (*fractions, 1.0)
        found = [
            self.halved(iarmem.select(scores, fraction=one, selector="random", seed=seed))
            for one in fractions
        ]
        found.append(self._all_halved(scores))
        change = [0.0, *(one.held_out - self.before.held_out for one in found)]
        rows = [self.before.canaries, *(one.canaries for one in found)]
        return iarmem.Curve(np.array([0.0, *every]), np.array(change), np.stack(rows))


def measured(pair: Pair, pictures: Pictures, sizes: Sizes) -> dict[str, Any]:
    """Return what each selector closes of the gap, split and unsplit, and the random curves.

    *Split*: neurons are chosen on one half of the canaries and tested on the other, both ways.

    Args:
        pair: the organism and its twin.
        pictures: what they are measured on.
        sizes: how much is measured.

    Returns:
        ``selectors``: name -> ``closed``, ``change`` (ΔNLL on held-out pictures), ``random`` (the
        share that random sets close at this ΔNLL, the mean of those that reach it; None where none
        does) and ``reached``, and the same ``unsplit``; ``curves``; ``gap``, nats a token.
    """
    gap = Gap(pair.model("organism"), pair.model("twin"), pictures)
    half = halves(pictures.canaries)
    parts = [
        _chosen(gap.organism, pictures, sizes, np.flatnonzero(half != tested)) for tested in (0, 1)
    ]
    every = _chosen(gap.organism, pictures, sizes, np.arange(len(half)))
    anything = xr.Dataset({"score": xr.zeros_like(next(iter(every.values())), float)})
    anything = anything.expand_dims("scale")
    curves = [gap.curve(anything, seed, sizes.fractions) for seed in range(sizes.sets)]
    found = {}
    for name, chosen in every.items():
        first, second = (gap.halved(one[name]) for one in parts)
        canaries = np.where(half == 0, first.canaries, second.canaries)
        held_out = (first.held_out + second.held_out) / 2
        whole = gap.halved(chosen)
        found[name] = {
            **_beside(gap, canaries, held_out, curves),
            "unsplit": _beside(gap, whole.canaries, whole.held_out, curves),
        }
    shown = [
        {"change": one.change.tolist(), "closed": [gap.closed(row) for row in one.outcome]}
        for one in curves
    ]
    whole_gap = float((gap.target.canaries - gap.before.canaries).mean())
    return {"selectors": found, "curves": shown, "gap": whole_gap}


def _chosen(
    model: iarmem.ImageARModel, pictures: Pictures, sizes: Sizes, rows: np.ndarray
) -> dict[str, xr.DataArray]:
    """Return the highest 10% of each metric and scorer, on some canaries and as many others."""
    candidates = pictures.canaries.images.subset(rows)
    scores = scored(model, candidates, pictures.reference.subset(range(len(rows))), sizes)
    return {name: iarmem.select(one, fraction=TOP) for name, one in scores.items()}


def _beside(
    gap: Gap, canaries: np.ndarray, held_out: float, curves: list[iarmem.Curve]
) -> dict[str, Any]:
    change = held_out - gap.before.held_out
    readings = [one.read(change) for one in curves]
    reached = [gap.closed(one) for one in readings if one is not None]
    return {
        "closed": gap.closed(canaries),
        "change": change,
        "random": float(np.mean(reached)) if reached else None,
        "reached": len(reached),
    }
