"""The arms that a plan's grids and single arms make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import NamedTuple

from iarmem_plugin.evaluation.counts import ORIGINAL, TWIN
from iarmem_plugin.jobs.plan.parts.grids import ArmPart, GridPart
from iarmem_plugin.jobs.plan.parts.values import MATCHED, RANDOM, kind_of, made
from iarmem_plugin.jobs.plan.planned import ClashError, PlannedArm, split_word
from iarmem_plugin.plugins.options import Written
from iarmem_plugin.text import shown

MOST_ARMS = 100_000
OWN_SCORES = "unitmem"
"""Name of the scores that an organism's plan has without naming any: UnitMem on its pictures."""
SPLIT_SCORES = "unitmem-split"
"""Name of an organism's scores that leave out the half of the candidates that is tested."""


def expand(
    arms: Sequence[ArmPart],
    grids: Sequence[GridPart],
    scores: Sequence[str],
    seed: int,
    splits: int = 1,
) -> list[PlannedArm]:
    """Return all arms: single ones, those of grids, and then the random sets of each grid.

    Arms that are alike but for their names are one, under the name that comes first.

    Args:
        arms: single arms.
        grids: what is crossed.
        scores: names of the plan's scores, the default first.
        seed: the plan's seed; random sets have the seeds after it.
        splits: how often candidates are halved anew, for arms whose neurons are chosen on them.

    Raises:
        ClashError: two arms of one name, or more than 100 000 arms.
    """
    _check_count(arms, grids, splits)
    expanding = _Expanding(scores, seed)
    for place, arm in enumerate(arms):
        for one in _split(expanding.single(arm), splits):
            expanding.add(one, "arm", place, "name")
    for place, grid in enumerate(grids):
        for whole in expanding.crossed(grid):
            for one in _split(whole, splits):
                expanding.add(one, "grid", place)
    for place, grid in enumerate(grids):
        for one in expanding.drawn(grid):
            expanding.add(one, "grid", place)
    return expanding.all()


class _Chosen(NamedTuple):
    """What selects neurons, as it was written in a plan."""

    label: str
    selector: str
    scorer: str | None
    pool: str | None  # in which neurons are ranked


class _Expanding:
    """The arms of one plan so far; an instance of each plugin is made once."""

    def __init__(self, scores: Sequence[str], seed: int) -> None:
        self._scores, self._seed = scores, seed
        self._chosen: dict[str, _Chosen] = {}
        self._done: dict[str, str] = {}
        self._arms: dict[str, PlannedArm] = {}
        self._names: dict[tuple[object, ...], str] = {}

    def add(self, arm: PlannedArm, *at: str | int) -> None:
        """Take an arm, unless one is like it.

        Raises:
            ClashError: another arm has its name.
        """
        facts = self._facts(arm)
        if facts in self._names:
            return
        if arm.name in (ORIGINAL, TWIN):
            raise ClashError(f"an arm is named {arm.name!r}, as one that every report has", *at)
        if arm.name in self._arms:
            raise ClashError(
                f"two different arms are named {shown(arm.name, 120)!r}; give each its own name",
                *at,
            )
        self._names[facts] = arm.name
        self._arms[arm.name] = arm

    def all(self) -> list[PlannedArm]:
        """Return the arms, each control with what it is the control of."""
        treated: dict[tuple[object, ...], list[str]] = {}
        for one in self._arms.values():
            if one.role == "treatment":
                for pool in {None, self._pool(one)}:
                    treated.setdefault((self._way(one), pool), []).append(one.name)
        return [
            one
            if one.role == "treatment" or one.stands_for
            else replace(one, stands_for=tuple(treated.get((self._way(one), self._pool(one)), ())))
            for one in self._arms.values()
        ]

    def single(self, part: ArmPart) -> PlannedArm:
        """Return the arm that a table of its own describes."""
        seed = self._seed if part.seed is None else part.seed
        if part.selector is None:
            return PlannedArm(part.name, edit=part.edit, seed=seed, role=part.role or "treatment")
        chosen = self._choice(part.selector)
        drawn = Written.of(chosen.selector).name in (RANDOM, MATCHED)
        return PlannedArm(
            part.name,
            chosen.selector,
            chosen.scorer,
            self._scores_of(chosen, part.scores),
            part.intervention,
            fraction=part.fraction,
            seed=seed,
            role=part.role or ("control" if drawn else "treatment"),
        )

    def crossed(self, grid: GridPart) -> Iterator[PlannedArm]:
        """Yield each selector with each intervention at each fraction."""
        for text, intervention, fraction in product(
            grid.selectors, grid.interventions, grid.fractions
        ):
            chosen = self._choice(text)
            scores = self._scores_of(chosen, grid.scores)
            other = "" if scores in (None, *self._scores[:1]) else f" of {scores}"
            yield PlannedArm(
                f"{chosen.label}{other}, {self._how(intervention, fraction)}",
                chosen.selector,
                chosen.scorer,
                scores,
                intervention,
                fraction=fraction,
                seed=self._seed,
            )

    def drawn(self, grid: GridPart) -> Iterator[PlannedArm]:
        """Yield random sets of the size of a grid's arms: uniform ones, and matched ones."""
        pools = dict.fromkeys(self._choice(one).pool or "model" for one in grid.selectors)
        scores = next(iter(self._scores), None)
        for intervention, fraction, pool in product(grid.interventions, grid.fractions, pools):
            text = RANDOM if pool == "model" else str(Written(RANDOM, {"pool": pool}))
            how, label = self._how(intervention, fraction), self._choice(text).label
            for number in range(1, grid.random_sets + 1):
                yield PlannedArm(
                    f"{label} {number}, {how}",
                    text,
                    None,
                    scores,
                    intervention,
                    fraction=fraction,
                    seed=self._seed + number,
                    role="control",
                )
        for arm in self.crossed(grid) if grid.matched_sets else ():
            yield from self._matched(arm, grid.matched_sets)

    def _matched(self, arm: PlannedArm, sets: int) -> Iterator[PlannedArm]:
        """Yield random sets of neurons that are as active as an arm's."""
        name = self._names[self._facts(arm)]
        like = replace(arm, selector=str(Written(MATCHED, {"to": arm.selector or ""})))
        for number in range(1, sets + 1):
            yield replace(
                like,
                name=f"matched {number} with {name}",
                seed=self._seed + number,
                role="control",
                stands_for=(name,),
            )

    def _facts(self, arm: PlannedArm) -> tuple[object, ...]:
        """Return all that makes an arm what it is, but for its name."""
        label = None if arm.selector is None else self._choice(arm.selector).label
        own = (label, arm.scorer, arm.scores, *self._way(arm), arm.edit, arm.seed, arm.split)
        return (*own, arm.stands_for)

    def _way(self, arm: PlannedArm) -> tuple[object, ...]:
        """Return what is done to how many neurons."""
        if arm.intervention is None:
            return (arm.name,)
        return (self._label(arm.intervention), arm.fraction)

    def _pool(self, arm: PlannedArm) -> str | None:
        return None if arm.selector is None else self._choice(arm.selector).pool

    def _choice(self, text: str) -> _Chosen:
        if text not in self._chosen:
            self._chosen[text] = _choice(text)
        return self._chosen[text]

    def _scores_of(self, chosen: _Chosen, named: str | None) -> str | None:
        if chosen.scorer is not None:
            return None
        return next(iter(self._scores), None) if named is None else named

    def _how(self, intervention: str, fraction: float) -> str:
        percent = (Decimal(repr(fraction)) * 100).normalize()
        return f"{self._label(intervention)}, {percent:f}%"

    def _label(self, intervention: str) -> str:
        """Return an intervention with all of its options: ``"scale-weights(factor=0.5)"``."""
        if intervention not in self._done:
            one = made("intervention", intervention)
            said = ", ".join(f"{name}={value}" for name, value in one.parameters.items())
            self._done[intervention] = f"{one.name}({said})" if said else one.name
        return self._done[intervention]


def _split(arm: PlannedArm, splits: int) -> Iterator[PlannedArm]:
    """Yield an arm once for each draw of the halves, if its neurons are chosen on candidates."""
    fitted = arm.scores == SPLIT_SCORES
    if arm.scorer is not None:
        fitted = bool(getattr(made("scorer", arm.scorer), "needs_images", True))
    halved = fitted and arm.role == "treatment" and arm.fraction != 1.0  # all are all, always
    for split in range(splits if halved else 1):
        yield replace(arm, name=f"{arm.name}{split_word(split)}", split=split)


def _choice(text: str) -> _Chosen:
    if Written.of(text).name == MATCHED:
        return _Chosen(text, text, None, None)
    kind = kind_of(text)
    one = made(kind, text)
    if kind == "scorer":
        return _Chosen(one.key, "highest", text, "model")
    pool = one.parameters.get("pool")
    return _Chosen(one.key, text, None, None if pool is None else str(pool))


def _check_count(arms: Sequence[ArmPart], grids: Sequence[GridPart], splits: int) -> None:
    total = len(arms) * splits
    for place, grid in enumerate(grids):
        ways = len(grid.interventions) * len(grid.fractions)
        treated = ways * len(grid.selectors)
        total += treated * (splits + grid.matched_sets) + ways * grid.random_sets
        if total > MOST_ARMS:
            raise ClashError(
                f"the plan has {total:,} arms with this [[grid]]; expected at most {MOST_ARMS:,}",
                *("grid", place),
            )
