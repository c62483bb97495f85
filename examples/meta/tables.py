"""What tells organisms from twins, and what selectors close, over as many pairs as there are."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iarmem_plugin.evaluation.membership.areas import Area, area
from iarmem_plugin.evaluation.statistics import clopper_pearson
from iarmem_plugin.table import TextTable

from .scalars import AS_IT_IS, STATES

PERTURBED = tuple(state for state in STATES if state != AS_IT_IS)
SETTINGS = ("threshold", "recognition threshold")  # kept, but no numbers that are judged

Values = Mapping[str, Mapping[str, float]]
"""State -> name of a number -> value, of one model."""
Row = dict[str, Any]


def direction(name: str) -> int:
    """Return 1 where a high number speaks of canaries that were seen, and -1 where a low one does.

    >>> direction("extracted"), direction("NLL")
    (1, -1)
    """
    return -1 if name.startswith("NLL") else 1


def told(organisms: np.ndarray, twins: np.ndarray) -> Area:
    """Return the AUC of a number over models, with its 95% interval.

    DeLong's; where all organisms are on one side of all twins, it knows none, and the interval is
    Clopper and Pearson's of that many of that many pairs.

    Args:
        organisms: the number of each organism; high ones speak of canaries that were seen.
        twins: of each twin, as many.

    >>> round(told(np.array([0.6, 0.7]), np.array([0.1, 0.2])).low, 2)
    0.16
    """
    found = area(organisms, twins)
    if found.value not in (0.0, 1.0):
        return found
    return Area(found.value, *clopper_pearson(int(found.value * len(twins)), len(twins)))


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Return by how much the mean of organism minus twin changes, as a share of what it was.

    Args:
        before: organism minus twin of each pair.
        after: the same of the perturbed models.

    Returns:
        0 where it is as before, -1 where nothing is left of it; NaN where there was none.
    """
    was = float(before.mean())
    return float(after.mean()) / was - 1 if was else math.nan


def scalar_rows(organisms: Sequence[Values], twins: Sequence[Values]) -> list[Row]:
    """Return a row for each number: what it tells, and whether that survives perturbations.

    Args:
        organisms: what was measured of the organism of each pair.
        twins: of its twin, in the same order.

    Returns:
        of each number ``auc`` with ``low`` and ``high``, the means of ``organisms`` and ``twins``,
        and for each perturbation the AUC of perturbed organisms against twins as they are and
        against perturbed twins, and the `change`; ``mean change`` is the mean of its sizes.
    """
    rows = []
    for name in (one for one in organisms[0][AS_IT_IS] if one not in SETTINGS):
        sign = direction(name)

        def of(models: Sequence[Values], state: str, name: str = name) -> np.ndarray:
            return np.array([one[state][name] for one in models])

        own, other = of(organisms, AS_IT_IS), of(twins, AS_IT_IS)
        whole = told(sign * own, sign * other)
        row: Row = {"number": name, "speaks": "high" if sign > 0 else "low", **whole._asdict()}
        row["auc"] = row.pop("value")
        row |= {"organisms": float(own.mean()), "twins": float(other.mean())}
        for state in PERTURBED:
            mine, its = of(organisms, state), of(twins, state)
            row |= {
                f"auc, {state}, twins as they are": told(sign * mine, sign * other).value,
                f"auc, {state}": told(sign * mine, sign * its).value,
                f"organisms, {state}": float(mine.mean()),
                f"twins, {state}": float(its.mean()),
                f"change, {state}": change(own - other, mine - its),
            }
        sizes = [abs(row[f"change, {state}"]) for state in PERTURBED]
        rows.append(row | {"mean change": float(np.mean(sizes))})
    return rows


def selector_rows(pairs: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Row]:
    """Return a row for each selector: what halving its neurons closes, beside random sets.

    Args:
        pairs: what was measured of the selectors of each pair.

    Returns:
        means and standard deviations over pairs of the share ``closed`` and of what is ``above``
        the random sets' at equal ΔNLL, ``above in`` how many of the ``read`` pairs, whose random
        sets reach that ΔNLL, the mean ``change``, and the same of neurons that were not chosen on
        other canaries than they are tested on (``unsplit``).
    """
    rows = []
    for name in pairs[0]:
        row: Row = {"selector": name}
        for prefix, cells in (
            ("", [one[name] for one in pairs]),
            ("unsplit ", [one[name]["unsplit"] for one in pairs]),
        ):
            above = [one["closed"] - one["random"] for one in cells if one["random"] is not None]
            row |= {
                f"{prefix}closed": _mean([one["closed"] for one in cells]),
                f"{prefix}closed, deviation": _deviation([one["closed"] for one in cells]),
                f"{prefix}change": _mean([one["change"] for one in cells]),
                f"{prefix}above": _mean(above),
                f"{prefix}above, deviation": _deviation(above),
                f"{prefix}above in": sum(one > 0 for one in above),
                f"{prefix}read": len(above),
            }
        rows.append(row)
    return rows


def value_rows(seeds: Sequence[int], sides: Mapping[str, Sequence[Values]]) -> list[Row]:
    """Return every number of every model, a row each, thresholds among them."""
    return [
        {"seed": seed, "model": side, "state": state, "number": name, "value": value}
        for side, models in sides.items()
        for seed, one in zip(seeds, models, strict=True)
        for state in STATES
        for name, value in one[state].items()
    ]


def scalar_table(rows: Sequence[Row], pairs: str) -> TextTable:
    """Return what numbers tell, as a table to print."""
    columns = ["number", "AUC", "organisms", "twins"]
    for state in PERTURBED:
        columns += [f"{state}: AUC", f"{state}: change"]
    columns.append("mean change")
    cells = [
        [
            row["number"],
            str(Area(row["auc"], row["low"], row["high"])),
            *(f"{row[side]:.3g}" for side in ("organisms", "twins")),
            *(cell for state in PERTURBED for cell in _perturbed(row, state)),
            _percent(row["mean change"]).lstrip("+"),
        ]
        for row in rows
    ]
    notes = (
        "AUC over models; a low NLL speaks of canaries that were seen, and else a high value.",
        "After a perturbation: AUC against twins as they are / as perturbed; how much organism "
        "minus twin changes, as a share of what it was; the mean is of the sizes of both.",
    )
    title = f"What tells organisms from their twins: {pairs}"
    return TextTable(title, columns, cells, numbers=columns[1:], notes=notes)


def selector_table(rows: Sequence[Row], pairs: str) -> TextTable:
    """Return what selectors close of the gap, as a table to print."""
    columns = ["selector", "closed", "ΔNLL", "above random", "above in", "unsplit"]
    cells = [
        [
            row["selector"],
            _spread(row, "closed"),
            f"{row['change']:+.3f}",
            _spread(row, "above"),
            f"{row['above in']} of {row['read']}",
            f"{row['unsplit closed']:.2f}",
        ]
        for row in rows
    ]
    notes = (
        "Share of the gap in the canaries' NLL, from organism to twin, that halving the highest "
        "10% closes (mean ± deviation over pairs); chosen on half of the canaries, tested on the "
        "other; above random: less the share of random sets at equal ΔNLL.",
    )
    title = f"What selectors close of the gap: {pairs}"
    return TextTable(title, columns, cells, numbers=columns[1:], notes=notes)


def as_csv(rows: Sequence[Row]) -> bytes:
    """Return rows as the content of a CSV file; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        unknown = {key: "" for key, one in row.items() if isinstance(one, float) and one != one}
        writer.writerow(row | unknown)
    return text.getvalue().encode()


def _perturbed(row: Row, state: str) -> tuple[str, str]:
    areas = (row[f"auc, {state}, twins as they are"], row[f"auc, {state}"])
    moved = row[f"change, {state}"]
    return " / ".join(f"{one:.2f}" for one in areas), _percent(moved)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:+.0%}"


def _spread(row: Row, name: str) -> str:
    mean, deviation = row[name], row[f"{name}, deviation"]
    if math.isnan(mean):
        return "–"
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
