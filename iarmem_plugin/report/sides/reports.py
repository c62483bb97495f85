"""Two reports side by side: the same candidates, the same arms, and what was set otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Group

from iarmem_plugin.evaluation.counts import (
    EXTRACTED,
    ORIGINAL,
    RECOGNISABLE,
    canaries,
    canary_word,
    groups,
)
from iarmem_plugin.evaluation.losses import LOSS, mean_intervals
from iarmem_plugin.evaluation.recognition import agreement
from iarmem_plugin.evaluation.statistics import mcnemar
from iarmem_plugin.report.document import plain
from iarmem_plugin.report.grid.csv_tables import held_out_changes
from iarmem_plugin.report.grid.grouping import columns
from iarmem_plugin.report.results import ArmResult, Results
from iarmem_plugin.report.sides.paired import PairedCost, PairedOutcome, Sides
from iarmem_plugin.report.sides.pairing import pair_arms, pair_candidates
from iarmem_plugin.report.sides.settings import changes

AGREEMENT = "agreement"
OUTCOMES = (AGREEMENT, EXTRACTED, RECOGNISABLE, LOSS)


class SideBySide(Sides):
    """Two reports side by side, which can be shown and written; see `Sides` for what it holds."""

    def table(self) -> Group:
        """Return what differs as tables to print."""
        from iarmem_plugin.report.sides.showing import terminal_tables

        return Group(*terminal_tables(self))

    def save(self, folder: str | Path) -> Path:
        """Write ``comparison.json``, ``comparison.html`` and tables, or nothing at all.

        Returns:
            the folder.

        Raises:
            InputError: the folder holds other files.
            DiskFullError: there is no room.
        """
        from iarmem_plugin.report.sides.showing import save

        return save(self, Path(folder))


def side_by_side(
    first: Results, second: Results, *, names: tuple[str, str] = ("A", "B")
) -> SideBySide:
    """Put two reports side by side: the same candidates in the arms with the same settings.

    Args:
        first: a report.
        second: another one, be it of another model, on some of the same pictures.
        names: what they are called.

    Raises:
        InputError: no candidate is in both.
    """
    pairs, arms = pair_candidates(first, second), pair_arms(first, second)
    sides = [
        one.extraction.isel(candidate=rows)
        for one, rows in ((first, pairs.first), (second, pairs.second))
    ]
    ours, theirs = (side["group"].to_numpy().astype(str) for side in sides)
    shown_as = _shown_as(arms)
    known = [{mine.name for mine, _ in arms}, {other.name for _, other in arms}]
    alone = [
        tuple(arm.name for arm in one.arms if arm.name not in paired)
        for one, paired in zip((first, second), known, strict=True)
    ]
    return SideBySide(
        names=names,
        models=(first.model, second.model),
        both=len(pairs.first),
        alone=pairs.alone,
        renamed=pairs.renamed,
        unlike=pairs.unlike,
        regrouped=int((ours != theirs).sum()),
        arms=tuple((mine.name, other.name) for mine, other in arms),
        arms_alone=(alone[0], alone[1]),
        outcomes=_in_order(_outcomes(sides, shown_as), shown_as),
        costs=tuple(_costs(first, second, shown_as)),
        settings=changes(_said(first), _said(second)),
    )


Shown = Mapping[str, Sequence[tuple[str, str]]]
"""Label -> the names in both reports of the arms that are shown as one."""


def _shown_as(arms: Sequence[tuple[ArmResult, ArmResult]]) -> Shown:
    other = {mine.name: theirs.name for mine, theirs in arms}
    together = columns(tuple(mine for mine, _ in arms))
    return {label: [(name, other[name]) for name in names] for label, names in together.items()}


def _said(results: Results) -> dict[str, Any]:
    """Return all settings of a report: its provenance, and how candidates were extracted."""
    extraction = {str(key): value for key, value in results.extraction.attrs.items()}
    found: dict[str, Any] = plain(
        {**results.provenance, "model": results.model, "extraction": extraction}
    )
    return found


def _outcomes(sides: Sequence[xr.Dataset], arms: Shown) -> Iterator[PairedOutcome]:
    first = sides[0]
    names = first["group"].to_numpy().astype(str)
    among = {f"all {canary_word(first)}": canaries(first).to_numpy()}
    among = {name: chosen for name, chosen in among.items() if chosen.any()}
    among |= {name: names == name for name in groups(first)}
    for outcome in OUTCOMES:
        values = [_values(side, outcome) for side in sides]
        if values[0] is None or values[1] is None:
            continue
        means = [_means(side, arms, at) for at, side in enumerate(values) if side is not None]
        for group, chosen in among.items():
            yield from _paired(outcome, group, arms, means[0][:, chosen], means[1][:, chosen])


def _values(side: xr.Dataset, outcome: str) -> xr.DataArray | None:
    """Return an outcome of each candidate, float64, dims (arm, candidate); None if unknown."""
    if outcome != AGREEMENT:
        found = side.get(outcome)
    elif "equal_tokens" in side and side.attrs.get("prefix_tokens", np.inf) < side.sizes["token"]:
        found = agreement(side)
    else:
        found = None
    if found is None:
        return None
    return found.reset_coords(drop=True).astype(np.float64).transpose("arm", "candidate")


def _means(side: xr.DataArray, arms: Shown, at: int) -> np.ndarray:
    """Return each candidate's mean over the arms that are shown as one, dims (arm, candidate)."""
    names = [[pair[at] for pair in same] for same in arms.values()]
    return np.stack([side.sel(arm=one).mean("arm").to_numpy() for one in names])


def _paired(
    outcome: str, group: str, arms: Shown, first: np.ndarray, second: np.ndarray
) -> Iterator[PairedOutcome]:
    """Yield an outcome of a group's candidates, arm by arm; both have dims (arm, candidate)."""
    lows, highs = mean_intervals(second - first)
    for place, (label, same) in enumerate(arms.items()):
        ours, theirs = first[place], second[place]
        counted = outcome in (EXTRACTED, RECOGNISABLE) and len(same) == 1
        test = mcnemar(ours > 0, theirs > 0) if counted else (None, None, None)
        yield PairedOutcome(
            *(label, len(same), group, outcome, len(ours)),
            *(float(ours.mean()), float(theirs.mean()), float((theirs - ours).mean())),
            *(_known(lows[place]), _known(highs[place])),
            *test,
        )


def _in_order(found: Iterator[PairedOutcome], arms: Shown) -> tuple[PairedOutcome, ...]:
    """Sort by arm and group; outcomes stay in their order."""
    every = list(found)
    of_arm = {label: place for place, label in enumerate(arms)}
    of_group = {name: place for place, name in enumerate(dict.fromkeys(one.group for one in every))}
    return tuple(sorted(every, key=lambda one: (of_arm[one.arm], of_group[one.group])))


def _costs(first: Results, second: Results, arms: Shown) -> Iterator[PairedCost]:
    changed = held_out_changes(first), held_out_changes(second)
    if not changed[0] and not changed[1]:
        return
    for label, same in arms.items():
        if same[0][0] == ORIGINAL:
            continue
        sides = [_cost([known.get(pair[at]) for pair in same]) for at, known in enumerate(changed)]
        yield PairedCost(label, len(same), *sides[0], *sides[1])


def _cost(
    found: Sequence[tuple[float | None, ...] | None],
) -> tuple[float | None, float | None, float | None]:
    """Return the mean change over arms; of one arm alone, with its interval."""
    known = [one for one in found if one is not None and one[0] is not None]
    if len(known) < len(found):
        return None, None, None
    if len(known) == 1:
        value, low, high = known[0]
        return value, low, high
    return float(np.mean([one[0] for one in known])), None, None


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
