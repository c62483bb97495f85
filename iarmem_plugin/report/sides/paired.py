"""What a comparison of two reports holds: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from iarmem_plugin.report.document import plain
from iarmem_plugin.report.sides.settings import Change


@dataclass(frozen=True, slots=True)
class PairedOutcome:
    """One outcome of the same candidates in both reports.

    Attributes:
        arm: what the first report shows it as: an arm, or random sets together.
        arms: how many arms of each report these are; their mean is taken, candidate by candidate.
        group: the candidates' group in the first report, or ``"all canaries"``.
        outcome: ``"agreement"`` (share of the completed tokens that equal the target's),
            ``"extracted"`` or ``"recognisable"`` (shares of the candidates), or ``"loss"`` (nats a
            token, at each arm's fitted temperature).
        candidates: how many are in both.
        first: mean over the candidates in the first report.
        second: the same in the second.
        difference: second - first.
        low: lower end of its 95% interval (percentiles of 2 000 paired bootstrap samples of the
            candidates, seed 0); None for a single candidate.
        high: upper end.
        only_first: candidates that count in the first alone; None for what is not counted, and for
            several arms.
        only_second: likewise.
        p: exact two-sided McNemar p-value; likewise.
    """

    arm: str
    arms: int
    group: str
    outcome: str
    candidates: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    only_first: int | None = None
    only_second: int | None = None
    p: float | None = None


@dataclass(frozen=True, slots=True)
class PairedCost:
    """What an arm costs in both reports: the change of the held-out loss, nats a token.

    Attributes:
        arm: as in `PairedOutcome`.
        arms: likewise; of several, the mean, without an interval.
        first: in the first report, of all its held-out pictures; None where it is not known.
        first_low: lower end of its 95% interval.
        first_high: upper end.
        second: in the second report.
        second_low: lower end.
        second_high: upper end.
    """

    arm: str
    arms: int
    first: float | None
    first_low: float | None
    first_high: float | None
    second: float | None
    second_low: float | None
    second_high: float | None


@dataclass(frozen=True, slots=True)
class Sides:
    """What two reports have in common, and what differs.

    Attributes:
        names: what the reports are called.
        models: their models.
        both: how many candidates are in both.
        alone: how many are in the first alone, and in the second alone.
        renamed: how many of both have two names, and were told by their tokens.
        unlike: how many names are in both that do not stand for one picture.
        regrouped: how many of both are in another group in the second.
        arms: the names of each arm with the same settings, in both reports.
        arms_alone: names of the arms of the first alone, and of the second alone.
        outcomes: what came out, arm by arm, group by group, all canaries first.
        costs: what the arms cost.
        settings: settings and versions that differ.
    """

    names: tuple[str, str]
    models: tuple[str, str]
    both: int
    alone: tuple[int, int]
    renamed: int
    unlike: int
    regrouped: int
    arms: tuple[tuple[str, str], ...]
    arms_alone: tuple[tuple[str, ...], tuple[str, ...]]
    outcomes: tuple[PairedOutcome, ...]
    costs: tuple[PairedCost, ...]
    settings: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        found: dict[str, Any] = plain(asdict(self))
        return found
