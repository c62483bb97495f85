"""Recompute a report's numbers from the files beside it, without iarmem.

    python examples/recompute.py REPORT

Counts, Wilson intervals, McNemar tests, agreements, thresholds (shared by all arms, and an arm's
own), the changes of the losses with their intervals, FID, KID with its error, their means and
deviations over seeds and what real pictures come to (``recompute_distances.py`` beside this file),
the evidence against random neurons (``recompute_evidence.py``), what triggers recovered
(``recompute_recovery.py``), and how deep edits go (``recompute_depth.py``) are made again by numpy,
scipy and h5py, and held against ``report.json``; every number of ``tables/*.csv`` is held against
it and these files.
What differs by more than 1e-6 (of itself, where it is above 1) is listed, and ends the program with
code 1.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from recompute_depth import depth
from recompute_distances import distances
from recompute_evidence import Arms, evidence
from recompute_recovery import recovery
from recompute_tables import Tables, wilson
from scipy.stats import binom, binomtest, bootstrap

TOLERANCE = 1e-6
Found = tuple[str, float | None, float | None]  # what it is, as written, and as made again


def read(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the attributes of a netCDF file; text as str."""
    with h5py.File(file) as opened:
        arrays = {
            name: one.asstr()[()] if one.dtype == object else one[()]
            for name, one in opened.items()
            if isinstance(one, h5py.Dataset)
        }
        attributes = {
            name: np.asarray(value).item()
            for name, value in opened.attrs.items()
            if np.size(value) == 1
        }
    return arrays, attributes


def limits(values: np.ndarray, rate: float) -> dict[str, float | None]:
    """Return the smallest value that at most a share exceeds, and its 95% interval by ranks."""
    ordered, count = np.sort(values), len(values)
    above = math.floor(Fraction(str(rate)) * count)
    most, fewest = (int(binom.ppf(share, count, rate)) for share in (0.975, 0.025))
    return {
        "threshold": float(ordered[-1 - above]),
        "threshold_low": float(ordered[count - 1 - most]) if most < count else None,
        "threshold_high": float(ordered[count - fewest]) if fewest else None,
    }


class Folder:
    """A report's folder.

    Args:
        path: where ``report.json``, ``extraction.nc`` and, if there is one, ``calibration.nc`` are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        self.found, self.settings = read(path / "extraction.nc")
        self.names = [str(name) for name in self.found["arm"]]
        self.group = self.found["group"].astype(str)
        canary = self.found["role"].astype(str) == "canary"
        other = np.isin(self.found["role"].astype(str), ("held-out", "generated"))
        self.canaries = canary if canary.any() else ~other
        self.fixed = read(path / "calibration.nc") if (path / "calibration.nc").exists() else None

    def agreement(self, equal: np.ndarray, tokens: int) -> np.ndarray:
        """Return the share of completed tokens that are right."""
        given = self.settings["prefix_tokens"]
        shares: np.ndarray = (equal.astype(np.float64) - given) / (tokens - given)
        return shares

    def outcomes(self) -> dict[str, np.ndarray]:
        """Return what counts, [arm, candidate], from similarities, tokens and thresholds alone."""
        similarity = self.found["similarity"].astype(np.float64)
        judged = {"extracted": similarity > self.settings["threshold"]}
        if "recognition_threshold" in self.settings:
            right = self.agreement(self.found["equal_tokens"], self.found["tokens"].shape[2])
            judged["recognisable"] = right > self.settings["recognition_threshold"]
        return judged

    def compared(self) -> Iterator[Found]:
        """Yield every number that can be made again."""
        judged = self.outcomes()
        for place, arm in enumerate(self.report["arms"]):
            for outcome, key in (("extracted", "extraction"), ("recognisable", "recognition")):
                if outcome in judged:
                    yield from self._counts(arm, key, outcome, judged[outcome][place])
                    yield from self._pairs(arm, outcome, judged[outcome], place)
            yield from self._losses(arm, place)
            yield from self._anew(arm, place)
        yield from self._thresholds()
        yield from self._tokens()
        yield from distances(self.report, self.path / "quality.nc")
        yield from self._evidence()
        yield from self._recovery()
        yield from self._depth()
        yield from Tables(self.path, self.report, self.found, self.settings, judged).compared()

    def _evidence(self) -> Iterator[Found]:
        """Yield what is said of treatments against random neurons."""
        if "evidence" in self.report:
            given = self.settings["prefix_tokens"]
            arms = Arms(self.found, given, self.canaries, self.outcomes())
            yield from evidence(self.report["evidence"], arms)

    def _recovery(self) -> Iterator[Found]:
        """Yield what triggers brought back."""
        if "recovery" in self.report:
            found, settings = read(self.path / "recovery.nc")
            yield from recovery(self.report["recovery"], found, settings["rate"])

    def _depth(self) -> Iterator[Found]:
        """Yield how deep each arm's edit goes."""
        if "depth" in self.report:
            yield from depth(self.report["depth"], read(self.path / "depth.nc")[0])

    def _counts(
        self, arm: dict[str, Any], key: str, outcome: str, counted: np.ndarray
    ) -> Iterator[Found]:
        place = self.names.index(arm["name"])
        for group, written in arm[key].items():
            mine = self.group == group
            low, high = wilson(int(counted[mine].sum()), int(mine.sum()))
            made = {
                "candidates": mine.sum(),
                outcome: counted[mine].sum(),
                "low": low,
                "high": high,
            }
            if "agreement" in written:
                equal = self.found["equal_tokens"][place][mine]
                made["agreement"] = self.agreement(equal, self.found["tokens"].shape[2]).mean()
            for name, value in made.items():
                yield f"{arm['name']}: {group}: {outcome}: {name}", written[name], float(value)

    def _anew(self, arm: dict[str, Any], place: int) -> Iterator[Found]:
        """Yield the thresholds that an arm fixed itself, and what counts at them."""
        if "recalibrated" not in arm or self.fixed is None:
            return
        arrays, tokens = self.fixed[0], self.found["tokens"].shape[2]
        row = [str(name) for name in arrays["arm"]].index(arm["name"])
        similarity = arrays["recalibrated_similarity"][row].astype(np.float64)
        right = self.agreement(arrays["recalibrated_equal_tokens"][row], tokens)
        measured = self.found["similarity"][place].astype(np.float64)
        agreed = self.agreement(self.found["equal_tokens"][place], tokens)
        for key, outcome, unseen, values in (
            ("extraction", "extracted", similarity, measured),
            ("recognition", "recognisable", right, agreed),
        ):
            if key not in arm["recalibrated"]:
                continue
            written = arm["recalibrated"][key]
            made = limits(unseen, self.settings["recalibrated_rate"])
            for name, value in made.items():
                yield f"{arm['name']}: its own {outcome}: {name}", written[name], value
            counted = {key: written["counts"], "name": arm["name"]}
            yield from self._counts(counted, key, outcome, values > made["threshold"])

    def _pairs(
        self, arm: dict[str, Any], outcome: str, counted: np.ndarray, place: int
    ) -> Iterator[Found]:
        written = arm.get("paired", {}).get(outcome, {})
        before, after = counted[0][self.canaries], counted[place][self.canaries]
        lost, gained = int((before & ~after).sum()), int((~before & after).sum())
        changed = lost + gained
        made = {
            "before": before.sum(),
            "after": after.sum(),
            "lost": lost,
            "gained": gained,
            "p": binomtest(lost, changed).pvalue if changed else 1.0,
        }
        for name, value in written.items():
            yield f"{arm['name']}: canaries: {outcome}: {name}", value, float(made[name])

    def _losses(self, arm: dict[str, Any], place: int) -> Iterator[Found]:
        for group, written in arm.get("losses", {}).items():
            mine = self.group == group
            loss, plain = (self.found[name][:, mine] for name in ("loss", "plain_loss"))
            change = loss[place] - loss[0]
            made: dict[str, float | None] = {
                "loss": loss[place].mean(),
                "plain_loss": plain[place].mean(),
                "change": change.mean(),
                "plain_change": (plain[place] - plain[0]).mean(),
                "low": None,
                "high": None,
            }
            if mine.sum() > 1:
                made["low"], made["high"] = (end[place] for end in self._ends(group))
            for name, value in made.items():
                yield f"{arm['name']}: {group}: losses: {name}", written[name], value

    def _ends(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of all arms' intervals, drawn with the same images, once a group."""
        if group not in self._drawn:
            loss = self.found["loss"][:, self.group == group]
            drawn = bootstrap(
                (loss - loss[0],),
                np.mean,
                axis=-1,
                method="percentile",
                n_resamples=2000,
                rng=0,
            ).confidence_interval
            self._drawn[group] = (drawn.low, drawn.high)
        return self._drawn[group]

    def _thresholds(self) -> Iterator[Found]:
        if self.fixed is None:
            return
        arrays, settings = self.fixed
        if "equal_tokens" not in arrays:  # thresholds were given, and fixed anew alone
            return
        right = self.agreement(arrays["equal_tokens"], settings["tokens"])
        above = math.floor(Fraction(str(settings["rate"])) * right.size)
        at = float(np.sort(right)[-1 - above])
        yield "recognition threshold", self.settings["recognition_threshold"], at
        if f"n={right.size} extracted" in self.settings["threshold_source"]:  # fixed on these
            at = float(np.sort(arrays["similarity"].astype(np.float64))[-1 - above])
            yield "threshold", self.settings["threshold"], at

    def _tokens(self) -> Iterator[Found]:
        if "target_tokens" not in self.found:
            return
        equal = self.found["tokens"] == self.found["target_tokens"]
        equal = equal.reshape(*equal.shape[:3], -1).all(axis=3).sum(axis=2)
        written = self.found["equal_tokens"]
        yield "equal tokens of all completions", float(written.sum()), float(equal.sum())
        yield "completions with other equal tokens", 0.0, float((written != equal).sum())


def differs(written: float | None, made: float | None) -> bool:
    """Tell whether two numbers are further apart than rounding explains."""
    if written is None or made is None:
        return written is not made
    return not math.isclose(written, made, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def main(folder: str) -> int:
    """Compare, say how many numbers agree, and list those that do not."""
    compared = list(Folder(Path(folder)).compared())
    wrong = [one for one in compared if differs(*one[1:])]
    for name, written, made in wrong:
        print(f"{name}: {written} in report.json, {made} made again")
    apart = max(
        (abs(a - b) for _, a, b in compared if a is not None and b is not None), default=0.0
    )
    agree = f"{len(compared) - len(wrong)} of {len(compared)} numbers agree"
    print(f"{agree}; largest difference {apart:.1e}")
    return 1 if wrong or not compared else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python recompute.py REPORT")
    if not Path(sys.argv[1], "report.json").is_file():
        sys.exit(f"{sys.argv[1]} holds no report.json; give the folder of a report")
    sys.exit(main(sys.argv[1]))
