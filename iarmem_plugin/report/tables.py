"""The report's tables and sentences: from results to rows of text, for page, notebook, terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from iarmem_plugin.evaluation.counts import (
    EXTRACTED,
    ORIGINAL,
    RECOGNISABLE,
    PairedCounts,
    canaries,
    canary_word,
    count_anew,
    count_extracted,
    groups,
    having_role,
    outcomes,
    pair_with_original,
)
from iarmem_plugin.evaluation.losses import LOSS
from iarmem_plugin.evaluation.recognition import count_outcome
from iarmem_plugin.evaluation.statistics import control_p_value
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report.costs import (
    MARK,
    Cost,
    costs,
    first_cost,
    image_remark,
    real_pictures,
)
from iarmem_plugin.report.grid.grouping import SIDE_BY_SIDE as SIDE_BY_SIDE
from iarmem_plugin.report.grid.grouping import columns as columns
from iarmem_plugin.report.grid.grouping import control_word as control_word
from iarmem_plugin.report.grid.grouping import has_many as has_many
from iarmem_plugin.report.grid.grouping import seedless
from iarmem_plugin.report.results import ArmResult, Results

NO_CONTROL = " No random neurons were edited as these are, so this arm has no control."
NO_NEURONS = " It edits no chosen neurons, so random ones are no control of it."


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: its value, and a remark in smaller print."""

    text: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, its cells by column name."""

    name: str
    cells: Mapping[str, Cell]


def turned(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Make columns of rows, for tables of many arms."""
    arms = rows[0].cells if rows else ()
    return tuple(Row(arm, {row.name: row.cells[arm] for row in rows}) for arm in arms)


def quality(results: Results) -> xr.DataArray:
    """Gather what was measured of all arms beside extraction: changes of losses, then the images.

    Returns:
        float64, dims (arm, label); NaN where an arm has no value under that very label.
    """
    names = [arm.name for arm in results.arms]
    predicted = {cost.label: cost.values.values for cost in costs(results)}
    labels = list(dict.fromkeys(value.label for arm in results.arms for value in arm.quality))
    values = np.full((len(results.arms), len(labels)), np.nan)
    for row, arm in enumerate(results.arms):
        for value in arm.quality:
            if value.value is not None:
                values[row, labels.index(value.label)] = value.value
    rows = np.column_stack((*predicted.values(), values))
    coords = {"arm": names, "label": [*predicted, *labels]}
    return xr.DataArray(rows, dims=("arm", "label"), coords=coords)


def outcome_rows(results: Results, outcome: str = EXTRACTED) -> tuple[Row, ...]:
    """Return one row a group: an outcome's share of the candidates, or its range over random sets.

    Args:
        results: what to show.
        outcome: what is counted, one of `outcomes`.
    """
    counts = count_outcome(results.extraction, outcome)
    return tuple(
        Row(
            str(group),
            {
                label: _count_cell(counts.sel(arm=list(arms), group=group))
                for label, arms in columns(results.arms).items()
            },
        )
        for group in counts["group"].values
    )


def recalibrated_rows(results: Results, outcome: str = EXTRACTED) -> tuple[Row, ...]:
    """Return a row of the thresholds that arms fixed anew, and one a group: what counts at them.

    Args:
        results: what to show.
        outcome: what is counted, one of `outcomes`; beside it stands the count at the shared
            threshold.
    """
    anew = count_anew(results.extraction, outcome=outcome)
    if anew is None:
        return ()
    shared, known = count_extracted(results.extraction, outcome=outcome), set(anew["arm"].values)
    arms = {
        name: [one for one in mine if one in known] for name, mine in columns(results.arms).items()
    }
    arms = {name: mine for name, mine in arms.items() if mine}
    limits = {name: _limit_cell(anew.sel(arm=mine)) for name, mine in arms.items()}
    rows = [Row("threshold", limits)]
    for group in anew["group"].values:
        pairs = {
            name: [one["extracted"].sel(arm=mine, group=group).values for one in (anew, shared)]
            for name, mine in arms.items()
        }
        size = int(anew["candidates"].sel(group=group)[0])
        cells = {
            name: Cell(f"{_range(own)}/{size}", f"at the shared one {_range(other)}")
            for name, (own, other) in pairs.items()
        }
        rows.append(Row(str(group), cells))
    return tuple(rows)


def _limit_cell(anew: xr.Dataset) -> Cell:
    """Show the threshold that an arm fixed anew, with its interval, or the range over several."""
    value, low, high = (
        anew[name].values for name in ("threshold", "threshold_low", "threshold_high")
    )
    ends = [f"{end[0]:.3f}" if np.isfinite(end[0]) else "–" for end in (low, high)]
    return Cell(_range(value.round(3)), f"[{', '.join(ends)}]" if len(value) == 1 else "")


def quality_rows(results: Results) -> tuple[Row, ...]:
    """Return one row a measure: the value, or its range over random sets; losses first."""
    measured, together = quality(results), columns(results.arms)
    predicted = costs(results)
    rows = [
        Row(one.label, {n: _cost_cell(one, arms) for n, arms in together.items()})
        for one in predicted
    ]
    for label in map(str, measured["label"].values[len(predicted) :]):
        found = {
            arm.name: value for arm in results.arms for value in arm.quality if value.label == label
        }
        cells = {n: _image_cell([found.get(arm) for arm in arms]) for n, arms in together.items()}
        rows.append(Row(f"{label}{real_pictures(results, label)}", cells))
    return tuple(rows)


def loss_rows(results: Results) -> tuple[Row, ...]:
    """Return one row a group: the candidates' mean loss, and its change against the original."""
    counted = results.losses
    if counted is None:
        return ()
    return tuple(
        Row(
            str(group),
            {
                name: _loss_cell(counted.sel(arm=list(arms), group=group))
                for name, arms in columns(results.arms).items()
            },
        )
        for group in counted["group"].values
    )


def headline(results: Results) -> str:
    """Say in one sentence what happened to the most telling group, arm by arm."""
    first = groups(results.extraction)[0]
    counts = {
        outcome: count_extracted(results.extraction, outcome=outcome).sel(group=first)["extracted"]
        for outcome in outcomes(results.extraction)
    }
    candidates = int((results.extraction["group"] == first).sum())
    parts = []
    for index, (label, arms) in enumerate(_told(results.arms)):
        found = {one: _range(count.sel(arm=list(arms)).values) for one, count in counts.items()}
        what = f"{candidates} “{first}” candidates extracted" if index == 0 else f"{candidates}"
        still = f", {found[RECOGNISABLE]} {RECOGNISABLE}" if RECOGNISABLE in found else ""
        parts.append(f"{label}: {found[EXTRACTED]} of {what}{still}")
    return "; ".join(parts) + "."


def _told(arms: tuple[ArmResult, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Return `columns`, the treatments together if there are many."""
    together = list(columns(arms).items())
    treated = tuple(arm.name for arm in arms[1:] if arm.role == "treatment")
    if not has_many(arms) or not treated:
        return together
    first, *rest = (one for one in together if not set(one[1]) & set(treated))
    return [first, (f"{len(treated)} arms", treated), *rest]


def findings(results: Results, splits: Mapping[str, int] | None = None) -> Iterator[str]:
    """Say what the data show, and what they cannot show, one sentence or two at a time.

    Args:
        results: what is told.
        splits: where the page holds treatments against random neurons further on, their arms: the
            first of each with the number of its splits, the others with 0, which are not told.
            Then no such p is told here.
    """
    chosen = canaries(results.extraction)
    counts = count_extracted(results.extraction, chosen)["extracted"]
    together = columns(results.arms)
    drawn = [name for arms in together.values() if len(arms) > 1 for name in arms]
    sets = [arm for arm in results.arms if arm.name in drawn]
    subject = f"over all {int(chosen.sum())} {canary_word(results.extraction)}"
    alone = {arms[0]: label for label, arms in together.items() if len(arms) == 1}
    twin = next((arm.name for arm in results.arms if arm.role == "twin"), None)
    recognised, paid = _recognised(results), first_cost(results)
    held, told = splits is not None, splits or {}
    for pair in pair_with_original(results.extraction):
        if pair.arm == twin:
            yield _of_twin(results, pair)
        elif pair.arm in alone and told.get(pair.arm, 1):
            arm = next(one for one in results.arms if one.name == pair.arm)
            alike, alone_as = _edited_alike(arm, sets), NO_NEURONS if arm.edit else NO_CONTROL
            kind = f"{control_word(alike)} sets at equal fraction"
            names, number = [one.name for one in alike], told.get(pair.arm, 1)
            label = alone[pair.arm] + (f" (split 1 of {number})" if number > 1 else "")
            yield (
                _change(label, subject, pair)
                + recognised.get(pair.arm, "")
                + ("" if paid is None else paid.sentence(pair.arm))
                + ("" if held else _beside(pair, counts.sel(arm=names).values, kind))
                + ("" if held or paid is None else paid.beside(pair.arm, names))
                + (alone_as if sets and not alike else "")
            )
    if held:
        yield "Whether random neurons that cost as much do as well is told below."
    yield from _sets_recognised(results, sets)
    if sets and paid is not None:
        names = [one.name for one in sets]
        yield f"The {len(sets)} {control_word(sets)} sets cost {paid.span(names)} nats a token."
    yield from _false_alarms(results)


def _edited_alike(arm: ArmResult, sets: Iterable[ArmResult]) -> list[ArmResult]:
    """Return the sets whose neurons are as many as an arm's and are edited as these are."""
    edit = (arm.fraction, arm.intervention, seedless(arm.edit))
    return [one for one in sets if (one.fraction, one.intervention, seedless(one.edit)) == edit]


def _sets_recognised(results: Results, sets: list[ArmResult]) -> Iterator[str]:
    if not sets or RECOGNISABLE not in outcomes(results.extraction):
        return
    chosen = canaries(results.extraction)
    counts = count_extracted(results.extraction, chosen, outcome=RECOGNISABLE)["extracted"]
    found = _range(counts.sel(arm=[one.name for one in sets]).values)
    yield f"The {len(sets)} {control_word(sets)} sets left {found} of them recognisable."


def _false_alarms(results: Results) -> Iterator[str]:
    """Say how many held-out pictures count, from the original and from the others."""
    unseen = having_role(results.extraction, "held-out")
    if not unseen.any():
        return
    told = {
        EXTRACTED: "held-out pictures, which the model never saw, count as extracted from the "
        "original: the measure's false alarms",
        RECOGNISABLE: "of them count as recognisable by their completed tokens",
    }
    for outcome in outcomes(results.extraction):
        counts = count_extracted(results.extraction, unseen, outcome=outcome)
        found = counts["extracted"].values
        others = f"; from the other arms {_range(found[1:])}" if len(found) > 1 else ""
        yield f"{found[0]} of {int(unseen.sum())} {told[outcome]}{others}."


def _recognised(results: Results) -> dict[str, str]:
    """Say of each arm how many canaries are still recognisable, where that was judged."""
    if RECOGNISABLE not in outcomes(results.extraction):
        return {}
    return {
        pair.arm: f" By their completed tokens, {pair.before} were recognisable before and "
        f"{pair.after} after."
        for pair in pair_with_original(results.extraction, outcome=RECOGNISABLE)
    }


def _of_twin(results: Results, pair: PairedCounts) -> str:
    chosen, after = canaries(results.extraction), [f"{pair.after} are extracted"]
    if RECOGNISABLE in outcomes(results.extraction):
        counts = count_extracted(results.extraction, chosen, outcome=RECOGNISABLE)
        after.append(f"{counts['extracted'].sel(arm=pair.arm).item()} are recognisable")
    return (
        f"{pair.arm}: from the model that was trained alike without the canaries, "
        f"{' and '.join(after)} of all {int(chosen.sum())} {canary_word(results.extraction)}: "
        "about what an edit that removes every trace of them would come to."
    )


def _change(label: str, subject: str, pair: PairedCounts) -> str:
    return (
        f"{label}: {subject}, {pair.before} were extracted before and "
        f"{pair.after} after ({pair.lost} lost, {pair.gained} gained; exact McNemar "
        f"p = {pair.p:.2g})."
    )


def _beside(pair: PairedCounts, controls: np.ndarray, kind: str) -> str:
    sets = len(controls)
    if not sets:
        return ""
    as_good = int((controls <= pair.after).sum())
    p = control_p_value(pair.after, controls)
    return (
        f" Of {sets} {kind}, which left {_range(controls)} extracted, "
        f"{as_good} left as few or fewer: p = {p:.2g}, "
        f"and with {sets} sets it cannot be below {1 / (sets + 1):.2g}."
    )


def _count_cell(counts: xr.Dataset) -> Cell:
    extracted, candidates = counts["extracted"].values, int(counts["candidates"].isel(arm=0))
    text = f"{_range(extracted)}/{candidates}"
    agree = f"; {counts['agreement'].mean():.0%} of tokens" if "agreement" in counts else ""
    if extracted.size > 1:
        mean = extracted.mean() / candidates
        return Cell(text, f"mean {mean:.0%}{agree}")
    low, high = 100 * counts["low"].item(), 100 * counts["high"].item()
    return Cell(text, f"{extracted.item() / candidates:.0%} [{low:.0f}, {high:.0f}]{agree}")


def _loss_cell(counted: xr.Dataset) -> Cell:
    changes = counted["change"].values
    ends = " to ".join(dict.fromkeys((f"{changes.min():+.3f}", f"{changes.max():+.3f}")))
    return Cell(_range(counted[LOSS].values.round(3)), ends)


def _cost_cell(cost: Cost, arms: tuple[str, ...]) -> Cell:
    values = cost.values.sel(arm=list(arms)).values
    if len(arms) > 1:
        return Cell(cost.span(arms))
    remark = cost.unmodified if arms[0] == ORIGINAL else cost.interval(arms[0])
    return Cell(cost.written(values[0]), remark)


def _image_cell(found: Sequence[QualityValue | None]) -> Cell:
    values = [np.nan if one is None or one.value is None else one.value for one in found]
    mark = MARK * any(one is not None and bool(one.mark) for one in found)
    return Cell(_range(np.array(values, dtype=np.float64)) + mark, image_remark(found))


def _range(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return "–"
    low, high = f"{known.min():.4g}", f"{known.max():.4g}"
    return low if low == high else f"{low}–{high}"
