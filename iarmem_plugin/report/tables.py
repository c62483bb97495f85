"""The report's tables and sentences: from results to rows of text, for page, notebook, terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from iarmem_plugin.evaluation.counts import (
    ORIGINAL,
    PairedCounts,
    canaries,
    canary_word,
    count_extracted,
    groups,
    having_role,
    pair_with_original,
)
from iarmem_plugin.evaluation.statistics import control_p_value
from iarmem_plugin.report.results import ArmResult, Results


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


def columns(arms: tuple[ArmResult, ...]) -> dict[str, tuple[str, ...]]:
    """Name what is shown as one: each arm for itself, controls that differ in their seed together.

    Returns:
        label -> names of the arms under it, in the order of `arms`.
    """
    alike: dict[str, list[str]] = {}
    for arm in arms:
        alike.setdefault(_kind(arm), []).append(arm.name)
    many = sum(len(names) > 1 for names in alike.values())
    labels = {}
    for names in alike.values():
        first = "random" if many == 1 else f"{names[0]} …"
        labels[names[0] if len(names) == 1 else f"{first} ({len(names)} sets)"] = tuple(names)
    return labels


def quality(results: Results) -> xr.DataArray:
    """Gather the quality values of all arms.

    Returns:
        float64, dims (arm, label); NaN where an arm has no value under that very label.
    """
    labels = list(dict.fromkeys(value.label for arm in results.arms for value in arm.quality))
    values = np.full((len(results.arms), len(labels)), np.nan)
    for row, arm in enumerate(results.arms):
        for value in arm.quality:
            if value.value is not None:
                values[row, labels.index(value.label)] = value.value
    names = [arm.name for arm in results.arms]
    return xr.DataArray(values, dims=("arm", "label"), coords={"arm": names, "label": labels})


def extraction_rows(results: Results) -> tuple[Row, ...]:
    """Return one row a group: extracted of candidates, or their range over random sets."""
    counts = count_extracted(results.extraction)
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


def quality_rows(results: Results) -> tuple[Row, ...]:
    """Return one row a quality label: the value, or its range over random sets."""
    measured = quality(results)
    return tuple(
        Row(
            str(label),
            {
                name: Cell(_range(measured.sel(arm=list(arms), label=label).values))
                for name, arms in columns(results.arms).items()
            },
        )
        for label in measured["label"].values
    )


def headline(results: Results) -> str:
    """Say in one sentence what was extracted from the most telling group, arm by arm."""
    first = groups(results.extraction)[0]
    counts = count_extracted(results.extraction).sel(group=first)
    candidates = int(counts["candidates"].isel(arm=0))
    parts = []
    for index, (label, arms) in enumerate(columns(results.arms).items()):
        count = _range(counts["extracted"].sel(arm=list(arms)).values)
        what = f"{candidates} “{first}” candidates extracted" if index == 0 else f"{candidates}"
        parts.append(f"{label}: {count} of {what}")
    return "; ".join(parts) + "."


def findings(results: Results) -> Iterator[str]:
    """Say what the data show, and what they cannot show, one sentence or two at a time."""
    chosen = canaries(results.extraction)
    counts = count_extracted(results.extraction, chosen)["extracted"]
    together = columns(results.arms)
    drawn = [name for arms in together.values() if len(arms) > 1 for name in arms]
    controls = counts.sel(arm=drawn).values
    subject = f"over all {int(chosen.sum())} {canary_word(results.extraction)}"
    alone = {arms[0]: label for label, arms in together.items() if len(arms) == 1}
    for pair in pair_with_original(results.extraction):
        if pair.arm in alone:
            yield _change(alone[pair.arm], subject, pair) + _beside_controls(pair, controls)
    held_out = having_role(results.extraction, "held-out")
    if held_out.any():
        kept = count_extracted(results.extraction, held_out).sel(arm=ORIGINAL)
        yield (
            f"{int(kept['extracted'])} of {int(kept['candidates'])} held-out pictures, which the "
            "model never saw, count as extracted from the original: the measure's false alarms."
        )


def _change(label: str, subject: str, pair: PairedCounts) -> str:
    return (
        f"{label}: {subject}, {pair.before} were extracted before and "
        f"{pair.after} after ({pair.lost} lost, {pair.gained} gained; exact McNemar "
        f"p = {pair.p:.2g})."
    )


def _beside_controls(pair: PairedCounts, controls: np.ndarray) -> str:
    sets = len(controls)
    if not sets:
        return ""
    as_good = int((controls <= pair.after).sum())
    p = control_p_value(pair.after, controls)
    return (
        f" Of {sets} random sets, which left {_range(controls)} extracted, "
        f"{as_good} left as few or fewer: p = {p:.2g}, "
        f"and with {sets} sets it cannot be below {1 / (sets + 1):.2g}."
    )


def _kind(arm: ArmResult) -> str:
    if arm.role != "control":
        return f"arm {arm.name}"
    selector = {key: value for key, value in (arm.selector or {}).items() if key != "seed"}
    return f"control {selector} {arm.intervention} {arm.fraction}"


def _count_cell(counts: xr.Dataset) -> Cell:
    extracted, candidates = counts["extracted"].values, int(counts["candidates"].isel(arm=0))
    text = f"{_range(extracted)}/{candidates}"
    if extracted.size > 1:
        mean = extracted.mean() / candidates
        return Cell(text, f"mean {mean:.0%}")
    low, high = float(counts["low"].item()), float(counts["high"].item())
    return Cell(text, f"{extracted.item() / candidates:.0%} [{100 * low:.0f}, {100 * high:.0f}]")


def _range(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return "–"
    low, high = f"{known.min():.4g}", f"{known.max():.4g}"
    return low if low == high else f"{low}–{high}"
