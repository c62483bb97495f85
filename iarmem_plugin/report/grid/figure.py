"""What edits leave against what they cost: an outcome a panel, treatments numbered points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.report.arm_figures import COLOURS, LINE, MARKERS
from iarmem_plugin.report.backend import Axes, Figure
from iarmem_plugin.report.figures import INK, SOFT, add_legend, finish, new_figure
from iarmem_plugin.report.results import ArmResult
from iarmem_plugin.text import one_line

WIDEST = 0.5  # nats a token; beyond, the axis is logarithmic
FEW = 12  # points that are all numbered
OFFSETS = ((5, 4), (5, -9), (-10, 4), (-10, -9), (0, 9), (0, -14), (12, -3), (-17, -3))  # points
Series = Mapping[str, Sequence[ArmResult]]


def outcomes_against_loss(
    shares: xr.DataArray, change: xr.DataArray, arms: Sequence[ArmResult]
) -> Figure:
    """Draw the share of canaries with each outcome against the change of the held-out loss.

    Args:
        shares: share of the canaries in [0, 1], dims (outcome, arm).
        change: change of the held-out loss at the fitted temperature, nats a token, dims (arm).
        arms: what was run. Treatments that differ in their fraction alone are joined by a line and
            share a number; the colour is the fraction, also of the controls' small points.
    """
    lines, colours = series(arms), _colours(arms)
    figure = new_figure(1.0 + 4.6 * shares.sizes["outcome"], 4.6)
    panels = figure.subplots(1, shares.sizes["outcome"], squeeze=False, sharex=True)[0]
    for axes, outcome in zip(panels, shares["outcome"].values, strict=True):
        mine = shares.sel(outcome=outcome)
        places = {
            arm.name: (change.sel(arm=arm.name).item(), mine.sel(arm=arm.name).item())
            for arm in arms
        }
        _draw(axes, places, arms, lines, colours)
        axes.set_title(f"{outcome}", loc="left", fontsize=10, parse_math=False)
        axes.set_xlabel("change of the held-out loss (nats a token)")
    if np.nanmax(np.abs(change.values), initial=0.0) > WIDEST:
        panels[0].set_xscale("symlog", linthresh=WIDEST / 5, linscale=1.5)
    panels[0].set_ylabel("canaries left")
    _explain(figure, panels[0], arms, lines, colours)
    return figure


def series(arms: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    """Return the treatments, those that differ in their fraction alone together, by rising one."""
    alike: dict[str, list[ArmResult]] = {}
    for arm in arms:
        if arm.role == "treatment":
            alone = arm.name if arm.fraction is None else ""
            key = f"{_without(arm.selector, 'seed')} {arm.intervention} {alone}"
            alike.setdefault(key, []).append(arm)
    found: dict[str, list[ArmResult]] = {}
    for same in alike.values():
        label = same[0].name if len(same) == 1 else _label(same[0])
        taken = label in found
        found[same[0].name if taken else label] = sorted(same, key=lambda one: one.fraction or 0.0)
    return found


def _label(arm: ArmResult) -> str:
    edit = _without(arm.intervention, "name", "backend")
    options = [f"{key} {value}" for key, value in edit.items() if isinstance(value, int | float)]
    names = [str((one or {}).get("name", "")) for one in (arm.selector, arm.intervention)]
    return ", ".join(filter(None, [*names, *options]))


def _without(setting: Mapping[str, Any] | None, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in (setting or {}).items() if key not in keys}


def _colours(arms: Sequence[ArmResult]) -> dict[float | None, str]:
    """Return a colour for each fraction; ink where there is none."""
    known = sorted({arm.fraction for arm in arms if arm.fraction is not None})
    colours: dict[float | None, str] = {None: INK}
    for place, one in enumerate(known):
        colours[one] = COLOURS[1 + place % (len(COLOURS) - 1)]
    return colours


def _draw(
    axes: Axes,
    places: Mapping[str, tuple[float, float]],
    arms: Sequence[ArmResult],
    lines: Series,
    colours: Mapping[float | None, str],
) -> None:
    finish(axes)
    for arm in arms:
        across, up = places[arm.name]
        if arm.role == "control":
            axes.plot(
                across, up, "o", color=colours[arm.fraction], markersize=3, alpha=0.45,
                markeredgewidth=0,
            )  # fmt: skip
        elif arm.role != "treatment":
            style = "--" if arm.role == "original" else ":"
            axes.axhline(up, color=INK, linestyle=style, linewidth=0.9, alpha=0.7)
    for place, same in enumerate(lines.values()):
        points = np.array([places[arm.name] for arm in same])
        if len(same) > 1:
            axes.plot(*points.T, color=SOFT, linewidth=0.6, alpha=0.6, zorder=2.5)
        for point, arm in zip(points, same, strict=True):
            axes.plot(
                *point, MARKERS[place % len(MARKERS)], color=colours[arm.fraction], markersize=6,
                markeredgecolor="white", markeredgewidth=0.5, zorder=3,
            )  # fmt: skip
    axes.axvline(0.0, color=INK, linewidth=0.6, alpha=0.4)
    axes.set_ylim(-0.04, 1.04)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color=LINE, linewidth=0.5)
    _number(axes, places, lines)


def _number(axes: Axes, places: Mapping[str, tuple[float, float]], lines: Series) -> None:
    """Write each line's number beside its points; of many, beside the one that stands freest."""
    drawn = {arm.name: str(number) for number, same in enumerate(lines.values(), 1) for arm in same}
    known = {name: places[name] for name in drawn if np.isfinite(places[name]).all()}
    if not known:
        return
    at = _on_paper(known)
    chosen, taken = list(known), list(at.values())
    if len(known) > FEW:
        free = {name: np.sort(_apart(where, taken))[1] for name, where in at.items()}
        rows = ([arm.name for arm in same if arm.name in known] for same in lines.values())
        chosen = [max(row, key=lambda name: free[name]) for row in rows if row]
    write_beside(axes, known, {name: drawn[name] for name in chosen})


def write_beside(
    axes: Axes, places: Mapping[str, tuple[float, float]], texts: Mapping[str, str]
) -> None:
    """Write texts beside points, where no other point and no other text is.

    Args:
        axes: upwards from 0 to 1.
        places: across and up, of each point by its name.
        texts: what is written beside those of these names.
    """
    at = _on_paper(places)
    taken = list(at.values())
    for name, written in texts.items():
        beside = [at[name] + np.add(one, (3, 3)) for one in OFFSETS]
        best = int(np.argmax([min(_apart(one, taken).min(), 9.0) for one in beside]))
        taken.append(beside[best])
        axes.annotate(
            written, places[name], OFFSETS[best], textcoords="offset points", fontsize=7,
            color=INK, zorder=4, parse_math=False,
        )  # fmt: skip


def _on_paper(places: Mapping[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    """Return where points come to lie, in points of about 4 inches by 4."""
    width = max(1e-9, np.ptp([place[0] for place in places.values()])) if places else 1.0
    return {name: np.array([x / width * 270, y * 250]) for name, (x, y) in places.items()}


def _apart(where: np.ndarray, taken: Sequence[np.ndarray]) -> np.ndarray:
    """Return how far a place is from each that is taken."""
    apart: np.ndarray = np.abs(np.stack(taken) - where).max(axis=1)
    return apart


def _explain(
    figure: Figure,
    axes: Axes,
    arms: Sequence[ArmResult],
    lines: Series,
    colours: Mapping[float | None, str],
) -> None:
    """Write what marks and colours mean above the panels."""
    shown = list(_meanings(axes, arms, colours))
    for place, name in enumerate(lines):
        marker = MARKERS[place % len(MARKERS)]
        (handle,) = axes.plot([], [], marker, color=SOFT, markersize=6)
        shown.append((handle, f"{place + 1} {one_line(name, 44)}"))
    add_legend(figure, [one for one, _ in shown], [name for _, name in shown], fontsize=8.0)


def _meanings(
    axes: Axes, arms: Sequence[ArmResult], colours: Mapping[float | None, str]
) -> Iterator[tuple[Any, str]]:
    roles = {arm.role for arm in arms}
    for role, style in (("original", "--"), ("twin", ":")):
        if role in roles:
            yield axes.plot([], [], color=INK, linestyle=style, linewidth=0.9)[0], role
    if "control" in roles:
        yield axes.plot([], [], "o", color=SOFT, markersize=3, alpha=0.6)[0], "a random set"
    for fraction, colour in colours.items():
        if fraction is not None:
            (patch,) = axes.plot([], [], color=colour, linewidth=5)
            yield patch, f"{100 * fraction:g}% of neurons"
