"""Membership by arm and group: what tells members from others, before and after an edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import GENERATED, HELD_OUT, ORIGINAL, groups
from iarmem_plugin.evaluation.membership.areas import Area, Caught, Sides, area, area_change, caught
from iarmem_plugin.evaluation.membership.inference import DatasetInference, dataset_inference
from iarmem_plugin.evaluation.membership.signals import VALUES
from iarmem_plugin.text import shown

TOGETHER = "all together"  # every candidate that was neither held out nor generated


@dataclass(frozen=True, slots=True)
class Told:
    """How well one signal tells a group from other pictures.

    Attributes:
        area: area under the ROC curve, with DeLong's interval.
        change: change of the area against the arm "original", paired; None for that arm, and where
            there is none.
        caught: true positives at 1% false ones; None where a side has fewer than 300 pictures.
    """

    area: Area
    change: Area | None
    caught: Caught | None


@dataclass(frozen=True, slots=True)
class Membership:
    """By how much the model of one arm takes a group for pictures that it was trained on.

    Attributes:
        arm: name of the arm.
        group: the group, or ``"all together"``: all candidates that were neither held out nor
            generated.
        against: the pictures it is told from: ``"held-out"``, never shown, or ``"generated"``, the
            unmodified model's own free generations, which signals take for members.
        members: number of pictures of the group.
        others: number of pictures that it is told from.
        signals: what each signal says, by its name.
        inference: what the group shows as a set; None where a side has fewer than 4 pictures.
    """

    arm: str
    group: str
    against: str
    members: int
    others: int
    signals: Mapping[str, Told]
    inference: DatasetInference | None


def compare_membership(signals: xr.Dataset, *, seed: int = 0) -> tuple[Membership, ...]:
    """Tell every group from held-out pictures, and from generated ones, in every arm.

    Args:
        signals: from `membership_signals`; several arms by ``xr.concat`` along the dim (arm), with
            their names as its coordinate.
        seed: seed for dataset inference.

    Returns:
        by arm, then by what is told from, groups in reading order, ``"all together"`` last where
        there are several; an arm without a name is ``"original"``.

    Raises:
        InputError: no candidate was held out or no other is there, or signals are not finite.
    """
    found = signals if "arm" in signals.dims else signals.expand_dims(arm=[ORIGINAL])
    values = found[VALUES].transpose("arm", "candidate", "signal")
    _check(values)
    pairs = list(_pairs(found))
    arms = [str(name) for name in values["arm"].values]
    tables = dict(zip(arms, np.asarray(values.values, np.float64), strict=True))
    names = [str(name) for name in values["signal"].values]
    return tuple(
        Membership(
            *(arm, group, against, int(mine.sum()), int(others.sum())),
            {name: _told(tables, arm, place, (mine, others)) for place, name in enumerate(names)},
            dataset_inference(tables[arm][mine], tables[arm][others], seed=seed),
        )
        for arm in arms
        for group, mine, against, others in pairs
    )


def _told(tables: Mapping[str, np.ndarray], arm: str, signal: int, sides: Sides) -> Told:
    def of(name: str) -> Sides:
        column = tables[name][:, signal]
        return column[sides[0]], column[sides[1]]

    mine = of(arm)
    known = arm != ORIGINAL and ORIGINAL in tables
    return Told(area(*mine), area_change(of(ORIGINAL), mine) if known else None, caught(*mine))


Pair = tuple[str, Bool[np.ndarray, " candidate"], str, Bool[np.ndarray, " candidate"]]


def _pairs(signals: xr.Dataset) -> Iterator[Pair]:
    """Yield every group with the pictures that it is told from."""
    group, role = (signals[name].values.astype(str) for name in ("group", "role"))
    unseen, drawn = role == HELD_OUT, role == GENERATED
    if not unseen.any() or unseen.all():
        raise InputError(
            f"{unseen.sum()} of {len(role)} candidates were held out; membership needs pictures of "
            'both kinds: give the group "held-out" pictures that the model never saw'
        )
    named = [(name, group == name) for name in groups(signals)]
    own = [(name, mine) for name, mine in named if (mine & drawn).any()]
    real = [(name, mine) for name, mine in named if not (mine & (unseen | drawn)).any()]
    together = [(TOGETHER, ~unseen & ~drawn)] if len(real) > 1 else []
    yield from ((name, mine, HELD_OUT, unseen) for name, mine in real + own + together)
    if own:
        yield from ((name, mine, GENERATED, drawn) for name, mine in real + together)


def _check(values: xr.DataArray) -> None:
    arms, names = (values[dim].values.astype(str).tolist() for dim in ("arm", "signal"))
    for arm, place in np.argwhere(~np.isfinite(values.values).all(axis=1)):
        raise InputError(
            f"the membership signal {names[place]!r} of the arm {shown(arms[arm], 60)!r} is not "
            "finite for every candidate; measure all arms on the same candidates, with the same "
            "signals"
        )
