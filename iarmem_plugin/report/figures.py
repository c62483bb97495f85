"""The report's figures: xarray in, a matplotlib Figure out; no global state is touched."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from iarmem_plugin.report.backend import Axes, Figure, FigureCanvasAgg, colormaps
from iarmem_plugin.report.results import block_sums

INK = "#24292f"
CONTROL = "#8b949e"
# Okabe and Ito's colours, which stay apart for colour-blind readers
COLOURS = ("#24292f", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "v", "D", "P", "X")
COLUMNS_AT_MOST = 1024
DPI = 150

Columns = Mapping[str, Sequence[str]]  # what is drawn as one thing: its label, and its arms


def heatmap(scores: xr.Dataset) -> Figure:
    """Draw the sum of the metric over a block's neurons, block by scale.

    Args:
        scores: ``score`` and ``valid``, dims (block, scale, neuron); neurons that are not valid
            count 0.
    """
    total = block_sums(scores)
    blocks, scales = total.sizes["block"], total.sizes["scale"]
    figure, axes = _figure(max(3.6, 1.9 + 0.72 * scales), max(2.4, 1.1 + 0.34 * blocks))
    image = axes.imshow(total.values, aspect="auto", origin="lower", cmap="viridis")
    axes.set_xticks(range(scales), _scale_names(scores))
    axes.set_yticks(*_spread_ticks(total["block"].values))
    axes.set_xlabel("scale")
    axes.set_ylabel("block")
    axes.spines[:].set_visible(False)
    if blocks * scales <= 240:
        _write_cells(axes, total)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(f"sum of {_metric(scores)} over neurons")
    bar.outline.set_visible(False)
    return figure


def neurons_by_block(scores: xr.Dataset, scales: Sequence[int] | None = None) -> Figure:
    """Draw every neuron's score, neuron index by block, one picture a scale.

    Args:
        scores: ``score`` and ``valid``, dims (block, scale, neuron).
        scales: positions along ``scale``; by default four spread over all of them.
    """
    chosen = spread_scales(scores) if scales is None else tuple(scales)
    score, width = _binned(scores["score"].where(scores["valid"]))
    score = score.transpose("scale", "block", "neuron")
    blocks = score.sizes["block"]
    height = 0.6 + len(chosen) * max(1.15, 0.42 + 0.11 * blocks)
    figure = new_figure(9.2, height)
    panels = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
    colours = colormaps["magma"].with_extremes(bad="#c9d1d9")
    low, high = _finite_range(score.isel(scale=list(chosen)).values)
    names = _scale_names(scores)
    for axes, scale in zip(panels, chosen, strict=True):
        picture = np.ma.masked_invalid(score.isel(scale=scale).values)
        extent = (-0.5, score.sizes["neuron"] * width - 0.5, -0.5, blocks - 0.5)
        image = axes.imshow(
            picture, aspect="auto", origin="lower", cmap=colours, vmin=low, vmax=high,
            interpolation="nearest", extent=extent,
        )  # fmt: skip
        axes.set_title(f"scale {names[scale]}", loc="left")
        axes.set_yticks(*_spread_ticks(score["block"].values, at_most=6))
        axes.set_ylabel("block")
        axes.spines[:].set_visible(False)
    panels[-1].set_xlabel("neuron" if width == 1 else f"neuron (each column: highest of {width})")
    bar = figure.colorbar(image, ax=list(panels), aspect=30)
    bar.set_label(_metric(scores))
    bar.outline.set_visible(False)
    return figure


def spread_scales(scores: xr.Dataset, count: int = 4) -> tuple[int, ...]:
    """Pick positions along ``scale``, spread from the second (if any) to the last.

    The first scale reads only the class, so it is the least telling and is left out if others do.
    """
    last = scores.sizes["scale"] - 1
    first = 1 if last >= count else 0
    return tuple(dict.fromkeys(int(place) for place in np.linspace(first, last, count).round()))


def histogram(scores: xr.Dataset) -> Figure:
    """Draw how the valid neurons' scores are distributed, one line a scale."""
    figure, axes = _figure(7.2, 3.4)
    score = scores["score"].where(scores["valid"])
    edges = np.linspace(*_finite_range(score.values), 61)
    scales = score.sizes["scale"]
    shades = colormaps["viridis"](np.linspace(0.0, 0.9, scales))
    for scale, name in enumerate(_scale_names(scores)):
        values = score.isel(scale=scale).values
        counts, _ = np.histogram(values[np.isfinite(values)], bins=edges)
        axes.stairs(counts, edges, color=shades[scale], label=name, linewidth=1.5)
    axes.set_xlabel(_metric(scores))
    axes.set_ylabel("neurons")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.legend(title="scale", ncols=1 + scales // 6, frameon=False)
    return figure


def extraction_by_group(counts: xr.Dataset, columns: Columns) -> Figure:
    """Draw the share of extracted candidates by group, with 95% Wilson intervals.

    Args:
        counts: ``extracted``, ``candidates``, ``low``, ``high``, dims (arm, group).
        columns: label -> names of the arms drawn under it; several are drawn as a band from the
            least to the most, each with its point and interval.
    """
    names = [str(name) for name in counts["group"].values]
    figure, axes = _figure(max(6.0, 1.6 + 1.05 * len(names)), 4.0)
    share = (counts["extracted"] / counts["candidates"]).transpose("arm", "group")
    places = np.arange(len(names))
    slots = np.linspace(-0.36, 0.36, len(columns)) if len(columns) > 1 else np.zeros(1)
    for index, (label, arms) in enumerate(columns.items()):
        colour, marker = _style(index, len(arms))
        if len(arms) > 1:
            spread = share.sel(arm=list(arms))
            low, high = spread.min("arm").values, spread.max("arm").values
            axes.bar(
                places + slots[index], high - low + 0.008, bottom=low - 0.004, width=0.14,
                color=colour, alpha=0.35, linewidth=0,
            )  # fmt: skip
        for arm, offset in zip(arms, _jitter(len(arms)), strict=True):
            value = share.sel(arm=arm).values
            ends = np.stack(
                [
                    value - counts["low"].sel(arm=arm).values,
                    counts["high"].sel(arm=arm).values - value,
                ]
            )
            axes.errorbar(
                places + slots[index] + offset, value, yerr=ends.clip(min=0), fmt=marker,
                color=colour, markersize=5.5 if len(arms) == 1 else 3, capsize=0,
                elinewidth=1.4 if len(arms) == 1 else 0.6,
                label=_words(label) if arm == arms[0] else None,
            )  # fmt: skip
    for place in places[1::2]:
        axes.axvspan(place - 0.5, place + 0.5, color="#f3f5f7", zorder=-1, linewidth=0)
    sizes = counts["candidates"].isel(arm=0).values
    ticks = [f"{_words(name, 14)}\nn={size}" for name, size in zip(names, sizes, strict=True)]
    axes.set_xticks(places, ticks)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_ylabel("extracted")
    axes.grid(axis="y", color="#d8dee4", linewidth=0.6)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, frameon=False)
    return figure


def extraction_against_quality(
    counts: xr.Dataset, quality: xr.DataArray, columns: Columns
) -> Figure:
    """Draw the share of extracted candidates against image quality, one panel a measure.

    Args:
        counts: ``extracted``, ``candidates``, ``low``, ``high``, dims (arm).
        quality: float, dims (arm, label); NaN where it was not measured.
        columns: label -> names of the arms drawn alike.
    """
    labels = [str(label) for label in quality["label"].values]
    across = min(2, len(labels))
    down = -(-len(labels) // across)
    figure = new_figure(4.7 * across, 0.6 + 3.5 * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    share = counts["extracted"] / counts["candidates"]
    for axes, label in zip(panels, labels, strict=False):
        for index, (name, arms) in enumerate(columns.items()):
            colour, marker = _style(index, len(arms))
            value = share.sel(arm=list(arms)).values
            low = value - counts["low"].sel(arm=list(arms)).values
            high = counts["high"].sel(arm=list(arms)).values - value
            axes.errorbar(
                quality.sel(arm=list(arms), label=label).values, value,
                yerr=np.stack([low, high]).clip(min=0), fmt=marker, color=colour, markersize=7,
                elinewidth=0.8, capsize=0, alpha=1.0 if len(arms) == 1 else 0.75,
                label=_words(name),
            )  # fmt: skip
        _finish(axes)
        axes.set_title("\n".join(textwrap.wrap(_words(label, 170), 56)), fontsize=8.5, loc="left")
        axes.set_xlabel("value (further left: closer to the reference)")
        axes.set_ylim(-0.03, min(1.03, float(counts["high"].max()) + 0.05))
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.grid(color="#d8dee4", linewidth=0.6)
    for axes in panels[::across]:
        axes.set_ylabel("extracted")
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6, frameon=False
    )
    return figure


def selected_by_block(neurons: xr.DataArray) -> Figure:
    """Draw which share of each block's neurons an arm edits.

    Args:
        neurons: bool, dims (arm, block, neuron).
    """
    share = neurons.astype("float64").mean("neuron").transpose("arm", "block")
    arms, blocks = share.sizes["arm"], share.sizes["block"]
    figure, axes = _figure(max(5.0, 2.6 + 0.5 * blocks), 1.1 + 0.32 * arms)
    image = axes.imshow(share.values, aspect="auto", cmap="cividis", vmin=0.0)
    axes.set_yticks(range(arms), [_words(str(name)) for name in share["arm"].values])
    axes.set_xticks(*_spread_ticks(share["block"].values, at_most=30))
    axes.set_xlabel("block")
    axes.spines[:].set_visible(False)
    if arms * blocks <= 240:
        _write_cells(axes, share, "{:.0%}")
    bar = figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}")
    bar.set_label("neurons edited")
    bar.outline.set_visible(False)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure on white, sizes in inches, that knows how to be drawn."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Render a figure as PNG of `DPI` pixels an inch."""
    with io.BytesIO() as buffer, warnings.catch_warnings():
        # names come from data, and no font has every script
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = new_figure(width, height)
    axes = figure.subplots()
    _finish(axes)
    return figure, axes


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8b949e")
    axes.tick_params(color="#8b949e", labelcolor=INK)
    axes.set_axisbelow(True)


def _write_cells(axes: Axes, table: xr.DataArray, form: str | None = None) -> None:
    low, high = (float(end) for end in axes.images[0].get_clim())
    for (row, column), value in np.ndenumerate(table.values):
        dark = value < (low + high) / 2
        written = (form or ("{:.3g}" if abs(value) < 999.5 else "{:.0f}")).format(value)
        axes.text(
            column, row, written, ha="center", va="center", fontsize=8,
            color="white" if dark else "black",
        )  # fmt: skip


def _spread_ticks(values: np.ndarray, *, at_most: int = 16) -> tuple[list[int], list[str]]:
    step = -(-len(values) // at_most)
    places = list(range(0, len(values), step))
    return places, [str(values[place]) for place in places]


def _binned(score: xr.DataArray) -> tuple[xr.DataArray, int]:
    width = -(-score.sizes["neuron"] // COLUMNS_AT_MOST)
    if width == 1:
        return score, 1
    with warnings.catch_warnings():
        # a bin without a valid neuron stays NaN, and is drawn as such
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")
        return score.coarsen(neuron=width, boundary="pad").max(), width


def _finite_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale_names(scores: xr.Dataset) -> list[str]:
    names = scores.coords.get("scale_name", scores["scale"])
    return [_words(str(name)) for name in names.values]


def _metric(scores: xr.Dataset) -> str:
    return _words(str(scores.attrs.get("metric", "score")))


def _words(text: str, at_most: int = 40) -> str:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= at_most else shown[: at_most - 1] + "…"
    return shown.replace("$", r"\$")  # else matplotlib reads it as mathematics


def _style(index: int, arms: int) -> tuple[str, str]:
    if arms > 1:
        return CONTROL, "o"
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _jitter(arms: int) -> np.ndarray:
    return np.linspace(-0.05, 0.05, arms) if arms > 1 else np.zeros(1)
