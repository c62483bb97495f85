"""Heatmaps of several scores, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from iarmem_plugin.report.backend import Figure
from iarmem_plugin.report.figures import NAME, finish, new_figure, spread_ticks, write_cells
from iarmem_plugin.report.results import block_sums
from iarmem_plugin.text import one_line

ABREAST = 3
CELLS = 120  # up to which their numbers are written into them


def heatmaps(scores: Mapping[str, xr.Dataset]) -> Figure:
    """Draw the sum of each metric over a block's neurons, block by scale.

    Each has colours of its own: sums from few and from many images have other sizes.

    Args:
        scores: by name: ``score`` and ``valid``, dims (block, scale, neuron).
    """
    sums = {name: block_sums(one) for name, one in scores.items()}
    blocks, scales = (max(one.sizes[dim] for one in sums.values()) for dim in ("block", "scale"))
    columns = min(ABREAST, len(sums))
    rows = -(-len(sums) // columns)
    width, height = min(8.0, max(2.6, 1.0 + 0.5 * scales)), min(9.0, max(2.2, 1.0 + 0.3 * blocks))
    figure = new_figure(width * columns, height * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(sums) :]:
        axes.set_axis_off()
    for axes, (name, total) in zip(panels, sums.items(), strict=False):
        finish(axes)
        axes.imshow(total.values, aspect="auto", origin="lower", cmap="viridis")
        named = scores[name].coords.get("scale_name", total["scale"]).values
        places, _ = spread_ticks(named)
        shown = [one_line(named[place], 10) for place in places]
        axes.set_xticks(places, shown, parse_math=False)
        axes.set_yticks(*spread_ticks(total["block"].values), parse_math=False)
        axes.set_title(one_line(name, NAME), loc="left", parse_math=False)
        axes.set_xlabel("scale")
        axes.set_ylabel("block")
        if blocks * scales <= CELLS:
            write_cells(axes, total)
    return figure
