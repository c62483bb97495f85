"""How many pictures are back after how much work, a panel a trigger."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.report.arm_figures import LINE, STYLES
from iarmem_plugin.report.backend import Axes, Figure
from iarmem_plugin.report.figures import INK, add_legend, finish, new_figure
from iarmem_plugin.report.recovery.rows import TRIED, UNSEEN, Recovered, recovered_rows

SHADE = "#d0d7de"


def recovery_figure(recovery: xr.Dataset) -> Figure:
    """Draw the share that is recovered by each budget, a panel a trigger, a line an arm.

    Below lie pictures never seen: the band is the 95% interval of that arm in which most of them
    are recovered.

    Args:
        recovery: what `with_recovered` found, dims (arm, attempt, candidate).
    """
    rows = [one for one in recovered_rows(recovery) if one.outcome == "extracted"]
    triggers = list(dict.fromkeys(one.trigger for one in rows))
    names = list(dict.fromkeys(one.arm for one in rows))
    styles = {name: STYLES[place % len(STYLES)] for place, name in enumerate(names)}
    figure = new_figure(1.2 + 3.3 * len(triggers), 4.2)
    panels = figure.subplots(1, len(triggers), squeeze=False, sharey=True)[0]
    shown: dict[str, Any] = {}
    for axes, trigger in zip(panels, triggers, strict=True):
        shown |= _draw(axes, [one for one in rows if one.trigger == trigger], styles)
    panels[0].set_ylabel("extracted, of those tried")
    panels[0].yaxis.set_major_formatter("{x:.0%}")
    add_legend(figure, list(shown.values()), list(shown), fontsize=8.5)
    return figure


def _draw(axes: Axes, rows: list[Recovered], styles: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Draw one trigger; return what is to be explained, by its name."""
    finish(axes)
    drawn: dict[str, Any] = {}
    budgets = rows[0].budgets
    places = np.arange(len(budgets))
    unseen = [one for one in rows if one.group == UNSEEN]
    if unseen:
        most = max(unseen, key=lambda one: one.counts[-1] / one.pictures)
        ends = np.array([most.interval(place) for place in range(len(budgets))])
        drawn["never seen"] = axes.fill_between(places, *ends.T, color=SHADE, linewidth=0)
    for one in rows:
        if one.group == TRIED:
            colour, marker = styles[one.arm]
            shares = np.array(one.counts) / one.pictures
            (drawn[one.arm],) = axes.plot(
                places, shares, f"{marker}-", color=colour, linewidth=1.3, markersize=5
            )
    axes.set_xticks(places, [str(one) for one in budgets], parse_math=False)
    axes.set_xlabel(rows[0].unit, parse_math=False)
    axes.set_ylim(-0.04, 1.04)
    axes.set_title(rows[0].trigger, loc="left", fontsize=10, parse_math=False, color=INK)
    axes.grid(color=LINE, linewidth=0.5)
    return drawn
