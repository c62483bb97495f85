"""What edits leave against what they cost: nested curves over a band of random ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.evaluation.counts import EXTRACTED, RECOGNISABLE
from iarmem_plugin.evaluation.evidence.equal import MOST_UNREACHED
from iarmem_plugin.report.arm_figures import LINE, STYLES
from iarmem_plugin.report.backend import Axes, Figure
from iarmem_plugin.report.evidence.controls import bracketing, uniform
from iarmem_plugin.report.evidence.lines import AGREEMENT, Line, Lines, Point
from iarmem_plugin.report.figures import INK, add_legend, finish, new_figure
from iarmem_plugin.report.grid.figure import WIDEST, write_beside
from iarmem_plugin.text import one_line

PANELS = (AGREEMENT, EXTRACTED, RECOGNISABLE)
TITLES = {AGREEMENT: "completed-token agreement"}
BAND, SHADE = "#6e7781", "#d0d7de"
SHARES = (5.0, 95.0)  # percentiles of the curves
STEPS = 120
CLOSE = 0.08  # of the height
TICKS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
Interval = tuple[float, float]


def outcomes_over_band(lines: Lines, intervals: Mapping[str, Interval]) -> Figure:
    """Draw each outcome against the change of the held-out loss, a row an intervention.

    Args:
        lines: the arms; there are random curves.
        intervals: name of a treatment's first arm -> ends of its change's interval.
    """
    rows, shown = list(_rows(lines)), [one for one in PANELS if one in lines.outcomes]
    styles = _styles(rows)
    figure = new_figure(0.9 + 3.5 * len(shown), 0.5 + 3.4 * len(rows))
    panels = figure.subplots(len(rows), len(shown), squeeze=False, sharey=True, sharex="row")
    for (edit, treatments, random), row in zip(rows, panels, strict=True):
        for axes, outcome in zip(row, shown, strict=True):
            _draw(axes, lines, treatments, random, outcome, styles)
            axes.set_title(TITLES.get(outcome, outcome), loc="left", fontsize=10, parse_math=False)
        _ranges(row[0], lines, treatments, intervals, styles, shown[0])
        row[0].set_ylabel(one_line(edit, 44), parse_math=False)
        if (widest := max(_farthest(one) for one in (*treatments, *random))) > WIDEST:
            row[0].set_xscale("symlog", linthresh=WIDEST / 5, linscale=1.5)
            row[0].set_xticks([one for one in TICKS if one <= widest])
            row[0].xaxis.set_major_formatter("{x:g}")
            row[0].xaxis.minorticks_off()
    for axes in panels[-1]:
        axes.set_xlabel("change of the held-out loss (nats a token)", fontsize=9)
    handles, names = zip(*_meanings(panels[0][0], lines, styles), strict=True)
    add_legend(figure, handles, names, fontsize=8.5)
    return figure


def _rows(lines: Lines) -> Iterator[tuple[str, list[Line], list[Line]]]:
    """Yield each intervention, its treatments and its random curves."""
    found: dict[str, list[Line]] = {}
    for line in uniform(lines.controls):
        found.setdefault(json.dumps(line.intervention, default=str), []).append(line)
    for random in found.values():
        mine = [one for one in lines.treatments if one.intervention == random[0].intervention]
        yield random[0].edit, mine, random


def _styles(rows: Sequence[tuple[str, list[Line], list[Line]]]) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys(one.label for _, treatments, _ in rows for one in treatments)
    return {name: STYLES[1 + place % (len(STYLES) - 1)] for place, name in enumerate(names)}


def _draw(
    axes: Axes,
    lines: Lines,
    treatments: Sequence[Line],
    random: Sequence[Line],
    outcome: str,
    styles: Mapping[str, tuple[str, str]],
) -> None:
    finish(axes)
    rings = _band(axes, lines.original, random, outcome)
    begin = lines.original.outcomes[outcome].mean()
    axes.axhline(begin, color=INK, linestyle="--", linewidth=0.8, alpha=0.6)
    if lines.twin is not None:
        axes.axhline(lines.twin.outcomes[outcome].mean(), color=INK, linestyle=":", linewidth=0.9)
    places = dict(rings)
    for line in treatments:
        colour, marker = styles[line.label]
        at = _path(lines.original, line, outcome)
        axes.plot(*at.T, color=colour, linewidth=1.1, alpha=0.75, zorder=3)
        axes.plot(
            *at[1:].T, marker, color=colour, markersize=5.5, markeredgecolor="white",
            markeredgewidth=0.6, linestyle="none", zorder=4,
        )  # fmt: skip
        places |= {f"{line.label} {n}": (x, y) for n, (x, y) in enumerate(at[1:].tolist())}
    if outcome == PANELS[0]:
        write_beside(axes, places, {name: name for name in _apart(rings)})
    axes.axvline(0.0, color=INK, linewidth=0.6, alpha=0.4)
    axes.set_ylim(-0.04, 1.04)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color=LINE, linewidth=0.5)


def _band(axes: Axes, original: Point, random: Sequence[Line], outcome: str) -> dict[str, Interval]:
    """Draw between which percentiles the random curves lie; return where each fraction is."""
    rings = _rings(random, outcome)
    across = np.linspace(0.0, max(one.cost for line in random for one in line.points), STEPS)
    found = []
    for cost in across.tolist():
        near = bracketing(random, cost)
        read = np.array([_read(_path(original, line, outcome), cost) for line in near])
        if np.isnan(read).mean() > MOST_UNREACHED:
            break  # beyond, nothing can be held against them
        found.append(np.nanpercentile(read, (SHARES[0], 50.0, SHARES[1])))
    low, middle, high = np.array(found).T
    axes.fill_between(across[: len(low)], low, high, color=SHADE, linewidth=0, alpha=0.8, zorder=1)
    axes.plot(across[: len(low)], middle, color=BAND, linewidth=1.2, zorder=2)
    for place in rings.values():
        axes.plot(*place, "o", color="white", markersize=3.6, markeredgecolor=BAND, zorder=2.5)
    return rings


def _apart(rings: Mapping[str, Interval]) -> Iterator[str]:
    """Yield the names of the rings that are not too close to the next to be named, too."""
    last = np.inf
    for name, (_, up) in reversed(list(rings.items())):
        if abs(up - last) >= CLOSE:
            yield name
            last = up


def _rings(random: Sequence[Line], outcome: str) -> dict[str, Interval]:
    """Return cost and outcome of the mean random set of each fraction, named by it."""
    found: dict[float, list[Interval]] = {}
    for point in (point for line in random for point in line.points):
        at = (point.cost, float(point.outcomes[outcome].mean()))
        found.setdefault(point.fraction or 0.0, []).append(at)
    means = {one: np.mean(found[one], axis=0).tolist() for one in sorted(found)}
    return {f"{100 * one:g}%": (across, up) for one, (across, up) in means.items()}


def _ranges(
    axes: Axes,
    lines: Lines,
    treatments: Sequence[Line],
    intervals: Mapping[str, Interval],
    styles: Mapping[str, tuple[str, str]],
    outcome: str,
) -> None:
    """Draw how sure the change of each treatment is."""
    for line in treatments:
        for point in line.points:
            if point.arms[0] in intervals:
                up = point.outcomes[outcome].mean()
                axes.plot(
                    intervals[point.arms[0]], (up, up), color=styles[line.label][0], linewidth=0.9,
                    alpha=0.6, zorder=2.8,
                )  # fmt: skip


def _path(original: Point, line: Line, outcome: str) -> Float64[np.ndarray, "point 2"]:
    """Return change and mean outcome of the original and of a line's points."""
    points = (original, *line.points)
    return np.array([[one.cost, one.outcomes[outcome].mean()] for one in points])


def _read(path: Float64[np.ndarray, "point 2"], cost: float) -> float:
    """Return where a curve is at a cost, NaN beyond what it reaches."""
    return float(np.interp(cost, np.maximum.accumulate(path[:, 0]), path[:, 1], right=np.nan))


def _farthest(line: Line) -> float:
    return max(abs(point.cost) for point in line.points)


def _meanings(
    axes: Axes, lines: Lines, styles: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[Any, str]]:
    yield axes.plot([], [], color=INK, linestyle="--", linewidth=0.8, alpha=0.6)[0], "original"
    if lines.twin is not None:
        yield axes.plot([], [], color=INK, linestyle=":", linewidth=0.9)[0], "twin"
    yield axes.fill_between([], [], color=SHADE), "90% of the random curves"
    yield axes.plot([], [], color=BAND, linewidth=1.2)[0], "their median"
    (ring,) = axes.plot([], [], "o", color="white", markersize=3.6, markeredgecolor=BAND)
    yield (
        ring,
        "mean random set of each fraction",
    )
    for name, (colour, marker) in styles.items():
        (handle,) = axes.plot([], [], marker, color=colour, markersize=5.5)
        yield handle, one_line(name, 44)
