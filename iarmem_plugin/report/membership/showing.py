"""Membership as a table for a terminal, and as CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.membership.areas import ENOUGH, Area
from iarmem_plugin.evaluation.membership.comparing import Membership
from iarmem_plugin.report.grid.csv_tables import csv_file
from iarmem_plugin.table import TextTable
from iarmem_plugin.text import shown

SIGNALS, SETS = "tables/membership.csv", "tables/membership_sets.csv"
SMALLEST = "smallest set"
COLUMNS = {
    SIGNALS: (
        *("arm", "group", "against", "signal", "members", "others", "auc", "low", "high"),
        *("change", "change_low", "change_high"),
        *("true_positives", "true_positives_low", "true_positives_high"),
    ),
    SETS: (
        *("arm", "group", "against", "members", "others", "tested_members", "tested_others"),
        *("smallest_set", "p"),
    ),
}
SAID = (
    "AUC with DeLong's 95% interval: 0.5 is chance; below it the others look more like members.",
    f"{SMALLEST.capitalize()}: how many of the group's tested half show at p < 0.01 that the model "
    "takes their set for a part of its training, more than the others (dataset inference).",
)
FEW = (
    f"True positives at 1% false ones need {ENOUGH} pictures a side, and are left out where there "
    "are fewer."
)


def membership_rows(found: Sequence[Membership], *, against: str = HELD_OUT) -> list[list[str]]:
    """Return membership as rows of text: a row each for every group and arm.

    Args:
        found: from `compare_membership`.
        against: what groups are told from, ``"held-out"`` or ``"generated"``.

    Returns:
        the names of the columns, then the rows: the group with its number of pictures, the arm, the
        area of each signal, its true positives at 1% false ones where any group has enough
        pictures for them, and the smallest set.

    Raises:
        InputError: nothing was told from these.
    """
    chosen = [one for one in found if one.against == against]
    if not chosen:
        there = ", ".join(sorted({one.against for one in found}))
        raise InputError(
            f"no group was told from {shown(against, 60)!r}; choose of: {there or 'nothing'}"
        )
    names = dict.fromkeys(name for one in chosen for name in one.signals)
    caught = [name for name in names if any(_caught(one, name) for one in chosen)]
    order = dict.fromkeys(one.group for one in chosen)
    head = ["group", "arm", *names, *(f"{name}, at 1%" for name in caught), SMALLEST]
    return [head] + [
        [
            *(f"{group} ({one.members})", one.arm),
            *(_area(one, name) for name in names),
            *(_caught(one, name) or "left out" for name in caught),
            "left out" if one.inference is None else str(one.inference),
        ]
        for group in order
        for one in chosen
        if one.group == group
    ]


def membership_table(found: Sequence[Membership], *, against: str = HELD_OUT) -> TextTable:
    """Return membership as a table to print, the arms of each group below one another.

    Args:
        found: from `compare_membership`.
        against: what groups are told from, ``"held-out"`` or ``"generated"``.

    Raises:
        InputError: nothing was told from these.
    """
    (_, _, *head), *rows = membership_rows(found, against=against)
    lines = []
    for group, mine in groupby(rows, lambda row: row[0]):
        _, arms, *cells = zip(*mine, strict=True)
        lines.append([[group, *(f"  {arm}" for arm in arms)], *(["", *cell] for cell in cells)])
    others = next(one.others for one in found if one.against == against)
    some = [one for one in found if one.against == against]
    few = [FEW] if any(min(one.members, one.others) < ENOUGH for one in some) else []
    title = f"Membership, told from {others} {against} pictures"
    return TextTable(title, ["", *head], lines, numbers=head, whole=[""], notes=[*SAID, *few])


def membership_files(found: Sequence[Membership]) -> dict[str, bytes]:
    """Return membership as files, one row a case, numbers in full.

    Args:
        found: from `compare_membership`.

    Returns:
        name of the file -> UTF-8, RFC 4180, the columns of `COLUMNS`; empty: left out, or not
        known.
    """
    made = {SIGNALS: _signals, SETS: _sets}
    return {
        name: csv_file(COLUMNS[name], [row for one in found for row in rows(one)])
        for name, rows in made.items()
    }


def _area(one: Membership, name: str) -> str:
    return str(one.signals[name].area) if name in one.signals else "left out"


def _caught(one: Membership, name: str) -> str:
    told = one.signals.get(name)
    return "" if told is None or told.caught is None else str(told.caught)


def _signals(one: Membership) -> Iterator[list[Any]]:
    for name, told in one.signals.items():
        caught: list[Any] = [None] * 3
        if told.caught is not None:
            caught = [told.caught.found, told.caught.low, told.caught.high]
        yield [
            *(one.arm, one.group, one.against, name, one.members, one.others),
            *_known(told.area),
            *([None] * 3 if told.change is None else _known(told.change)),
            *caught,
        ]


def _sets(one: Membership) -> Iterator[list[Any]]:
    about = [one.arm, one.group, one.against, one.members, one.others]
    if one.inference is not None:
        found = one.inference
        yield [*about, found.members, found.others, found.smallest, found.p]


def _known(area: Area) -> list[float | None]:
    return [None if value != value else value for value in area]  # NaN
