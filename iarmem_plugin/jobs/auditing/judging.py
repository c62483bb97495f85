"""Verdicts: which pictures lie above thresholds that were fixed on pictures never seen."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Bool

from iarmem_plugin.evaluation.membership.signals import VALUES
from iarmem_plugin.evaluation.recovery.curves import OUTCOMES, thresholds
from iarmem_plugin.report.auditing.findings import (
    MEMBER_LIKE,
    NOTHING,
    VERDICTS,
    AuditedPicture,
    Verdict,
    VerdictThreshold,
)


def judged(
    attempts: xr.Dataset,
    signals: xr.Dataset,
    calibrates: Bool[np.ndarray, " candidate"],
    rate: float,
) -> tuple[tuple[VerdictThreshold, ...], list[AuditedPicture]]:
    """Return the thresholds of each verdict, and the verdict on every candidate.

    Args:
        attempts: from `TriggerProtocol.attempted`.
        signals: from `membership_signals`, of the same candidates.
        calibrates: which of the candidates fix thresholds.
        rate: share of these that each verdict may let through.
    """
    values = [
        attempts[name].transpose("attempt", "candidate").to_numpy().astype(float)
        for name in OUTCOMES.values()
    ]
    values.append(signals[VALUES].transpose("signal", "candidate").to_numpy())
    limits = [thresholds(one[:, calibrates], rate) for one in values]
    fixed = _named(attempts, signals, limits)
    every = np.concatenate(values)
    above = every > np.concatenate(limits)[:, None]
    return fixed, [
        _picture(attempts, fixed, place, every[:, place], above[:, place])
        for place in range(len(calibrates))
    ]


def _named(
    attempts: xr.Dataset, signals: xr.Dataset, limits: list[np.ndarray]
) -> tuple[VerdictThreshold, ...]:
    """Return thresholds with what each is of, in the order of verdicts."""
    names = ("trigger", "budget", "unit")
    tried = list(zip(*(attempts[one].values.tolist() for one in names), strict=True))
    found = [
        VerdictThreshold(verdict, measure, str(trigger), int(budget), str(unit), float(limit))
        for verdict, measure, own in zip(VERDICTS[:2], OUTCOMES.values(), limits[:2], strict=True)
        for (trigger, budget, unit), limit in zip(tried, own, strict=True)
    ]
    likely = zip(signals["signal"].values.astype(str).tolist(), limits[-1].tolist(), strict=True)
    found += [VerdictThreshold(MEMBER_LIKE, "signal", one, None, None, at) for one, at in likely]
    return tuple(found)


def _picture(
    attempts: xr.Dataset,
    fixed: tuple[VerdictThreshold, ...],
    place: int,
    values: np.ndarray,
    above: np.ndarray,
) -> AuditedPicture:
    first = fixed[int(above.argmax())] if above.any() else None
    by: tuple[Verdict, str | None, int | None, str | None] = (NOTHING, None, None, None)
    if first is not None:
        by = (first.verdict, first.found_by, first.budget, first.unit)

    told = list(zip(fixed, values.tolist(), strict=True))
    alike, agreeing = (
        max(value for one, value in told if one.measure == measure) for measure in OUTCOMES.values()
    )
    label = int(attempts["label"].values[place])
    return AuditedPicture(
        str(attempts["path"].values[place]),
        label if label >= 0 else None,
        *by,
        alike,
        agreeing,
        {one.found_by: value for one, value in told if one.budget is None},
        values=tuple(values.tolist()),
    )
