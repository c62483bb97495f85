"""Figures of scores, and what all figures share: xarray in, a matplotlib Figure out.

No global state is touched, and no text is read as mathematics: names come from data.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.report.backend import Axes, Figure, FigureCanvasAgg, Legend, colormaps
from iarmem_plugin.report.results import block_sums
from iarmem_plugin.text import one_line

INK = "#24292f"
SOFT = "#8b949e"
COLUMNS_AT_MOST = 1024
DPI = 150
NAME = 40  # signs of a name


def heatmap(scores: xr.Dataset) -> Figure:
    """Draw the sum of the metric over a block's neurons, block by scale.

    Args:
        scores: ``score`` and ``valid``, dims (block, scale, neuron); neurons that are not valid
            count 0.
    """
    total = block_sums(scores)
    blocks, scales = total.sizes["block"], total.sizes["scale"]
    names = _scale_names(scores)
    longest = max(map(len, names))
    lean: dict[str, Any] = {"rotation": 40, "ha": "right"} if longest > 10 else {}
    room = 0.07 * longest if lean else 0.0  # for the names
    width, height = min(16.0, max(3.6, 1.9 + 0.72 * scales)), max(2.4, 1.1 + 0.34 * blocks)
    figure, axes = one_plot(width + room, height + room)
    image = axes.imshow(total.values, aspect="auto", origin="lower", cmap="viridis")
    axes.set_xticks(range(scales), names, parse_math=False, **lean)
    axes.set_yticks(*spread_ticks(total["block"].values), parse_math=False)
    axes.set_xlabel("scale")
    axes.set_ylabel("block")
    axes.spines[:].set_visible(False)
    if blocks * scales <= 240:
        write_cells(axes, total)
    bar = figure.colorbar(image, ax=axes)
    what = textwrap.fill(f"sum of {_metric(scores)} over neurons", 32)
    bar.set_label(what, parse_math=False)
    bar.outline.set_visible(False)
    return figure


def neurons_by_block(scores: xr.Dataset, scales: Sequence[int] | None = None) -> Figure:
    """Draw every neuron's score, neuron index by block, one picture a scale.

    Args:
        scores: ``score`` and ``valid``, dims (block, scale, neuron).
        scales: positions along ``scale``; by default four spread over all of them.
    """
    score, width = _binned(scores["score"].where(scores["valid"]))
    what = "neuron" if width == 1 else f"neuron (each column: highest of {width})"
    return _by_block(scores, score, width, what, scales)


def neurons_sorted(scores: xr.Dataset, scales: Sequence[int] | None = None) -> Figure:
    """Draw every block's scores from its highest neuron to its lowest, one picture a scale.

    It shows over how many neurons of a block high scores spread, which neurons in order hide.

    Args:
        scores: ``score`` and ``valid``, dims (block, scale, neuron).
        scales: positions along ``scale``; by default four spread over all of them.
    """
    score = scores["score"].where(scores["valid"])
    # what is not valid comes last, and negating keeps NaN at the end
    falling = -np.sort(-score.transpose("block", "scale", "neuron").values, axis=-1)
    score, width = _binned(score.transpose("block", "scale", "neuron").copy(data=falling))
    many = "" if width == 1 else f" (each column: highest of {width})"
    what = f"the block's neurons, highest first{many}"
    return _by_block(scores, score, width, what, scales)


def sums_by_block(scores: xr.Dataset) -> Figure:
    """Draw the sum of the metric over a block's neurons, mean over scales, one bar a block.

    Args:
        scores: ``score`` and ``valid``, dims (block, scale, neuron); neurons that are not valid
            count 0.
    """
    total = block_sums(scores)
    blocks, scales = total.sizes["block"], total.sizes["scale"]
    figure, axes = one_plot(min(12.0, max(3.6, 1.6 + 0.24 * blocks)), 2.8)
    axes.bar(range(blocks), total.mean("scale").values, color=colormaps["viridis"](0.4))
    if scales > 1:  # the least and the most of any scale
        ends = np.stack([total.min("scale").values, total.max("scale").values])
        middle = total.mean("scale").values
        axes.errorbar(
            range(blocks), middle, yerr=np.abs(ends - middle), fmt="none", ecolor=INK,
            elinewidth=0.8, capsize=2,
        )  # fmt: skip
    axes.set_xticks(*spread_ticks(total["block"].values), parse_math=False)
    axes.set_xlabel("block")
    over = "neurons" if scales == 1 else "neurons, mean over scales"
    axes.set_ylabel(textwrap.fill(f"sum of {_metric(scores)} over {over}", 28), parse_math=False)
    return figure


def _by_block(
    scores: xr.Dataset,
    score: xr.DataArray,
    width: int,
    what: str,
    scales: Sequence[int] | None,
) -> Figure:
    """Draw pictures of neurons in columns by block, one a scale, in one range of colours."""
    chosen = spread_scales(scores) if scales is None else tuple(scales)
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
        axes.set_title(f"scale {names[scale]}", loc="left", parse_math=False)
        axes.set_yticks(*spread_ticks(score["block"].values, at_most=6), parse_math=False)
        axes.set_ylabel("block")
        axes.spines[:].set_visible(False)
    panels[-1].set_xlabel(what, parse_math=False)
    bar = figure.colorbar(image, ax=list(panels), aspect=30)
    bar.set_label(_metric(scores), parse_math=False)
    bar.outline.set_visible(False)
    return figure


def spread_scales(scores: xr.Dataset, count: int = 4) -> tuple[int, ...]:
    """Pick positions along ``scale``, spread from the second (if any) to the last.

    Of ten they are 1, 3, 6 and 9, as in the paper (arXiv 2509.00488, figures 5 to 8).
    The first scale reads only the class, so it is the least telling and is left out if others do.
    """
    last = scores.sizes["scale"] - 1
    first = 1 if last >= count else 0
    return tuple(dict.fromkeys(int(place) for place in np.linspace(first, last, count)))


def histogram(scores: xr.Dataset) -> Figure:
    """Draw how the valid neurons' scores are distributed, one line a scale."""
    figure, axes = one_plot(7.2, 3.4)
    score = scores["score"].where(scores["valid"])
    edges = np.linspace(*_finite_range(score.values), 61)
    scales = score.sizes["scale"]
    shades = colormaps["viridis"](np.linspace(0.0, 0.9, scales))
    lines = []
    for scale in range(scales):
        values = score.isel(scale=scale).values
        counts, _ = np.histogram(values[np.isfinite(values)], bins=edges)
        lines.append(axes.stairs(counts, edges, color=shades[scale], linewidth=1.5))
    axes.set_xlabel(_metric(scores), parse_math=False)
    axes.set_ylabel("neurons")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    names, columns = _scale_names(scores), 1 + scales // 6
    if scales <= 18 and columns * max(map(len, names)) <= 24:
        keep_plain(axes.legend(lines, names, title="scale", ncols=columns, frameon=False))
    else:
        add_legend(figure, lines, [f"scale {name}" for name in names])
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure on white, sizes in inches, that knows how to be drawn."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Render a figure as PNG of `DPI` pixels an inch."""
    with io.BytesIO() as buffer, _any_script():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()


def add_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, fontsize: float = 10.0
) -> None:
    """Write a legend above everything, in as many columns as fit; the figure grows with it."""
    given = [f" {label}" if label.startswith("_") else label for label in labels]  # else left out
    legend = None
    for columns in range(min(6, len(labels)), 0, -1):
        if legend is not None:
            legend.remove()
        legend = figure.legend(
            handles, given, loc="outside upper left", ncols=columns, frameon=False,
            fontsize=fontsize,
        )  # fmt: skip
        keep_plain(legend)
        with _any_script():
            fits = legend.get_window_extent().width <= figure.bbox.width
        if fits:
            break
    width, height = figure.get_size_inches()
    rows = -(-len(labels) // columns)
    figure.set_size_inches(width, height + (rows - 1) * fontsize * 0.021)


def keep_plain(legend: Legend) -> None:
    """Keep dollar signs in a legend from being read as mathematics."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def one_plot(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of one plot, sizes in inches."""
    figure = new_figure(width, height)
    axes = figure.subplots()
    finish(axes)
    return figure, axes


def finish(axes: Axes) -> None:
    """Give a plot the look of all."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(color=SOFT, labelcolor=INK)
    axes.set_axisbelow(True)


def write_cells(axes: Axes, table: xr.DataArray, form: str | None = None) -> None:
    """Write the number of every cell of a picture into it."""
    low, high = (float(end) for end in axes.images[0].get_clim())
    for (row, column), value in np.ndenumerate(table.values):
        dark = value < (low + high) / 2
        written = (form or ("{:.3g}" if abs(value) < 999.5 else "{:.0f}")).format(value)
        axes.text(
            column, row, written, ha="center", va="center", fontsize=8,
            color="white" if dark else "black", parse_math=False,
        )  # fmt: skip


def spread_ticks(values: np.ndarray, *, at_most: int = 16) -> tuple[list[int], list[str]]:
    """Return places and texts of ticks that do not crowd."""
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
    return [one_line(name, NAME) for name in names.values]


def _metric(scores: xr.Dataset) -> str:
    return one_line(scores.attrs.get("metric", "score"), NAME)


@contextmanager
def _any_script() -> Iterator[None]:
    with warnings.catch_warnings():
        # names come from data, and no font has every script
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield
