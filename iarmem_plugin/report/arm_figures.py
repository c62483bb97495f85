"""Figures that hold arms against each other: side by side, or one below the other if many."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.report.backend import Axes, Figure
from iarmem_plugin.report.figures import (
    INK,
    NAME,
    SOFT,
    add_legend,
    finish,
    new_figure,
    one_plot,
    spread_ticks,
    write_cells,
)
from iarmem_plugin.report.tables import SIDE_BY_SIDE
from iarmem_plugin.text import one_line

# Okabe and Ito's colours, which stay apart for colour-blind readers; ink is the original's
COLOURS = (INK, "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "v", "D", "P", "X")
LINE = "#d8dee4"
STYLES = tuple(
    (COLOURS[place], MARKERS[(place + shift) % len(MARKERS)])
    for shift in range(len(MARKERS))
    for place in range(min(shift, 1), len(COLOURS))
)

Columns = Mapping[str, Sequence[str]]  # what is drawn as one thing: its label, and its arms


def extraction_by_group(counts: xr.Dataset, columns: Columns) -> Figure:
    """Draw the share of extracted candidates by group, with 95% Wilson intervals.

    Args:
        counts: ``extracted``, ``candidates``, ``low``, ``high``, dims (arm, group).
        columns: label -> names of the arms drawn under it; several are drawn as a band from the
            least to the most, each with its point and interval. Where they are many, each has a
            line of its own.
    """
    if len(columns) > SIDE_BY_SIDE:
        return _arms_below_each_other(counts, columns)
    names = [str(name) for name in counts["group"].values]
    figure, axes = one_plot(max(6.0, 1.6 + 1.05 * len(names)), 4.0)
    places = np.arange(len(names))
    slots = np.linspace(-0.36, 0.36, len(columns)) if len(columns) > 1 else np.zeros(1)
    handles = [
        _side_by_side(axes, counts.sel(arm=list(arms)), places + slot, style)
        for slot, arms, style in zip(slots, columns.values(), _styles(columns), strict=True)
    ]
    for place in places[1::2]:
        axes.axvspan(place - 0.5, place + 0.5, color="#f3f5f7", zorder=-1, linewidth=0)
    sizes = counts["candidates"].isel(arm=0).values
    ticks = [f"{one_line(name, 14)}\nn={size}" for name, size in zip(names, sizes, strict=True)]
    axes.set_xticks(places, ticks, parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_ylabel("extracted")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    add_legend(figure, handles, [one_line(label, NAME) for label in columns])
    return figure


def extraction_against_quality(
    counts: xr.Dataset, quality: xr.DataArray, columns: Columns
) -> Figure:
    """Draw the share of extracted candidates against image quality, one panel a measure.

    Args:
        counts: ``extracted``, ``candidates``, ``low``, ``high``, dims (arm).
        quality: float, dims (arm, label); NaN where it was not measured.
        columns: label -> names of the arms drawn alike; where they are many, numbers name them.
    """
    labels = [str(label) for label in quality["label"].values]
    across = min(2, len(labels))
    down = -(-len(labels) // across)
    figure = new_figure(4.7 * across, 0.6 + 3.5 * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, label in zip(panels, labels, strict=False):
        handles = _against_quality(axes, counts, quality.sel(label=label), columns)
        lines = textwrap.wrap(one_line(label, 170), 56)
        axes.set_title("\n".join(lines), fontsize=8.5, loc="left", parse_math=False)
        axes.set_ylim(-0.03, min(1.03, float(counts["high"].max()) + 0.05))
    for axes in panels[::across]:
        axes.set_ylabel("extracted")
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    names = [one_line(name, NAME) for name in columns]
    if len(columns) > SIDE_BY_SIDE:
        names = [f"{number} {name}" for number, name in enumerate(names, start=1)]
    add_legend(figure, handles, names, fontsize=10.0 if len(columns) <= SIDE_BY_SIDE else 8.0)
    return figure


def selected_by_block(neurons: xr.DataArray) -> Figure:
    """Draw which share of each block's neurons an arm edits.

    Args:
        neurons: bool, dims (arm, block, neuron), and perhaps half, see `Results`.
    """
    counted = [dim for dim in ("half", "neuron") if dim in neurons.dims]
    share = neurons.astype("float64").mean(counted).transpose("arm", "block")
    arms, blocks = share.sizes["arm"], share.sizes["block"]
    figure, axes = one_plot(max(5.0, 2.6 + 0.5 * blocks), 1.1 + 0.32 * arms)
    image = axes.imshow(share.values, aspect="auto", cmap="cividis", vmin=0.0)
    names = [one_line(name, NAME) for name in share["arm"].values]
    axes.set_yticks(range(arms), names, parse_math=False)
    axes.set_xticks(*spread_ticks(share["block"].values, at_most=30), parse_math=False)
    axes.set_xlabel("block")
    axes.spines[:].set_visible(False)
    if arms * blocks <= 240:
        write_cells(axes, share, "{:.0%}")
    bar = figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}")
    bar.set_label("neurons edited")
    bar.outline.set_visible(False)
    return figure


def _side_by_side(
    axes: Axes, counts: xr.Dataset, places: np.ndarray, style: Mapping[str, Any]
) -> Any:
    """Draw what stands in one column, at a place in each group; return what a legend shows."""
    share, ends = _shares(counts.transpose("arm", "group"))
    arms = len(share)
    if arms > 1:
        low, high = share.min(axis=0), share.max(axis=0)
        axes.bar(
            places, high - low + 0.008, bottom=low - 0.004, width=0.14, color=SOFT, alpha=0.35,
            linewidth=0,
        )  # fmt: skip
    thin = {"markersize": 3, "elinewidth": 0.6} if arms > 1 else {}
    offsets = np.linspace(-0.05, 0.05, arms) if arms > 1 else np.zeros(1)
    drawn = [
        axes.errorbar(
            places + offset, share[arm], yerr=ends[:, arm],
            **{"capsize": 0, "markersize": 5.5, "elinewidth": 1.4, **style, **thin},
        )
        for arm, offset in enumerate(offsets)
    ]  # fmt: skip
    return drawn[0]


def _arms_below_each_other(counts: xr.Dataset, columns: Columns) -> Figure:
    """Draw a panel for each group, and in it a line for each of many arms."""
    groups, sizes = counts["group"].values, counts["candidates"].isel(arm=0).values
    across = min(6, len(groups))
    down = -(-len(groups) // across)
    figure = new_figure(3.0 + 1.25 * across, down * (0.7 + 0.19 * len(columns)))
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, group, size in zip(panels, groups, sizes, strict=False):
        _lines(axes, counts.sel(group=group), columns)
        title = f"{one_line(group, 18)}\nn={size}"
        axes.set_title(title, fontsize=9, loc="left", parse_math=False)
    names = [one_line(label, NAME) for label in columns]
    panels[0].set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    panels[0].set_xlim(-0.04, 1.04)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    return figure


def _lines(axes: Axes, counts: xr.Dataset, columns: Columns) -> None:
    share, _ = _shares(counts)
    axes.axvline(share[0], color=INK, linewidth=0.8, alpha=0.5)
    for place, arms in enumerate(columns.values()):
        values, ends = _shares(counts.sel(arm=list(arms)))
        colour = INK if place == 0 else SOFT if len(arms) > 1 else COLOURS[2]
        axes.errorbar(
            values, np.full(len(values), place), xerr=ends, fmt="o", color=colour, markersize=3.5,
            elinewidth=1.0 if len(arms) == 1 else 0.5, capsize=0,
        )  # fmt: skip
    finish(axes)
    axes.set_xticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(color=LINE, linewidth=0.5)


def _against_quality(
    axes: Axes, counts: xr.Dataset, quality: xr.DataArray, columns: Columns
) -> list[Any]:
    """Draw one panel, and return what a legend shows for each column."""
    handles = []
    styles = zip(columns.values(), _styles(columns), strict=True)
    for number, (arms, style) in enumerate(styles, start=1):
        values, ends = _shares(counts.sel(arm=list(arms)))
        measured = quality.sel(arm=list(arms)).values
        drawn = axes.errorbar(
            measured, values, yerr=ends,
            **{"markersize": 7, "elinewidth": 0.8, "capsize": 0, **style},
            alpha=1.0 if len(arms) == 1 else 0.75,
        )  # fmt: skip
        handles.append(drawn)
        if len(columns) > SIDE_BY_SIDE and len(arms) == 1:
            _number(axes, number, measured, values)
    finish(axes)
    axes.set_xlabel("value (further left: less damage)")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color=LINE, linewidth=0.6)
    return handles


def _number(axes: Axes, number: int, across: np.ndarray, up: np.ndarray) -> None:
    for place in zip(across, up, strict=True):
        if np.isfinite(place).all():
            axes.annotate(
                f"{number}", place, (4, 3), textcoords="offset points", fontsize=6.5, color=INK,
                parse_math=False,
            )  # fmt: skip


def _shares(counts: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares, and how far their intervals reach below and above them."""
    share = (counts["extracted"] / counts["candidates"]).values
    ends = np.stack([share - counts["low"].values, counts["high"].values - share])
    return share, ends.clip(min=0)


def _styles(columns: Columns) -> list[dict[str, Any]]:
    """Return what each column is drawn with; none looks like another, or like the original."""
    found, sets = [], 0
    for index, arms in enumerate(columns.values()):
        if len(arms) > 1:
            found.append({"color": SOFT, "fmt": MARKERS[sets % len(MARKERS)]})
            sets += 1
            continue
        turn, place = divmod(max(index - 1, 0), len(STYLES) - 1)
        colour, marker = STYLES[min(index, 1) + place]
        hollow = {"markerfacecolor": "white"} if turn % 2 else {}
        found.append({"color": colour, "fmt": marker, **hollow})
    return found
