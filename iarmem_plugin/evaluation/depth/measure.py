"""Depth: how much of what the twin lacks an edit takes out of what the blocks hand on.

Reference: after the Unlearning Depth Score, arXiv 2605.24614, which averages clipped ratios a
picture; here losses are averaged over pictures first, and ratios are neither clipped nor weighted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float64

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import GENERATED, HELD_OUT, TWIN
from iarmem_plugin.evaluation.depth.patching import OWN, PATCHED
from iarmem_plugin.text import shown

LEAST = 0.05  # nats a token: a block counts where the twin's outputs cost more than that
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class BlockDepth:
    """What became of the loss when one block handed on what it does in another model.

    Attributes:
        loss: mean loss of the pictures, nats a token.
        change: the same minus the original's own loss.
        twin_change: `change` of the twin.
        share: `change` / `twin_change`; NaN where that is 0.
        counted: whether `twin_change` is above 0.05.
        unseen_change: `change` on pictures that neither model saw; NaN without any.
    """

    loss: float
    change: float
    twin_change: float
    share: float
    counted: bool
    unseen_change: float


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep the edit of one arm goes.

    Attributes:
        arm: name of the arm.
        pictures: number of pictures.
        unseen: number of pictures beside them that neither the original nor the twin saw.
        loss: mean loss of the pictures by the original as it is, nats a token.
        depth: mean of the counted blocks' `BlockDepth.share`: 0 where what they hand on holds the
            pictures as the original's does, 1 where it holds no more than the twin's; an edit that
            damages more than that is above 1. NaN where no block counts.
        low: lower end of its 95% interval (percentiles of 2 000 bootstrap samples of the pictures,
            each drawn with its losses of arm and twin; seed 0); NaN for a single picture.
        high: upper end.
        blocks: what is known of each block.
    """

    arm: str
    pictures: int
    unseen: int
    loss: float
    depth: float
    low: float
    high: float
    blocks: tuple[BlockDepth, ...]


def measure_depth(losses: xr.Dataset, *, twin: str = TWIN) -> tuple[Depth, ...]:
    """Say how deep each arm's edit goes, from the losses that its blocks' outputs leave.

    Args:
        losses: from `patched_losses`, several arms by ``xr.concat`` along the dim (arm) with their
            names as its coordinate; the twin's are among them. Generated candidates are left out,
            and held-out ones stand beside the others.
        twin: name of the twin.

    Raises:
        InputError: there is no twin, no picture, or losses that are not finite.
    """
    arms, counted, unseen = _checked(losses, twin)
    own = losses[OWN].transpose("arm", "candidate").values.astype(np.float64)
    patched = losses[PATCHED].transpose("arm", "block", "candidate").values.astype(np.float64)
    changes = patched - own[:, None, :]
    place = arms.index(twin)
    return tuple(
        _of_arm(arm, own[number], changes[number], changes[place], counted, unseen)
        for number, arm in enumerate(arms)
    )


def _of_arm(
    arm: str,
    own: Float64[np.ndarray, " candidate"],
    changes: Float64[np.ndarray, "block candidate"],
    of_twin: Float64[np.ndarray, "block candidate"],
    counted: np.ndarray,
    unseen: np.ndarray,
) -> Depth:
    change, base = changes[:, counted], of_twin[:, counted]
    means, bases = change.mean(axis=1), base.mean(axis=1)
    beside = changes[:, unseen].mean(axis=1) if unseen.any() else np.full(len(changes), np.nan)
    shares = np.divide(means, bases, out=np.full(len(means), np.nan), where=bases != 0)
    counts = bases > LEAST
    low, high = _interval(change[counts], base[counts])
    loss = float(own[counted].mean())
    return Depth(
        arm,
        int(counted.sum()),
        int(unseen.sum()),
        loss,
        float(shares[counts].mean()) if counts.any() else math.nan,
        low,
        high,
        tuple(
            BlockDepth(loss + one, *rest)
            for one, *rest in zip(
                *(values.tolist() for values in (means, means, bases, shares, counts, beside)),
                strict=True,
            )
        ),
    )


def _interval(
    change: Float64[np.ndarray, "block picture"], base: Float64[np.ndarray, "block picture"]
) -> tuple[float, float]:
    """Return the 95% interval of the mean over blocks of a ratio of means over pictures."""
    from scipy.stats import bootstrap

    blocks, pictures = change.shape
    if not blocks or pictures < 2:
        return math.nan, math.nan

    def mean(drawn: np.ndarray, axis: int) -> np.ndarray:
        samples = drawn.reshape(-1, pictures)
        places = samples + pictures * np.arange(len(samples))[:, None]
        often = np.bincount(places.ravel(), minlength=places.size).astype(np.float64)
        often = often.reshape(samples.shape)
        ratios = (often @ change.T) / (often @ base.T)
        found: np.ndarray = ratios.mean(axis=1).reshape(drawn.shape[:axis])
        return found

    found = bootstrap(
        (np.arange(pictures),),
        mean,
        axis=-1,
        vectorized=True,
        method="percentile",
        n_resamples=RESAMPLES,
        rng=0,
    ).confidence_interval
    return float(found.low), float(found.high)


def _checked(losses: xr.Dataset, twin: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the arms' names, the pictures that count, and those beside them."""
    arms = losses["arm"].values.astype(str).tolist() if "arm" in losses.dims else []
    if twin not in arms:
        raise InputError(
            f"depth is told by a twin, and none of the arms is named {shown(twin, 60)!r}; join the "
            "losses that the outputs of a model leave which never saw the pictures"
        )
    roles = losses["role"].values.astype(str)
    counted, unseen = ~np.isin(roles, (HELD_OUT, GENERATED)), roles == HELD_OUT
    if not counted.any():
        raise InputError("there are no pictures to tell a depth of; give others than held-out ones")
    for name in (OWN, PATCHED):
        if not np.isfinite(losses[name].values).all():
            raise InputError(f"some of {name!r} are not finite; measure the losses again")
    return arms, counted, unseen
