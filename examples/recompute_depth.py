"""Make again how deep edits go, from ``depth.nc`` alone; for ``recompute.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

Found = tuple[str, float | None, float | None]  # what it is, as written, and as made again
LEAST = 0.05  # nats a token, above which a block counts
OF_ARM = ("pictures", "unseen", "loss", "depth", "low", "high")
OF_BLOCK = ("loss", "change", "twin_change", "share", "counted", "unseen_change")


def known(value: float) -> float | None:
    """Return a number; None where it is not one."""
    return None if value != value else float(value)


def depths(found: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yield what is said of each arm.

    Args:
        found: the arrays of ``depth.nc``; those of two and three dims are [arm, candidate] and
            [arm, block, candidate].
    """
    roles = found["role"].astype(str)
    mine, unseen = ~np.isin(roles, ("held-out", "generated")), roles == "held-out"
    arms = found["arm"].astype(str).tolist()
    changes = found["patched_loss"] - found["loss"][:, None, :]
    base = changes[arms.index("twin")][:, mine]
    counted = base.mean(axis=1) > LEAST
    for arm, own, every in zip(arms, found["loss"], changes, strict=True):
        change = every[:, mine]
        beside = every[:, unseen].mean(axis=1) if unseen.any() else np.full(len(every), np.nan)
        bases = base.mean(axis=1)
        shares = np.where(bases == 0, np.nan, change.mean(axis=1) / np.where(bases == 0, 1, bases))
        low, high = interval(change[counted], base[counted])
        blocks = zip(
            *(own[mine].mean() + change.mean(axis=1), change.mean(axis=1), bases),
            *(shares, counted, beside),
            strict=True,
        )
        yield {
            "arm": arm,
            "pictures": float(mine.sum()),
            "unseen": float(unseen.sum()),
            "loss": float(own[mine].mean()),
            "depth": known(shares[counted].mean()) if counted.any() else None,
            "low": low,
            "high": high,
            "blocks": [dict(zip(OF_BLOCK, map(known, one), strict=True)) for one in blocks],
        }


def interval(change: np.ndarray, base: np.ndarray) -> tuple[float | None, float | None]:
    """Return the ends of the interval of a mean of ratios, drawn with the same pictures."""
    if not len(change) or change.shape[1] < 2:
        return None, None

    def mean(drawn: np.ndarray, axis: int) -> np.ndarray:
        ratios = change[:, drawn].mean(axis) / base[:, drawn].mean(axis)
        means: np.ndarray = ratios.mean(axis=0)
        return means

    ends = bootstrap(
        (np.arange(change.shape[1]),),
        mean,
        method="percentile",
        n_resamples=2000,
        vectorized=True,
        rng=0,
    ).confidence_interval
    return float(ends.low), float(ends.high)


def depth(written: Sequence[Mapping[str, Any]], found: Mapping[str, np.ndarray]) -> Iterator[Found]:
    """Yield every number of ``report.json`` on depth.

    Args:
        written: its entries.
        found: the arrays of ``depth.nc``.
    """
    for one, made in zip(written, depths(found), strict=True):
        name = f"depth of {made['arm']}"
        yield f"{name}: the arm", 1.0, float(one["arm"] == made["arm"])
        for key in OF_ARM:
            yield f"{name}: {key}", one[key], made[key]
        for number, (block, again) in enumerate(zip(one["blocks"], made["blocks"], strict=True)):
            for key in OF_BLOCK:
                yield f"{name}: block {number}: {key}", block[key], again[key]
