"""Simulated studies: an arm and R nested random sets, measured with noise.

Run as a program, it prints the table of docs/evidence.md; given the folder of a report, how often
its own random sets would have been kept.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from iarmem_plugin.evaluation.evidence.curves import Curve, read, read_last
from iarmem_plugin.evaluation.evidence.equal import MOST_UNREACHED, rank_p
from iarmem_plugin.evaluation.evidence.power import smallest_difference
from iarmem_plugin.evaluation.evidence.smooth import read_smooth
from iarmem_plugin.report.evidence.controls import curve_of, uniform
from iarmem_plugin.report.evidence.lines import AGREEMENT, lines_of
from iarmem_plugin.report.report import Report

ALPHA = 0.05


@dataclass(frozen=True)
class Study:
    """How a study comes out; numbers are near those of the shipped VAR organism.

    A random set of a tenth does damage as if it were of 0.1 (1 + `apart` B) to quality and of
    0.1 (1 + `apart` C) to the candidates, B and C standard normal and correlated by 0.5. As a set
    grows, independent increments are added.
    The arm is one more such set, of the fraction `arm`, and `better` is taken off its outcome.
    A steady set differs from others by the same factor at all fractions instead.

    Attributes:
        points: fractions of the random curves.
        arm: fraction of the arm, which need not be one of `points`.
        hollow: whether the outcome falls exponentially with the dose, else in proportion to ΔNLL.
        steady: whether what sets one set apart is the same at all fractions.
        apart: standard deviation of what random sets of a tenth do, as a share of it.
        sets: R.
        candidates: tested candidates, each with noise of its own.
        noise: standard deviation of a candidate's outcome around its set's.
        pictures: held-out pictures, each with noise of its own, 0.035 nats a token.
        better: how much lower the arm's outcome is than that of a random set.
    """

    points: tuple[float, ...] = (0.0, 0.1, 0.2)
    arm: float = 0.14
    hollow: bool = True
    steady: bool = False
    apart: float = 0.12
    sets: int = 99
    candidates: int = 144
    noise: float = 0.12
    pictures: int = 300
    better: float = 0.0

    def drawn(self, number: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield of each study ΔNLL and mean outcome, dims (set, point); the arm is the last point.

        Set 0 is the arm's own; of the others the arm's point is not known to a study.
        """
        rng = np.random.default_rng(seed)
        every = np.array(sorted({*self.points, self.arm}))
        order = [int(np.flatnonzero(every == one)[0]) for one in (*self.points, self.arm)]
        growth = np.sqrt(np.diff(every, prepend=0) / 0.1)
        unit = np.sqrt(np.maximum(every, 0.01) / 0.1)
        for _ in range(number):
            if self.steady:
                scale = np.stack([every / 0.1, every / 0.1, unit, unit])[:, None]
                walks = rng.normal(size=(4, self.sets + 1, 1)) * scale
            else:
                walks = np.cumsum(rng.normal(size=(4, self.sets + 1, len(every))) * growth, axis=2)
            quality = every + self.apart / 10 * (0.5 * walks[0] + np.sqrt(0.75) * walks[1])
            dose = every + self.apart / 10 * walks[0]
            change = self.cost(quality) + 0.035 / np.sqrt(self.pictures) * walks[2] / unit
            mean = 0.6 * np.exp(-dose / 0.15) if self.hollow else 0.6 - 6 * self.cost(dose)
            mean = mean + self.noise / np.sqrt(self.candidates) * walks[3] / unit
            change[:, 0], mean[:, 0] = 0, 0.6
            yield change[:, order], mean[:, order]

    @staticmethod
    def cost(fraction: np.ndarray) -> np.ndarray:
        """Return ΔNLL: 0.019, 0.050 and 0.132 at 10, 20 and 40% at random."""
        return np.asarray(0.019 * np.sign(fraction) * (np.abs(fraction) / 0.1) ** 1.4)

    def tested(self, number: int = 1000, seed: int = 0) -> np.ndarray:
        """Return of each study p in each way to read curves, and the readings' spread."""
        return np.array([self._one(*one) for one in self.drawn(number, seed)])

    def _one(self, change: np.ndarray, mean: np.ndarray) -> tuple[float, float, float, float]:
        at, value = float(change[0, -1]), float(mean[0, -1] - self.better)
        curves, outcomes = change[1:, :-1], mean[1:, :-1]
        straight = read(curves, outcomes[..., None], at)[:, 0]
        smooth = read_smooth(curves, outcomes, at)
        last = read_last(curves, outcomes, at)
        p = [rank_p(value, readings, "fewer") for readings in (straight, smooth, last)]
        known = straight[np.isfinite(straight)]
        return p[0], p[1], p[2], float(known.std(ddof=1)) if len(known) > 1 else np.nan

    def whole(self, seed: int) -> tuple[np.ndarray, np.ndarray, list[Curve], tuple[float, ...]]:
        """Return one study picture by picture and candidate by candidate, and its three p."""
        ((change, mean),) = self.drawn(1, seed)
        rng = np.random.default_rng(seed + 1)
        spread = rng.normal(size=(self.sets + 1, len(self.points), self.candidates)) * self.noise
        spread -= spread.mean(axis=2, keepdims=True)
        pictures = 0.035 * rng.normal(size=self.pictures)
        outcomes = mean[:, :-1, None] + spread
        curves = [
            Curve(np.array(self.points), one, values)
            for one, values in zip(change[1:, :-1], outcomes[1:], strict=True)
        ]
        arm = mean[0, -1] - self.better + spread[0, -1]
        return arm, change[0, -1] + pictures - pictures.mean(), curves, self._one(change, mean)[:3]


def rejected(found: np.ndarray) -> tuple[float, float, float]:
    """Return the share of studies with p ≤ 0.05 by straight lines, by smooth ones, and judged."""
    kept = found[:, :3] <= ALPHA
    return float(kept[:, 0].mean()), float(kept[:, 1].mean()), float(kept.all(axis=1).mean())


FEW, MORE, GRID = (0.0, 0.1, 0.2), (0.0, 0.1, 0.15, 0.2), (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


def main(number: int = 4000) -> None:
    print("| sets | outcome | points above 0 | arm at | straight | smooth | judged | power |")
    print("|---|---|---|---|---|---|---|---|")
    rows = [(True, False, FEW)]  # sets apart by a third as much, so that all is near normal
    rows += [(False, hollow, points) for hollow in (False, True) for points in (FEW, MORE, GRID)]
    for steady, hollow, points in rows:
        for arm in (0.1, 0.14):
            study = Study(points, arm, hollow, steady, 0.04 if steady else 0.12)
            none = study.tested(number)
            planted = replace(study, better=shown_by(none)).tested(number, seed=1)
            numbers = (*rejected(none), rejected(planted)[2])
            cells = [
                "steady" if steady else "growing",
                "hollow" if hollow else "straight",
                ", ".join(f"{100 * one:g}" for one in points[1:]) + "%",
                f"{100 * arm:g}%",
                *(f"{100 * one:.1f}%" for one in numbers),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


def shown_by(none: np.ndarray, candidates: int = 144, sets: int = 99) -> float:
    """Return the smallest difference that is printed for the mean spread of some studies."""
    spread = float(np.nanmean(none[:, 3]))
    return smallest_difference(candidates, sets, spread=spread).ranked * spread


def left_out(folder: str) -> None:
    """Print how often p ≤ 0.05 where each random set of a report in turn is the arm.

    The other curves are read at its ΔNLL, with the points of its fraction and without.
    """
    lines = lines_of(Report.load(folder))
    found = [curve_of(lines.original, one, AGREEMENT) for one in uniform(lines.controls)]
    ((most, _),) = Counter(tuple(one.fractions[-3:]) for one in found).most_common(1)
    points = (0.0, *most)  # those that most curves have
    alike = [
        (one.change[rows], one.outcome[rows].mean(axis=1))
        for one in found
        if (rows := np.isin(one.fractions, points)).sum() == len(points)
    ]
    changes, means = (np.stack(values) for values in zip(*alike, strict=True))
    for at in range(1, len(points) - 1):
        for kept in (np.arange(len(points)), np.delete(np.arange(len(points)), at)):
            judged = np.array(list(_each(changes, means, at, kept)))
            shares = ", ".join(f"{100 * one:.1f}%" for one in (judged <= ALPHA).mean(axis=0))
            read_at = ", ".join(f"{100 * points[one]:g}" for one in kept[1:])
            print(
                f"arms of {100 * points[at]:g}%, read at {read_at}%: {len(judged)} of them; ",
                end="",
            )
            print(f"straight, judged, judged for more: {shares}")


def _each(
    changes: np.ndarray, means: np.ndarray, at: int, kept: np.ndarray
) -> Iterator[tuple[float, float, float]]:
    """Yield p by straight lines, and judged for fewer and for more, where enough curves reach."""
    for one in range(len(changes)):
        change, value = float(changes[one, at]), float(means[one, at])
        curves, outcomes = (np.delete(every, one, axis=0)[:, kept] for every in (changes, means))
        straight = read(curves, outcomes[..., None], change)[:, 0]
        if np.isnan(straight).mean() > MOST_UNREACHED:
            continue
        every = (
            *(straight, read_smooth(curves, outcomes, change)),
            read_last(curves, outcomes, change),
        )
        fewer, more = ([rank_p(value, each, way) for each in every] for way in ("fewer", "more"))
        yield fewer[0], max(fewer), max(more)


if __name__ == "__main__":
    left_out(sys.argv[1]) if sys.argv[1:] else main()
