"""Treatments: what each costs, and whether it was chosen on what it is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from iarmem_plugin.report.evidence.intervals import intervals
from iarmem_plugin.report.evidence.lines import Line, Lines, tested
from iarmem_plugin.report.evidence.naming import read_images
from iarmem_plugin.report.results import Results


@dataclass(frozen=True, slots=True)
class Treatment:
    """One edit, a split one once.

    Attributes:
        name: of its first arm.
        arms: its arms, one a split.
        line: what it shares with its other fractions: selector and intervention.
        fraction: share of neurons edited; None where none are chosen.
        change: of the held-out loss, nats a token; NaN where it was not measured.
        low: lower end of the change's 95% interval, over held-out pictures; likewise.
        high: upper end.
        chosen_on_tested: whether candidates that are tested are among the images that its neurons
            were chosen on; None where that is not known.
    """

    name: str
    arms: tuple[str, ...]
    line: str
    fraction: float | None
    change: float
    low: float
    high: float
    chosen_on_tested: bool | None


def treatments_of(results: Results, lines: Lines) -> Iterator[Treatment]:
    """Yield the treatments, by line and rising fraction."""
    points = [(line, point) for line in lines.treatments for point in line.points]
    if not points:
        return
    ends = intervals(np.stack([point.change for _, point in points])).tolist()
    captured = _captured_tested(results)
    for (line, point), (low, high) in zip(points, ends, strict=True):
        yield Treatment(
            point.arms[0],
            point.arms,
            f"{line.label}, {line.edit}" if line.selector else line.label,
            point.fraction,
            point.cost,
            low,
            high,
            _chosen_on_tested(line, captured),
        )


def _chosen_on_tested(line: Line, captured: bool | None) -> bool | None:
    """Tell whether a line's neurons were chosen on candidates that are tested."""
    if not line.selector or "cross_fit" in line.selector:
        return False
    if "scored_on" in line.selector:  # by contrast, on the whole of them
        return read_images(str(line.selector.get("scores")))
    return captured if line.selector.get("name") in ("highest", "lowest") else None


def _captured_tested(results: Results) -> bool | None:
    """Tell whether tested candidates are among the captured images, where these are known."""
    if not results.captured:
        return None
    among = tested(results.extraction)
    paths, ids = (results.extraction[one].values[among].tolist() for one in ("path", "image"))
    if all(one.image is not None for one in results.captured):
        return bool({one.image for one in results.captured} & set(ids))
    return bool({one.path for one in results.captured} & set(map(str, paths)))
