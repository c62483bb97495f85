"""Whether the axis of quality works: arms that only harm must read as worse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from iarmem_plugin.report.evidence.intervals import intervals
from iarmem_plugin.report.evidence.lines import RANDOM, Line, Lines, Point
from iarmem_plugin.report.evidence.naming import edited_as, selected_as

HALVED = "scale-weights:factor=0.5"
HARMFUL = (
    ("the lowest-scored 10%, halved", "lowest", 0.1),
    ("the most active 10%, halved", "highest:by=mean_activation", 0.1),
    ("40% at random, halved", RANDOM, 0.4),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of arm that only harms.

    Attributes:
        what: in words.
        arms: its arms; random sets are averaged, picture by picture.
        change: of the held-out loss, nats a token.
        low: lower end of its 95% interval, over held-out pictures.
        high: upper end.
        costless: how many of the arms alone have a change of 0 or less.
    """

    what: str
    arms: tuple[str, ...]
    change: float
    low: float
    high: float
    costless: int

    @property
    def passed(self) -> bool:
        """Tell whether it reads as worse than the original."""
        return self.low > 0


def checks_of(lines: Lines) -> Iterator[Check]:
    """Yield each kind of harmful arm that was run, where the held-out loss was measured."""
    for what, chosen, fraction in HARMFUL if lines.measured else ():
        found = list(_points((*lines.treatments, *lines.controls), chosen, fraction))
        if found:
            change = np.mean([one.change for one in found], axis=0)
            low, high = intervals(change[None])[0].tolist()
            names = tuple(name for one in found for name in one.arms)
            costless = sum(one.cost <= 0 for one in found)
            yield Check(what, names, float(change.mean()), low, high, costless)


def not_run(found: Sequence[Check]) -> tuple[str, ...]:
    """Return which kinds of harmful arms a report has none of."""
    known = {one.what for one in found}
    return tuple(what for what, _, _ in HARMFUL if what not in known)


def _points(lines: Sequence[Line], chosen: str, fraction: float) -> Iterator[Point]:
    for line in lines:
        plain = "scores" not in line.selector and edited_as(HALVED, line.intervention)
        if plain and selected_as(chosen, line.selector):
            yield from (one for one in line.points if one.fraction == fraction)
