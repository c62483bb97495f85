"""Depth as rows: of ``tables/depth.csv`` and of ``report.json``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import xarray as xr

from iarmem_plugin.evaluation.depth.measure import measure_depth

COLUMNS = (
    *("arm", "block", "pictures", "loss", "change", "twin_change", "share", "counted"),
    *("unseen", "unseen_change", "depth", "depth_low", "depth_high"),
)


def csv_rows(losses: xr.Dataset | None) -> Iterator[list[Any]]:
    """Yield the rows of ``tables/depth.csv``, see `COLUMNS`; NaN is left empty."""
    for one in () if losses is None else measure_depth(losses):
        for number, block in enumerate(one.blocks):
            yield [
                None if value != value else value
                for value in (
                    *(one.arm, number, one.pictures, block.loss, block.change, block.twin_change),
                    *(block.share, block.counted, one.unseen, block.unseen_change),
                    *(one.depth, one.low, one.high),
                )
            ]


def depth_document(losses: xr.Dataset) -> list[dict[str, Any]]:
    """Return what ``report.json`` holds: an entry an arm, with its blocks."""
    return [asdict(one) for one in measure_depth(losses)]
