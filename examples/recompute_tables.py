"""The tables of a report recomputed: every number of ``tables/*.csv`` from the files beside it.

`recompute.py` runs it, and makes the numbers of ``report.json`` again that tables repeat.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from recompute_evidence import Found, numbers
from scipy.stats import norm

KEYS = {"extraction": "extracted", "recognition": "recognisable"}
Row = dict[str, Any]  # a row of a table: its numbers by column


def wilson(count: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95% interval, from his formula."""
    z, share = float(norm.ppf(0.975)), count / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    low, high = (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)
    return (0.0 if count == 0 else low), (1.0 if count == of else high)


Placed = tuple[np.ndarray, np.ndarray]


def placements(members: np.ndarray, others: np.ndarray) -> Placed:
    """Return of each member, and of each other, the share of the other side it is right against."""
    above = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    return above.mean(axis=1), above.mean(axis=0)


def area(placed: Placed, least: float) -> dict[str, float | None]:
    """Return an area under the ROC curve, or a change of one, with DeLong's interval."""
    value, sizes = float(placed[0].mean()), [len(one) for one in placed]
    variance = sum(one.var(ddof=1) / len(one) if len(one) > 1 else 0.0 for one in placed)
    if min(sizes) < 2 or variance <= 0:
        return {"auc": value, "low": None, "high": None}
    half = float(norm.ppf(0.975)) * math.sqrt(variance)
    return {"auc": value, "low": max(least, value - half), "high": min(1.0, value + half)}


class Tables:
    """The tables of one report.

    Args:
        folder: the report's.
        report: what ``report.json`` holds.
        found: the arrays of ``extraction.nc``.
        settings: its attributes.
        judged: what counts, by outcome, [arm, candidate].
    """

    def __init__(
        self,
        folder: Path,
        report: dict[str, Any],
        found: dict[str, np.ndarray],
        settings: dict[str, Any],
        judged: dict[str, np.ndarray],
    ) -> None:
        self.folder, self.report, self.found = folder, report, found
        self.settings, self.judged = settings, judged
        self.names = [str(name) for name in found["arm"]]
        self.group = found["group"].astype(str)

    def compared(self) -> Iterator[Found]:
        """Yield every number of every table."""
        for file in sorted((self.folder / "tables").glob("*.csv")):
            yield from self._table(file)

    def _table(self, file: Path) -> Iterator[Found]:
        """Yield every number of a CSV table, and the same from the files beside it."""
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        made = getattr(self, f"_rows_of_{file.stem}", lambda: None)()
        if made is None:
            return
        yield f"{file.name}: rows", float(len(rows)), float(len(made))
        for number, (row, again) in enumerate(zip(rows, made, strict=False), start=2):
            for name, value in again.items():
                written = float(row[name]) if row[name] else None
                yield f"{file.name}: line {number}: {name}", written, value

    def _rows_of_arms(self) -> list[Row]:
        roles, judged = self.found["role"].astype(str), self.judged
        unseen = roles == "held-out"
        shown = ~unseen & (roles != "generated")
        kinds = (("canaries", roles == "canary"), ("candidates", shown), ("held_out", unseen))
        rows = []
        for place, arm in enumerate(self.report["arms"]):
            row: Row = {"fraction": arm["fraction"], "temperature": arm.get("temperature")}
            losses = self._held_out(arm)
            row |= {f"held_out_{name}": losses.get(name) for name in ("change", "low", "high")}
            for kind, mine in kinds:
                row[kind] = mine.sum()
                for outcome in ("extracted", "recognisable"):
                    known = outcome in judged and mine.any()
                    name = f"{'false' if kind == 'held_out' else kind}_{outcome}"
                    row[name] = judged[outcome][place][mine].sum() if known else None
            rows.append(row)
        return rows

    def _held_out(self, arm: dict[str, Any]) -> dict[str, Any]:
        names = self.group[self.found["role"].astype(str) == "held-out"]
        return dict(arm.get("losses", {}).get(names[0], {})) if names.size else {}

    def _rows_of_outcomes(self) -> list[Row]:
        rows = []
        for arm in self.report["arms"]:
            for key, outcome in KEYS.items():
                own = arm.get("recalibrated", {}).get(key, {}).get("counts", {})
                for group, counts in arm.get(key, {}).items():
                    row: Row = {"agreement": counts.get("agreement")}
                    for begin, one in (("", counts), ("own_", own.get(group, {}))):
                        row[f"{begin}counted"] = one.get(outcome)
                        row[f"{begin}share"] = one[outcome] / one["candidates"] if one else None
                        row |= {f"{begin}{end}": one.get(end) for end in ("low", "high")}
                    rows.append({**row, "candidates": counts["candidates"]})
        return rows

    def _rows_of_losses(self) -> list[Row]:
        return [one for arm in self.report["arms"] for one in arm.get("losses", {}).values()]

    def _rows_of_quality(self) -> list[Row]:
        sets = [arm["quality"] for arm in self.report["arms"]]
        values = [one for each in (*sets, *self.report.get("floors", {}).values()) for one in each]
        return [
            {name: one.get(name) for name in ("value", "error", "deviation", "n")} for one in values
        ]

    def _rows_of_paired(self) -> list[Row]:
        return [one for arm in self.report["arms"] for one in arm.get("paired", {}).values()]

    def _rows_of_thresholds(self) -> list[Row]:
        shared = [self.settings.get(name) for name in ("threshold", "recognition_threshold")]
        rows: list[Row] = [{"threshold": one} for one in shared if one is not None]
        for arm in self.report["arms"]:
            anew = arm.get("recalibrated", {})
            for one in (anew[key] for key in KEYS if key in anew):
                ends = {end: one[f"threshold_{end}"] for end in ("low", "high")}
                rows.append({"threshold": one["threshold"], **ends, "images": anew["images"]})
        return rows

    def _rows_of_published(self) -> list[Row]:
        other = np.isin(self.found["role"].astype(str), ("held-out", "generated"))
        rows = []
        for one in self.report["published"]:
            place, known = self.names.index(one["arm"]), {"": None}
            known |= {v["label"]: v["value"] for v in self.report["arms"][place]["quality"]}
            count = self.judged["extracted"][place][~other].sum()
            row: Row = {"extracted": count, "candidates": (~other).sum()}
            rows.append(row | {"fid": known[one["fid_label"]]})
        return rows

    def _rows_of_evidence(self) -> list[Row]:
        found = self.report.get("evidence", {})
        treatments = {one["name"]: one for one in found.get("treatments", ())}
        return [numbers({**treatments[one["treatment"]], **one}) for one in found.get("cells", ())]

    def _rows_of_hypotheses(self) -> list[Row]:
        return [numbers(one) for one in self.report.get("evidence", {}).get("hypotheses", ())]

    def _rows_of_membership(self) -> list[Row]:
        with h5py.File(self.folder / "membership.nc") as opened:
            values, arms, signals, groups, roles = (
                opened[name][()] if name == "membership" else opened[name].asstr()[()].tolist()
                for name in ("membership", "arm", "signal", "group", "role")
            )
        groups, roles = np.array(groups), np.array(roles)
        sides = {name: groups == name for name in groups.tolist()}
        sides["all together"] = ~np.isin(roles, ("held-out", "generated"))
        rows = []
        for one in self._read("membership"):
            column = values[:, :, signals.index(one["signal"])]
            mine, others = sides[one["group"]], roles == one["against"]
            after = column[arms.index(one["arm"])]
            apart = placements(after[mine], after[others])
            row: Row = {"members": mine.sum(), "others": others.sum(), **area(apart, 0.0)}
            if one["arm"] != "original":
                known = column[arms.index("original")]
                first = placements(known[mine], known[others])
                change = area((apart[0] - first[0], apart[1] - first[1]), -1.0)
                names = ("change", "change_low", "change_high")
                row |= dict(zip(names, change.values(), strict=True))
            rows.append(row)
        return rows

    def _read(self, name: str) -> list[dict[str, str]]:
        with (self.folder / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _rows_of_recovery(self) -> list[Row]:
        names = ("pictures", "median_budget")
        return [
            {
                **{name: one[name] for name in names},
                "budget": budget,
                "recovered": count,
                "threshold": limit,
                "share": count / one["pictures"],
                **dict(zip(("low", "high"), wilson(count, one["pictures"]), strict=True)),
            }
            for one in self.report.get("recovery", ())
            for budget, count, limit in zip(
                one["budgets"], one["recovered"], one["thresholds"], strict=True
            )
        ]

    def _rows_of_depth(self) -> list[Row]:
        names = ("pictures", "unseen")
        return [
            {
                **{name: one[name] for name in names},
                **{name: value for name, value in block.items() if name != "counted"},
                "depth": one["depth"],
                **{f"depth_{end}": one[end] for end in ("low", "high")},
            }
            for one in self.report["depth"]
            for block in one["blocks"]
        ]

    def _rows_of_scores_by_block(self) -> list[Row]:
        return [{"sum": one} for row in self.report["scores"]["by_block_and_scale"] for one in row]

    def _rows_of_neurons_by_block(self) -> list[Row]:
        with h5py.File(self.folder / "neurons.nc") as opened:
            neurons = opened["neurons"]
            names = [
                Path(neurons.file[one[0]].name).name for one in neurons.attrs["DIMENSION_LIST"]
            ]
            found = neurons[()].astype(bool)
        order = [one for one in ("arm", "half", "block", "neuron") if one in names]
        found = found.transpose([names.index(one) for one in order])
        size = found.shape[-1]
        return [{"edited": one, "neurons": size} for one in found.sum(axis=-1).ravel().tolist()]
