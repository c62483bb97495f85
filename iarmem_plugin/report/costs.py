"""What each arm costs in predicted images, as rows of the report's tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from iarmem_plugin.evaluation.counts import HELD_OUT, ORIGINAL, groups, having_role
from iarmem_plugin.evaluation.losses import LOSS, TEMPERATURE, count_losses


class Cost(NamedTuple):
    """One row: a value an arm, and where it is known, its 95% interval.

    Attributes:
        label: what it is, in what unit, of how many images.
        values: dims (arm).
        low: lower ends; None where no interval is known.
        high: upper ends; likewise.
        unmodified: what is said of the original beside its value, such as the loss itself.
    """

    label: str
    values: xr.DataArray
    low: xr.DataArray | None = None
    high: xr.DataArray | None = None
    unmodified: str = ""

    def text(self, value: float) -> str:
        """Return a value as it is shown: a change with its sign."""
        return f"{value:.3f}" if self.low is None else f"{value:+.3f}"

    def span(self, arms: list[str]) -> str:
        """Return the range over some arms."""
        values = self.values.sel(arm=arms).values
        return " to ".join(dict.fromkeys(self.text(one) for one in (values.min(), values.max())))

    def sentence(self, arm: str) -> str:
        """Say what an arm costs, with its interval."""
        if self.low is None or self.high is None:
            return ""
        ends = (self.text(float(end.sel(arm=arm))) for end in (self.low, self.high))
        cost = self.text(float(self.values.sel(arm=arm)))
        return f" Its held-out loss changes by {cost} nats a token [{', '.join(ends)}]."


def costs(extraction: xr.Dataset) -> tuple[Cost, ...]:
    """Return what the losses say of each arm; nothing where they were not measured.

    The change on held-out images at the fitted temperature comes first, then the same of members
    that are no canaries, then the temperature and the loss without it.
    """
    return tuple(_costs(extraction)) if LOSS in extraction else ()


def first_cost(extraction: xr.Dataset) -> Cost | None:
    """Return the change of the held-out loss, if that was measured."""
    return next((one for one in costs(extraction) if one.label.startswith(HELD_OUT)), None)


def _costs(extraction: xr.Dataset) -> Iterator[Cost]:
    counted = count_losses(extraction)
    unseen = [HELD_OUT] if HELD_OUT in groups(extraction) else []
    for group in [*unseen, *_members(extraction)[:1]]:
        mine, size = counted.sel(group=group), int((extraction["group"] == group).sum())
        yield Cost(
            f"{group} loss, change (nats a token at each arm's fitted temperature, n={size})",
            *(mine["change"], mine["low"], mine["high"]),
            f"loss {mine['loss'].sel(arm=ORIGINAL).item():.3f}",
        )
    yield Cost(
        "fitted temperature (of the logits, on images that are not reported)",
        extraction[TEMPERATURE].astype(np.float64),
    )
    for group in unseen:
        yield Cost(
            f"{group} loss at temperature 1 (nats a token)", counted["plain_loss"].sel(group=group)
        )


def _members(extraction: xr.Dataset) -> list[str]:
    known = set(extraction["group"].values[having_role(extraction, "member").values].astype(str))
    return [name for name in groups(extraction) if name in known]
