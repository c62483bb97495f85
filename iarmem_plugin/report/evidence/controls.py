"""Which random sets an edit is held against, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.evaluation.evidence.curves import Curve
from iarmem_plugin.evaluation.evidence.equal import MOST_UNREACHED
from iarmem_plugin.report.evidence.lines import MATCHED, RANDOM, Line, Lines, Point
from iarmem_plugin.report.evidence.naming import selected_as


def controls_of(line: Line, lines: Lines) -> dict[str, list[Line]]:
    """Return the random curves that a treatment is held against, by their kind.

    Args:
        line: the treatment.
        lines: all arms.

    Returns:
        ``"random"``: uniform sets under the same intervention, out of the same pool;
        ``"random-matched"``: sets that are as active as the treatment's neurons. Kinds without
        curves are left out.
    """
    alike = [one for one in lines.controls if one.intervention == line.intervention]
    found = {
        RANDOM: [one for one in uniform(alike) if _same_pool(one, line)],
        MATCHED: [one for one in alike if one.kind == MATCHED and _matches(one, line)],
    }
    return {kind: curves for kind, curves in found.items() if curves and line.intervention}


def uniform(controls: Iterable[Line]) -> list[Line]:
    """Return the curves of uniform random sets, those of one intervention by rising seed."""
    mine = [one for one in controls if one.kind == RANDOM and one.intervention is not None]
    return sorted(mine, key=lambda one: (str(one.intervention), one.seed or 0))


def nested(controls: Sequence[Line]) -> bool:
    """Tell whether there are curves of two fractions or more."""
    return any(len(one.points) > 1 for one in controls)


def curve_of(original: Point, line: Line, outcome: str) -> Curve:
    """Return a line as the curve that is read: the original, and its points."""
    points = (original, *line.points)
    return Curve(
        np.array([one.fraction or 0.0 for one in points]),
        np.array([one.cost for one in points]),
        np.stack([one.outcomes[outcome] for one in points]),
    )


def bracketing(controls: Sequence[Line], change: float) -> list[Line]:
    """Return the curves that are read at a cost.

    These are the curves that have both of the neighbouring fractions, of all that there are,
    between which the cost lies on average. So a curve that skips them is never read across the gap.
    If more than a tenth of these end before the cost, those are taken that go on to the next
    fraction, if any do, and so on.

    Args:
        controls: curves of one kind.
        change: ΔNLL, nats a token.
    """
    costs = mean_costs(controls)
    fractions = list(costs)
    after = min(int(np.searchsorted(list(costs.values()), change)), len(costs) - 1)
    needed = set(fractions[max(after - 1, 0) : after + 1])
    kept = list(controls)
    for farther in fractions[after:]:
        going = [one for one in controls if {*needed, farther} <= one.fractions]
        kept = going or kept
        ended = sum(max(point.cost for point in one.points) < change for one in kept)
        if ended <= MOST_UNREACHED * len(kept):
            break
    return kept


def mean_costs(controls: Sequence[Line]) -> dict[float, float]:
    """Return the mean ΔNLL of the curves at each fraction, rising, as its running maximum."""
    found: dict[float, list[float]] = {}
    for point in (point for line in controls for point in line.points):
        found.setdefault(point.fraction or 0.0, []).append(point.cost)
    fractions = sorted(found)
    costs = np.maximum.accumulate([np.mean(found[one]) for one in fractions])
    return dict(zip(fractions, costs.tolist(), strict=True))


def at_fraction(
    controls: Sequence[Line], fraction: float | None, outcome: str
) -> Float64[np.ndarray, "set candidate"] | None:
    """Return an outcome of the random sets of a fraction; None where there are none."""
    found = [
        point.outcomes[outcome]
        for line in controls
        for point in line.points
        if point.fraction == fraction
    ]
    return np.stack(found) if found else None


def _same_pool(control: Line, line: Line) -> bool:
    pools = {one.selector.get("pool", "model") for one in (control, line)}
    return len(pools) == 1


def _matches(control: Line, line: Line) -> bool:
    """Tell whether random sets are as active as a line's neurons."""
    mine, other = control.selector, line.selector
    scored = all(mine.get(key) == other.get(key) for key in ("scores", "cross_fit"))
    return scored and selected_as(str(mine.get("to", "highest")), other)
