"""Random sets that are added for a declared hypothesis, where they cost what its arm costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.losses import LOSS
from iarmem_plugin.jobs.arms import Measured
from iarmem_plugin.jobs.plan.parts.grids import GridPart
from iarmem_plugin.jobs.plan.parts.values import RANDOM
from iarmem_plugin.jobs.plan.planned import PlannedArm

if TYPE_CHECKING:
    from iarmem_plugin.jobs.plan.plan import Plan

MOST_ABOVE = 0.1  # share of the sets that may cost more at the lowest fraction
MOST_SHORT = 0.02  # share of the sets that may cost less at the highest


class Bracket(NamedTuple):
    """Fractions of random neurons that cost less and more than an arm.

    Attributes:
        arm: name of the arm, without the number of a split.
        intervention: what is done to the neurons.
        fractions: rising; nearly all sets cost less than the arm at the first, and more at the
            last, where there are such fractions.
    """

    arm: str
    intervention: str
    fractions: tuple[float, ...]


def brackets(
    plan: Plan,
    planned: Sequence[PlannedArm],
    measured: Callable[[str], Measured],
    original: Measured,
    roles: np.ndarray,
) -> list[Bracket]:
    """Return, for each expectation of a family at equal quality, between which fractions it is.

    An arm's cost is the change of its held-out loss. Only losses are looked at, so no outcome
    decides.

    Args:
        plan: the plan.
        planned: its arms whose losses were measured.
        measured: gives what came out of an arm's stages so far.
        original: the same of the unmodified model.
        roles: role of each candidate.

    Returns:
        none where no losses were measured or nothing was held out.
    """
    unseen = roles == HELD_OUT
    if original.losses is None or not unseen.any():
        return []
    before = original.losses[LOSS].values[unseen]

    @cache  # each is a file, and asked for by every expectation
    def cost(arm: str) -> float:
        losses = measured(arm).losses
        assert losses is not None
        return float((losses[LOSS].values[unseen] - before).mean())

    found: dict[str, Bracket] = {}
    for name in _declared(plan):
        mine = [one for one in planned if one.whole_name == name]
        if not mine or mine[0].intervention is None:
            continue
        paid = float(np.mean([cost(one.name) for one in mine]))
        costs = _costs(planned, mine[0], cost)
        if costs:
            found[name] = Bracket(name, mine[0].intervention, _between(costs, paid))
    return list(found.values())


def with_more_sets(plan: Plan, found: Sequence[Bracket]) -> Plan:
    """Return the plan with as many random sets as a declared hypothesis needs, at its fractions."""
    more = tuple(
        GridPart(
            selectors=("highest",),
            interventions=(one.intervention,),
            fractions=one.fractions,
            random_sets=plan.evidence.sets,
        )
        for one in found
    )
    return plan.model_copy(update={"grid": (*plan.grid, *more)})


def most_added(plan: Plan) -> int:
    """Return how many arms are added at most where each bracket has two fractions."""
    declared, planned = _declared(plan), plan.arms()
    ways = {one.intervention for one in planned if one.whole_name in declared}
    sets = max((grid.random_sets for grid in plan.grid), default=0)
    return 2 * len(ways) * max(0, plan.evidence.sets - sets)


def _declared(plan: Plan) -> list[str]:
    """Return the arms whose cost must be bracketed."""
    return [
        one.arm
        for one in plan.expect
        if one.family is not None and one.at == "equal quality" and one.against == RANDOM
    ]


def _costs(
    planned: Sequence[PlannedArm],
    like: PlannedArm,
    cost: Callable[[str], float],
) -> dict[float, list[float]]:
    """Return what random sets cost at each fraction, edited as an arm's neurons are."""
    found: dict[float, list[float]] = {}
    for one in planned:
        alike = one.intervention == like.intervention and one.role == "control"
        if alike and one.selector == RANDOM and one.fraction is not None:
            found.setdefault(one.fraction, []).append(cost(one.name))
    return dict(sorted(found.items()))


def _between(costs: Mapping[float, Sequence[float]], change: float) -> tuple[float, ...]:
    """Return the fractions between which nearly all random curves reach a cost.

    From the last at which at most a tenth of the sets already costs more, so that few curves are
    read from the unmodified model on, to the first at which all but one in fifty do: those that do
    not would count as as good as the arm.
    """
    fractions = list(costs)
    above = {one: np.mean(np.array(costs[one]) > change) for one in fractions}
    first = max((one for one in fractions if above[one] <= MOST_ABOVE), default=fractions[0])
    reached = {one: np.mean(np.array(costs[one]) >= change) for one in fractions}
    enough = [one for one in fractions if one >= first and reached[one] >= 1 - MOST_SHORT]
    return tuple(one for one in fractions if first <= one <= min(enough, default=fractions[-1]))
