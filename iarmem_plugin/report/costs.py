"""What each arm costs in predicted and in generated images, as the report's tables say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from iarmem_plugin.evaluation.counts import ORIGINAL, groups
from iarmem_plugin.evaluation.likelihood import TEMPERATURES
from iarmem_plugin.evaluation.losses import TEMPERATURE
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report.results import Results

MARK = "*"
FITTED = "fitted temperature (of the logits, on images that are not reported)"


class Cost(NamedTuple):
    """One row: a value an arm, and where it is known, its 95% interval.

    Attributes:
        label: what it is, in what unit, of how many images.
        values: dims (arm).
        low: lower ends, NaN where they are not known; None for what is no change.
        high: upper ends; likewise.
        unmodified: what is said of the original beside its value, such as the loss itself.
    """

    label: str
    values: xr.DataArray
    low: xr.DataArray | None = None
    high: xr.DataArray | None = None
    unmodified: str = ""

    def written(self, value: float) -> str:
        """Return a value as it is shown: a change with its sign."""
        if self.low is not None:
            return f"{value:+.3f}"
        ends = TEMPERATURES[[0, -1]] if self.label == FITTED else ()
        return f"{value:.3f}" + (" (end of its range)" if np.isclose(value, ends).any() else "")

    def interval(self, arm: str) -> str:
        """Return an arm's interval, if it is known."""
        if self.low is None or self.high is None:
            return ""
        ends = [float(end.sel(arm=arm)) for end in (self.low, self.high)]
        return f"[{', '.join(map(self.written, ends))}]" if np.isfinite(ends).all() else ""

    def span(self, arms: Sequence[str]) -> str:
        """Return the range over some arms."""
        values = self.values.sel(arm=list(arms)).values
        return " to ".join(dict.fromkeys(self.written(one) for one in (values.min(), values.max())))

    def sentence(self, arm: str) -> str:
        """Say what an arm costs, with its interval, and which way that is."""
        shown = f"{self.written(float(self.values.sel(arm=arm)))} nats a token {self.interval(arm)}"
        better = self.high is not None and bool(self.high.sel(arm=arm) < 0)
        means = ": images that were never shown are predicted better" if better else ""
        return f" Its held-out loss changes by {shown.rstrip()}{means}."

    def beside(self, arm: str, sets: Sequence[str]) -> str:
        """Say whether an arm can be held against random sets at equal quality."""
        if not sets or not float(self.values.sel(arm=arm)) > self.values.sel(arm=list(sets)).max():
            return ""
        return " None of these cost as much held-out loss, so at equal quality nothing is shown."


def costs(results: Results) -> tuple[Cost, ...]:
    """Return what the losses say of each arm; nothing where they were not measured.

    The change on held-out images at the fitted temperature comes first, then the same of members
    that are no canaries, then the temperature and the loss without it.
    """
    if results.losses is None:
        return ()
    unseen, members = (_having(results.extraction, role)[:1] for role in ("held-out", "member"))
    return tuple(_costs(results, results.losses, unseen, members))


def first_cost(results: Results) -> Cost | None:
    """Return the change of the held-out loss, if that was measured."""
    if results.losses is None or not _having(results.extraction, "held-out"):
        return None
    return costs(results)[0]


def image_remark(found: Sequence[QualityValue | None]) -> str:
    """Say how sure a value of generated images is, and of one or several, which are marked.

    Args:
        found: of each arm that is shown as one, its value; None where images were not generated.
    """
    values = [one for one in found if one is not None]
    parts = [_spread(values[0])] if len(found) == len(values) == 1 else []
    if marks := dict.fromkeys(one.mark for one in values if one.mark):
        of = "" if len(found) == 1 else f"{sum(bool(one.mark) for one in values)} of {len(found)} "
        parts.append(f"{of}{' / '.join(marks)}")
    return ", ".join(filter(None, parts))


def real_pictures(results: Results, label: str) -> str:
    """Say what real pictures come to, as many and compared alike, if that is known."""
    for values in results.floors.values():
        for one in values:
            if label.startswith(f"{one.label},") and one.value is not None:
                return f"; real pictures: {one.value:.4g} {_spread(one)}".rstrip()
    return ""


def marks_explained(results: Results) -> Iterator[str]:
    """Say what the mark means, where a value has one."""
    marks = dict.fromkeys(one.mark for arm in results.arms for one in arm.quality if one.mark)
    if marks:
        yield f"{MARK} below real pictures held against real pictures: {' / '.join(marks)}"


def _spread(value: QualityValue) -> str:
    known = (("±", value.error), ("sd", value.deviation))
    return ", ".join(f"{sign} {spread:.2g}" for sign, spread in known if spread is not None)


def _costs(
    results: Results, counted: xr.Dataset, unseen: list[str], members: list[str]
) -> Iterator[Cost]:
    for group in (*unseen, *members):
        mine, size = counted.sel(group=group), int((results.extraction["group"] == group).sum())
        yield Cost(
            f"{group} loss, change (nats a token at each arm's fitted temperature, n={size})",
            *(mine["change"], mine["low"], mine["high"]),
            f"loss {mine['loss'].sel(arm=ORIGINAL).item():.3f}",
        )
    yield Cost(FITTED, results.extraction[TEMPERATURE].astype(np.float64))
    for group in unseen:
        plain = counted["plain_loss"].sel(group=group)
        yield Cost(f"{group} loss at temperature 1 (nats a token)", plain)


def _having(extraction: xr.Dataset, role: str) -> list[str]:
    """Return the groups of a role, in reading order."""
    roles = extraction["role"].values.astype(str)
    known = set(extraction["group"].values[roles == role].astype(str))
    return [name for name in groups(extraction) if name in known]
