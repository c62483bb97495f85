"""Arms as lines: one edit at rising fractions, a random seed a line, splits averaged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64

from iarmem_plugin.evaluation.counts import (
    EXTRACTED,
    HELD_OUT,
    ORIGINAL,
    RECOGNISABLE,
    TWIN,
    canaries,
    groups,
    having_role,
)
from iarmem_plugin.evaluation.losses import LOSS
from iarmem_plugin.evaluation.recognition import agreement
from iarmem_plugin.report.results import ArmResult, ArmRole, Results

AGREEMENT = "agreement"
OUTCOMES = (AGREEMENT, LOSS, EXTRACTED, RECOGNISABLE)  # the first is the one that is tested
RANDOM, MATCHED = "random", "random-matched"
LEFT_OUT = re.compile(r" without \d+ images \([0-9a-f]{8}\)$")
SPLIT = ("seed", "cross_fit", "scored_on", "reference")  # settings that differ between splits


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One edit of one share of the neurons, the mean over its splits.

    Attributes:
        arms: names of the arms, one a split.
        fraction: share of neurons edited, in (0, 1]; 0 of the original; None where none are chosen.
        change: of the loss of each held-out picture against the original's, nats a token, at the
            fitted temperature; empty where it was not measured.
        outcomes: by outcome, of each tested candidate.
        cost: mean of the change, ΔNLL; NaN where it was not measured.
    """

    arms: tuple[str, ...]
    fraction: float | None
    change: Float64[np.ndarray, " picture"]
    outcomes: Mapping[str, Float64[np.ndarray, " candidate"]]
    cost: float = field(init=False)

    def __post_init__(self) -> None:
        """Work out the cost, once."""
        cost = float(self.change.mean()) if self.change.size else float("nan")
        object.__setattr__(self, "cost", cost)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One way of choosing neurons and of editing them, by rising fraction.

    Attributes:
        role: of its arms.
        selector: how neurons are chosen; of a split one without what differs between splits.
        intervention: what is done to them.
        points: with rising fractions.
    """

    role: ArmRole
    selector: Mapping[str, Any]
    intervention: Mapping[str, Any] | None
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """Return how its neurons are chosen, and what is done to them; or an edit's arm."""
        if not self.selector:
            return self.points[0].arms[0]
        name, fitted = self.selector.get("scores") or self.kind, "cross_fit" in self.selector
        told = {key: one for key, one in self.selector.items() if _told(key, one)}
        return f"{_call(str(name), told)}{', cross-fitted' if fitted else ''}"

    @property
    def edit(self) -> str:
        """Return what is done to its neurons, such as ``"scale-weights, factor 0.5"``."""
        given = dict(self.intervention or {})
        told = {key: one for key, one in given.items() if key not in ("name", "backend")}
        return _call(str(given.get("name", "")), told)

    @property
    def kind(self) -> str:
        """Return the name of its selector."""
        return str(self.selector.get("name", ""))

    @property
    def fractions(self) -> set[float]:
        """Return the fractions that it has points at."""
        return {point.fraction for point in self.points if point.fraction is not None}

    @property
    def seed(self) -> int | None:
        """Return the seed of a random set, or of what a treatment draws."""
        found = self.selector.get("seed")
        return found if isinstance(found, int) else None


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """All arms of a report.

    Attributes:
        original: the model as it came, where every line begins.
        treatments: those that are held against others, edits of the whole model among them.
        controls: random sets, one line a seed.
        twin: a model that was trained alike without the canaries, if there is one.
    """

    original: Point
    treatments: tuple[Line, ...]
    controls: tuple[Line, ...]
    twin: Point | None = None

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Return the outcomes that are known."""
        return tuple(self.original.outcomes)

    @property
    def measured(self) -> bool:
        """Tell whether the held-out loss was measured."""
        return self.original.change.size > 0

    def found(self, name: str) -> tuple[Line, Point] | None:
        """Return the line and point of an arm, or of a split one any of its splits."""
        for line in (*self.treatments, *self.controls):
            for point in line.points:
                if name in point.arms:
                    return line, point
        return None

    def alone(self, name: str) -> tuple[list[Line], Point | None]:
        """Return the curve that an arm is on, if it is on one, and its point, if it is there."""
        found = self.found(name)
        if found is not None:
            return [found[0]], found[1]
        ends = {ORIGINAL: self.original, TWIN: self.twin}
        return [], ends.get(name)


def lines_of(results: Results) -> Lines:
    """Gather a report's arms to lines.

    Arms are on one line that are alike but for their fraction. Those that are alike but for the
    seed of their halves are splits of one, and are averaged, candidate by candidate and picture by
    picture. Controls with another seed are another line.
    """
    points = _points(results)
    found: dict[str, list[tuple[ArmResult, Point]]] = {}
    taken: dict[str, int] = {}
    for arm in results.arms:
        if arm.role in ("treatment", "control"):
            # arms that are told apart by nothing the report holds are lines of their own
            place = f"{_alike(arm)} {arm.fraction} {_split_seed(arm)}"
            taken[place] = taken.get(place, 0) + 1
            found.setdefault(f"{_alike(arm)} {taken[place]}", []).append((arm, points[arm.name]))
    lines = [_line(members) for members in found.values()]
    return Lines(
        replace(points[ORIGINAL], fraction=0.0),
        tuple(line for line in lines if line.role == "treatment"),
        tuple(line for line in lines if line.role == "control"),
        next((points[arm.name] for arm in results.arms if arm.role == "twin"), None),
    )


def tested(extraction: xr.Dataset) -> np.ndarray:
    """Tell which candidates are tested: canaries, or all that are neither held out nor generated.

    Returns:
        bool, dims (candidate).
    """
    found: np.ndarray = canaries(extraction).values
    return found


def unseen(extraction: xr.Dataset) -> np.ndarray:
    """Tell which candidates are the held-out pictures of the first measure of cost.

    Returns:
        bool, dims (candidate).
    """
    held = having_role(extraction, HELD_OUT).values
    of_candidates = extraction["group"].values.astype(str)
    first = [name for name in groups(extraction) if name in set(of_candidates[held])][:1]
    mine: np.ndarray = held & np.isin(of_candidates, first)
    return mine


def stripped(selector: Mapping[str, Any]) -> dict[str, Any]:
    """Return a selector's settings without what differs between splits of one.

    The seed of a random set stays.
    """
    if "cross_fit" not in selector:
        return dict(selector)
    differing = SPLIT[1:] if selector.get("name") in (RANDOM, MATCHED) else SPLIT
    kept = {key: one for key, one in selector.items() if key not in differing}
    if "scores" in kept:  # such as UnitMem's, which name the images that a half leaves out
        kept["scores"] = LEFT_OUT.sub("", str(kept["scores"]))
    return kept | {"cross_fit": {"halves": dict(selector["cross_fit"]).get("halves")}}


def _points(results: Results) -> dict[str, Point]:
    extraction = results.extraction
    among, pictures = tested(extraction), unseen(extraction)
    if AGREEMENT not in extraction and _completed(extraction):
        extraction = extraction.assign({AGREEMENT: agreement(extraction).reset_coords(drop=True)})
    known = {
        name: extraction[name].transpose("arm", "candidate").values[:, among].astype(np.float64)
        for name in OUTCOMES
        if name in extraction
    }
    change = np.zeros((len(results.arms), 0))
    if LOSS in extraction:
        loss = extraction[LOSS].transpose("arm", "candidate").values[:, pictures]
        change = loss.astype(np.float64) - loss[0].astype(np.float64)
    return {
        arm.name: Point(
            (arm.name,), arm.fraction, change[row], {name: one[row] for name, one in known.items()}
        )
        for row, arm in enumerate(results.arms)
    }


def _completed(extraction: xr.Dataset) -> bool:
    """Tell whether tokens were completed, and how many were given."""
    given = extraction.attrs.get("prefix_tokens", np.inf)
    return "equal_tokens" in extraction and given < extraction.sizes.get("token", 0)


def _line(members: list[tuple[ArmResult, Point]]) -> Line:
    first, by_fraction = members[0][0], dict[float | None, list[Point]]()
    for arm, point in members:
        by_fraction.setdefault(arm.fraction, []).append(point)
    rising = sorted(by_fraction.items(), key=lambda one: one[0] or 0.0)
    selector = stripped(first.selector or {})
    return Line(first.role, selector, first.intervention, tuple(_mean(same) for _, same in rising))


def _mean(same: list[Point]) -> Point:
    """Return the mean of some splits."""
    if len(same) == 1:
        return same[0]
    return Point(
        tuple(name for point in same for name in point.arms),
        same[0].fraction,
        np.mean([point.change for point in same], axis=0),
        {name: np.mean([one.outcomes[name] for one in same], axis=0) for name in same[0].outcomes},
    )


def _alike(arm: ArmResult) -> str:
    alone = arm.name if arm.fraction is None else ""
    return f"{arm.role} {stripped(arm.selector or {})} {arm.intervention} {alone}"


def _call(name: str, options: Mapping[str, Any]) -> str:
    return ", ".join([name, *(f"{key} {value}" for key, value in options.items())])


def _told(key: str, value: object) -> bool:
    """Tell whether a selector's setting is said in its label."""
    usual = {"pool": "model", "by": "score", "scales": "mean"}
    hidden = ("name", "seed", "scores", "cross_fit", "scored_on", "reference")
    return key not in hidden and value is not None and usual.get(key) != value


def _split_seed(arm: ArmResult) -> Any:
    return dict((arm.selector or {}).get("cross_fit", {})).get("seed")
