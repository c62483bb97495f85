"""The report as one self-contained page: figures, tables, sentences and pictures from a Report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from iarmem_plugin.evaluation.counts import (
    HELD_OUT,
    ORIGINAL,
    canary_word,
    groups,
    pair_with_original,
    tally,
    tally_canaries,
)
from iarmem_plugin.report import figures as plots
from iarmem_plugin.report.figures import COLUMNS_AT_MOST, DOTS
from iarmem_plugin.report.report import ArmResult, GalleryRow, Report

CSS_DOTS = 96  # pixels an inch, as CSS counts


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


def figures(report: Report) -> dict[str, bytes]:
    """Draw all figures of a report.

    Returns:
        name -> PNG; figures without data are left out.
    """
    together = columns(report.arms)
    drawn = {
        "extraction_by_group": plots.extraction_by_group(tally(report.extraction), together),
        "heatmap": plots.heatmap(report.scores),
        "neurons_by_block": plots.neurons_by_block(report.scores),
        "histogram": plots.histogram(report.scores),
    }
    measured = quality(report)
    if measured.notnull().any():
        shares = tally_canaries(report.extraction)
        drawn["extraction_against_quality"] = plots.extraction_against_quality(
            shares, measured.isel(label=slice(4)), together
        )
    if report.neurons is not None:
        drawn["selected_by_block"] = plots.selected_by_block(report.neurons)
    return {name: plots.png(figure) for name, figure in drawn.items()}


def columns(arms: tuple[ArmResult, ...]) -> dict[str, tuple[str, ...]]:
    """Name what is shown as one: each arm for itself, random sets of one kind together.

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


def quality(report: Report) -> xr.DataArray:
    """Gather the quality values of all arms.

    Returns:
        float64, dims (arm, label); NaN where an arm has no value under that very label.
    """
    labels = list(dict.fromkeys(value.label for arm in report.arms for value in arm.quality))
    values = np.full((len(report.arms), len(labels)), np.nan)
    for row, arm in enumerate(report.arms):
        for value in arm.quality:
            if value.value is not None:
                values[row, labels.index(value.label)] = value.value
    names = [arm.name for arm in report.arms]
    return xr.DataArray(values, dims=("arm", "label"), coords={"arm": names, "label": labels})


def extraction_rows(report: Report) -> tuple[Row, ...]:
    """Return one row a group: extracted of candidates, or their range over random sets."""
    counts = tally(report.extraction)
    return tuple(
        Row(
            str(group),
            {
                label: _count_cell(counts.sel(arm=list(arms), group=group))
                for label, arms in columns(report.arms).items()
            },
        )
        for group in counts["group"].values
    )


def quality_rows(report: Report) -> tuple[Row, ...]:
    """Return one row a quality label: the value, or its range over random sets."""
    measured = quality(report)
    return tuple(
        Row(
            str(label),
            {
                name: Cell(_range(measured.sel(arm=list(arms), label=label).values))
                for name, arms in columns(report.arms).items()
            },
        )
        for label in measured["label"].values
    )


def headline(report: Report) -> str:
    """Say in one sentence what was extracted from the most telling group, arm by arm."""
    first = groups(report.extraction)[0]
    counts = tally(report.extraction).sel(group=first)
    candidates = int(counts["candidates"].isel(arm=0))
    parts = []
    for index, (label, arms) in enumerate(columns(report.arms).items()):
        count = _range(counts["extracted"].sel(arm=list(arms)).values)
        what = f"{candidates} “{first}” candidates extracted" if index == 0 else f"{candidates}"
        parts.append(f"{label}: {count} of {what}")
    return "; ".join(parts) + "."


def findings(report: Report) -> Iterator[str]:
    """Say what the data show, and what they cannot show, one sentence or two at a time."""
    from iarmem_plugin.evaluation.statistics import control_p_value

    counts = tally_canaries(report.extraction)
    word = canary_word(report.extraction)
    candidates = int(counts["candidates"].isel(arm=0))
    together = columns(report.arms)
    pairs = {pair.arm: pair for pair in pair_with_original(report.extraction)}
    controls = [name for arms in together.values() if len(arms) > 1 for name in arms]
    random = counts["extracted"].sel(arm=controls).values
    for label, arms in together.items():
        if label == ORIGINAL or len(arms) > 1:
            continue
        pair = pairs[arms[0]]
        sentence = (
            f"{label}: over all {candidates} {word}, {pair.before} were extracted before and "
            f"{pair.after} after ({pair.lost} lost, {pair.gained} gained; exact McNemar "
            f"p = {pair.p:.2g})."
        )
        if controls:
            as_good = int((random <= pair.after).sum())
            p = control_p_value(pair.after, random)
            sentence += (
                f" Of {len(controls)} random sets, which left {_range(random)} extracted, "
                f"{as_good} left as few or fewer: p = {p:.2g}, "
                f"and with {len(controls)} sets it cannot be below {1 / (len(controls) + 1):.2g}."
            )
        yield sentence
    if HELD_OUT in groups(report.extraction):
        kept = tally(report.extraction).sel(arm=ORIGINAL, group=HELD_OUT)
        yield (
            f"{int(kept['extracted'])} of {int(kept['candidates'])} held-out pictures, which the "
            "model never saw, count as extracted from the original: the measure's false alarms."
        )


def render(report: Report, pictures: Mapping[str, bytes]) -> str:
    """Return the whole page: one file that needs no network, with text from data escaped.

    Args:
        report: what to show.
        pictures: name -> PNG, as `figures` draws them.
    """
    valid = report.scores["valid"]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            **_tables(report),
            report=report,
            figures={name: _plot(picture) for name, picture in pictures.items()},
            findings=list(findings(report)),
            pairs=pair_with_original(report.extraction),
            canary_word=canary_word(report.extraction),
            invalid=int((~valid.astype(bool)).sum()),
            entries=int(valid.size),
            metric=str(report.scores.attrs["metric"]),
            binned=report.scores.sizes["neuron"] > COLUMNS_AT_MOST,
            gallery=[_gallery_row(row) for row in report.gallery],
            gallery_arms=_gallery_arms(report),
            settings=list(_flat(dict(report.extraction.attrs))),
            arm_settings=[(arm.name, list(_flat(_settings(arm)))) for arm in report.arms],
            provenance=list(_flat(report.provenance)),
        )
    )


def render_summary(report: Report) -> str:
    """Return headline and tables as a fragment of HTML for a notebook."""
    return _environment().get_template("summary.html.j2").render(**_tables(report), report=report)


def _tables(report: Report) -> dict[str, Any]:
    return {
        "headline": headline(report),
        "extraction": extraction_rows(report),
        "quality": quality_rows(report),
    }


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("iarmem_plugin.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _kind(arm: ArmResult) -> str:
    if arm.selector is None or arm.selector.get("name") != "random":
        return f"arm {arm.name}"
    settings = {key: value for key, value in arm.selector.items() if key != "seed"}
    return f"random {settings} {arm.intervention} {arm.fraction}"


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


def _gallery_arms(report: Report) -> list[str]:
    shown = {name for row in report.gallery for name in row.completions}
    return [arm.name for arm in report.arms if arm.name in shown]


def _gallery_row(row: GalleryRow) -> dict[str, Any]:
    return {
        "path": row.path,
        "group": row.group,
        "target": _picture(row.target),
        "original": None if row.original is None else _picture(row.original),
        "completions": {
            arm: {"src": _picture(picture), "similarity": similarity, "extracted": extracted}
            for arm, (picture, similarity, extracted) in row.completions.items()
        },
    }


def _picture(pixels: np.ndarray) -> str:
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, format="PNG")
        return _data_uri(buffer.getvalue())


def _plot(png: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(png)) as image:
        # so that an inch of every figure, and with it its text, is one size on the page
        return {"src": _data_uri(png), "width": round(image.width * CSS_DOTS / DOTS)}


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _settings(arm: ArmResult) -> dict[str, Any]:
    return {"intervention": arm.intervention, "selector": arm.selector, "fraction": arm.fraction}


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _flat(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and len(value) <= 20:
        yield name, ", ".join(map(str, value))
    else:
        yield name, "–" if value is None else str(value)
