"""Rules by which arms are dropped before the expensive stages, their controls along with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.losses import LOSS
from iarmem_plugin.jobs.arms import Measured, Stage
from iarmem_plugin.jobs.plan.parts.grids import DropPart
from iarmem_plugin.jobs.plan.planned import PlannedArm

CHANGE = "held-out change"
BEFORE: Mapping[str, Stage] = {"extraction": "completions", "images": "images"}


class Dropped(NamedTuple):
    """An arm that a rule dropped.

    Attributes:
        name: of the arm.
        before: the first stage that is left out.
        why: the outcome and the rule, or whose control it was.
    """

    name: str
    before: Stage
    why: str


def dropped(
    rules: Sequence[DropPart],
    before: Stage,
    arms: Sequence[PlannedArm],
    measured: Callable[[str], Measured],
    original: Measured,
    roles: np.ndarray,
) -> list[Dropped]:
    """Return the arms that rules drop before a stage.

    A control is dropped where every arm that it is the control of was, now or before, and never
    for its own outcome: a comparison must not choose its controls by their results.

    Args:
        rules: those of the plan.
        before: the stage that comes next.
        arms: all arms of the plan that were not dropped before.
        measured: gives what came out of the stages of an arm so far.
        original: the same of the unmodified model.
        roles: role of each candidate.
    """
    found: dict[str, Dropped] = {}
    for rule in (one for one in rules if BEFORE[one.before] == before):
        for arm in (one for one in arms if one.role == "treatment" and one.name not in found):
            value = _outcome(rule.outcome, measured(arm.name), original, roles)
            if value is not None and _holds(rule, value):
                found[arm.name] = Dropped(arm.name, before, f"{rule.outcome} {value:.3f}: {rule}")
    staying = {one.name for one in arms} - set(found)
    for arm in (one for one in arms if one.role == "control" and one.stands_for):
        if staying.isdisjoint(arm.stands_for):
            why = f"control of {', '.join(arm.stands_for)}"
            found[arm.name] = Dropped(arm.name, before, why)
    return list(found.values())


def _outcome(outcome: str, arm: Measured, original: Measured, roles: np.ndarray) -> float | None:
    """Return the number that a rule looks at; None where it was not measured."""
    unseen = roles == HELD_OUT
    if outcome == CHANGE:
        if arm.losses is None or original.losses is None or not unseen.any():
            return None
        change = arm.losses[LOSS] - original.losses[LOSS]
        return float(change.values[unseen].mean())
    if arm.extraction is None or outcome not in arm.extraction or unseen.all():
        return None
    return float(arm.extraction[outcome].values[~unseen].mean())


def _holds(rule: DropPart, value: float) -> bool:
    if rule.above is not None:
        return value > rule.above
    return rule.below is not None and value < rule.below
