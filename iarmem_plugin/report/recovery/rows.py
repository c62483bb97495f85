"""What triggers recovered, counted by arm, trigger, outcome and group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.evaluation.recovery.curves import OUTCOMES, median_budget
from iarmem_plugin.evaluation.statistics import wilson

TRIED, UNSEEN = "all tried", "held-out"
COLUMNS = (
    *("arm", "trigger", "unit", "outcome", "group", "budget", "recovered", "pictures"),
    *("share", "low", "high", "threshold", "median_budget"),
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many pictures of a group a trigger brought back in an arm.

    Attributes:
        arm: name of the arm.
        trigger: key of the trigger.
        unit: what it spends.
        outcome: ``"extracted"`` or ``"recognisable"``.
        group: ``"all tried"``, ``"held-out"``, or a group of candidates.
        pictures: how many there are.
        budgets: what it may spend, rising.
        counts: how many are recovered by each budget.
        thresholds: above which a picture is recovered at each budget.
        median: budget by which half of them are; None: not reached.
    """

    arm: str
    trigger: str
    unit: str
    outcome: str
    group: str
    pictures: int
    budgets: tuple[int, ...]
    counts: tuple[int, ...]
    thresholds: tuple[float, ...]
    median: int | None

    def interval(self, place: int) -> tuple[float, float]:
        """Return the 95% interval of the share that is recovered by one of the budgets."""
        return wilson(self.counts[place], self.pictures)


def recovered_rows(recovery: xr.Dataset) -> tuple[Recovered, ...]:
    """Count what `with_recovered` found: triggers, outcomes, arms and groups in their order.

    Args:
        recovery: dims (arm, attempt, candidate).
    """
    return tuple(_rows(recovery))


def _rows(recovery: xr.Dataset) -> Iterator[Recovered]:
    triggers = recovery["trigger"].to_numpy().astype(str)
    groups = _groups(recovery)
    for trigger in dict.fromkeys(triggers.tolist()):
        mine = recovery.isel(attempt=np.flatnonzero(triggers == trigger))
        budgets = mine["budget"].to_numpy()
        for outcome in OUTCOMES:
            for arm in mine["arm"].to_numpy().astype(str).tolist():
                one = mine.sel(arm=arm)
                flags = one[outcome].transpose("attempt", "candidate").to_numpy().astype(bool)
                limits = one[f"{outcome}_threshold"].to_numpy().tolist()
                for group, members in groups.items():
                    by = flags[:, members]
                    yield Recovered(
                        arm,
                        trigger,
                        str(mine["unit"].to_numpy()[0]),
                        outcome,
                        group,
                        int(members.sum()),
                        tuple(budgets.tolist()),
                        tuple(by.sum(axis=1).tolist()),
                        tuple(limits),
                        median_budget(by, budgets),
                    )


def _groups(recovery: xr.Dataset) -> dict[str, np.ndarray]:
    """Return which candidates belong to each group; those that calibrate belong to none."""
    names, roles = (recovery[one].to_numpy().astype(str) for one in ("group", "role"))
    reported = ~recovery["calibrates"].to_numpy().astype(bool)
    unseen = reported & (roles == "held-out")
    found = {TRIED: reported & ~unseen}
    found |= {
        name: found[TRIED] & (names == name) for name in dict.fromkeys(names[found[TRIED]].tolist())
    }
    return {**found, **({UNSEEN: unseen} if unseen.any() else {})}


def csv_rows(recovery: xr.Dataset | None) -> Iterator[list[Any]]:
    """Yield the rows of ``tables/recovery.csv``, see `COLUMNS`."""
    for one in () if recovery is None else recovered_rows(recovery):
        for place, budget in enumerate(one.budgets):
            yield [
                *(one.arm, one.trigger, one.unit, one.outcome, one.group, budget),
                *(one.counts[place], one.pictures, one.counts[place] / one.pictures),
                *(*one.interval(place), one.thresholds[place], one.median),
            ]


def recovery_document(recovery: xr.Dataset) -> list[dict[str, Any]]:
    """Return what ``report.json`` holds: a row an arm, trigger, outcome and group."""
    return [
        {
            **{
                name: getattr(one, name)
                for name in ("arm", "trigger", "unit", "outcome", "group", "pictures")
            },
            "budgets": list(one.budgets),
            "recovered": list(one.counts),
            "thresholds": list(one.thresholds),
            "median_budget": one.median,
        }
        for one in recovered_rows(recovery)
    ]
