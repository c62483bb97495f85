"""Make again what triggers recovered, from ``recovery.nc`` alone; for ``recompute.py``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Found = tuple[str, float | None, float | None]  # what it is, as written, and as made again
READ = {"extracted": "similarity", "recognisable": "agreement"}


def limits(values: np.ndarray, rate: float) -> np.ndarray:
    """Return the threshold of each budget: so many deviations above the mean of its pictures.

    Args:
        values: of pictures never seen, dims (budget, picture).
        rate: share of them that may be above by any budget.
    """
    means = values.mean(axis=1, keepdims=True)
    spread = np.maximum(values.std(axis=1, keepdims=True), 1e-6)
    highest = sorted(((values - means) / spread).max(axis=0), reverse=True)
    apart = highest[math.floor(rate * values.shape[1] + 1e-9)] + 1e-9
    found: np.ndarray = (means + apart * spread)[:, 0]
    return found


def median(by: np.ndarray, budgets: Sequence[float]) -> float | None:
    """Return the smallest budget by which half of the pictures are recovered, if there is one."""
    shares = by.mean(axis=1)
    return next((one for one, share in zip(budgets, shares, strict=True) if share >= 0.5), None)


def recovery(
    written: Sequence[Mapping[str, Any]], found: Mapping[str, np.ndarray], rate: float
) -> Iterator[Found]:
    """Yield every number of ``report.json`` on recovery.

    Args:
        written: its rows.
        found: the arrays of ``recovery.nc``.
        rate: share of pictures never seen that may be recovered by any budget.
    """
    arms = found["arm"].astype(str).tolist()
    triggers, groups = found["trigger"].astype(str), found["group"].astype(str)
    fixing = found["calibrates"].astype(bool)
    unseen = ~fixing & (found["role"].astype(str) == "held-out")
    chosen = {"all tried": ~fixing & ~unseen, "held-out": unseen}
    for one in written:
        rows = triggers == one["trigger"]
        values = found[READ[one["outcome"]]][arms.index(one["arm"])][rows].astype(np.float64)
        above = limits(values[:, fixing], rate)
        by = np.logical_or.accumulate(values > above[:, None], axis=0)
        mine = by[:, chosen.get(one["group"], chosen["all tried"] & (groups == one["group"]))]
        name = ", ".join(one[key] for key in ("arm", "trigger", "outcome", "group"))
        yield f"{name}: pictures", one["pictures"], mine.shape[1]
        yield f"{name}: median", one["median_budget"], median(mine, one["budgets"])
        for place, budget in enumerate(found["budget"][rows].tolist()):
            yield f"{name}: budget", one["budgets"][place], budget
            yield f"{name}: by {budget}", one["recovered"][place], float(mine[place].sum())
            yield f"{name}: threshold at {budget}", one["thresholds"][place], float(above[place])
