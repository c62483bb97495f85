"""What differs between two reports of one plan: settings, arms and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group

from iarmem_plugin.jobs.compare.rerun.by_picture import (
    TOLERANCE,
    Difference,
    candidates_differ,
    of_candidates,
    of_further,
)
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.sides.settings import Change, changes, leaves
from iarmem_plugin.table import TextTable

_NOT_NUMBERS = ("name", "intervention", "selector", "fraction")
Pairs = Mapping[str, tuple[float | None, float | None]]
_COLUMNS = ("arm", "what", "differ", "report", "again", "largest")


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs between a report and another one of the same plan.

    Attributes:
        settings: settings and versions that differ; they change no verdict on the numbers.
        missing: arms that the new one lacks.
        added: arms that the old one lacks.
        numbers: what differs by more than 1e-6, the arms in their order.
        arms: how many arms both have.
    """

    settings: tuple[Change, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    numbers: tuple[Difference, ...]
    arms: int

    @property
    def found(self) -> bool:
        """Whether an arm is missing on a side, or a number differs."""
        return bool(self.missing or self.added or self.numbers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        return {"found": self.found, "tolerance": TOLERANCE, **asdict(self)}

    def table(self) -> Group:
        """Return what differs as tables to print."""
        one_side = [(name, "the arm is missing", "", "", "", "") for name in self.missing]
        one_side += [(name, "the arm is new", "", "", "", "") for name in self.added]
        rows = [
            (one.arm, one.what, str(one.numbers), *map(_said, (one.old, one.new, one.largest)))
            for one in self.numbers
        ]
        title = "What differs" if self.found else f"Nothing differs in {self.arms} arms"
        note = f"numbers that differ by {TOLERANCE:g} or less are alike"
        numbers = TextTable(title, _COLUMNS, [*one_side, *rows], numbers=_COLUMNS[2:], notes=[note])
        columns = ("setting or version", "report", "again")
        settings = [(one.key, one.old, one.new) for one in self.settings]
        others = [TextTable("Settings and versions that differ", columns, settings)]
        return Group(numbers, *(others if settings else ()))


def differences(old: Report, new: Report) -> Differences:
    """Compare two reports, arm by arm and number by number.

    Args:
        old: the first one.
        new: the one that was made again.
    """
    before, after = old.to_dict(), new.to_dict()
    ours, theirs = ({arm["name"]: arm for arm in one["arms"]} for one in (before, after))
    shared = [name for name in ours if name in theirs]
    apart = candidates_differ(old.extraction, new.extraction)
    numbers = [] if apart is None else [Difference("all", apart, 1, None, None, None)]
    for name in shared:
        numbers += _of_arm(name, ours[name], theirs[name])
        if apart is None:
            numbers += of_candidates(name, old.extraction, new.extraction)
        numbers += of_further(name, old, new)
    return Differences(
        changes(before["provenance"], after["provenance"]),
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
        tuple(numbers),
        len(shared),
    )


def _of_arm(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Return what differs in an arm's counts, losses, tests and quality, by their kind."""
    before, after = (_numbers(one) for one in (old, new))
    kinds = dict.fromkeys(key[0] for key in [*before, *after])
    found = (
        _largest(
            name,
            {
                ", ".join(key): (before.get(key), after.get(key))
                for key in dict.fromkeys([*before, *after])
                if key[0] == kind
            },
        )
        for kind in kinds
    )
    return [one for one in found if one is not None]


def _numbers(arm: Mapping[str, Any]) -> dict[tuple[str, ...], float | None]:
    known = {key: one for key, one in arm.items() if key not in (*_NOT_NUMBERS, "quality")}
    known["quality"] = {one["label"]: one for one in arm["quality"]}
    return {
        key: None if one is None else float(one)
        for key, one in leaves(known)
        if one is None or isinstance(one, int | float)
    }


def _largest(
    name: str, pairs: Mapping[str, tuple[float | None, float | None]]
) -> Difference | None:
    apart = {
        what: math.inf if old is None or new is None else abs(old - new)
        for what, (old, new) in pairs.items()
        if old is not new and (old is None or new is None or abs(old - new) > TOLERANCE)
    }
    if not apart:
        return None
    most = max(apart, key=apart.__getitem__)
    largest = apart[most] if math.isfinite(apart[most]) else None
    return Difference(name, most, len(apart), *pairs[most], largest)


def _said(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
