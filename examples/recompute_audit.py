"""Check an audit: make its verdicts, counts and intervals again from its folder.

    python examples/recompute_audit.py AUDITED

Thresholds are fixed anew on the pictures that ``values.csv`` marks ``fixes``; every other picture
is judged by them. Of iarmem nothing is used: numpy and scipy alone. Exits with 1 where something
does not come out again.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recompute_recovery import limits
from scipy.optimize import nnls
from scipy.stats import binomtest, ttest_ind_from_stats

VERDICTS = ("extracted", "recognisable", "member-like")
NOTHING, ANY = "nothing found", "any of these"
TOLERANCE = 1e-6
Found = tuple[str, Any, Any]  # what it is, as written, and as made again


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def audit(folder: Path) -> Iterator[Found]:
    """Yield everything of an audit that its folder allows to make again."""
    written = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    rows, listed = rows_of(folder / "values.csv"), rows_of(folder / "audit.csv")
    columns = [one["column"] for one in written["thresholds"]]
    values = np.array([[float(row[one]) for row in rows] for one in columns])
    use = np.array([row["use"] for row in rows])
    above = thresholds(written, values[:, use == "fixes"])
    for one, made in zip(written["thresholds"], above.tolist(), strict=True):
        yield f"threshold of {one['column']}", one["threshold"], made
    firsts = [first(values[:, place] > above) for place in range(len(rows))]
    found = [NOTHING if at is None else written["thresholds"][at]["verdict"] for at in firsts]
    for row, made in zip(rows, found, strict=True):
        yield f"verdict on {row['picture']} ({row['use']})", row["verdict"], made
    places = np.flatnonzero(use == "audited")
    for one, row in zip(written["pictures"], listed, strict=True):
        place = int(places[one["number"]])
        yield from picture(one, row, rows[place], written["thresholds"], values[:, place], above)
    yield from counts(written, np.array(found), use)
    yield from inference(written, values, use)


def thresholds(written: Mapping[str, Any], fixing: np.ndarray) -> np.ndarray:
    """Return all thresholds, those of each verdict fixed together."""
    verdicts = np.array([one["verdict"] for one in written["thresholds"]])
    made = np.empty(len(verdicts))
    for one in VERDICTS:
        made[verdicts == one] = limits(fixing[verdicts == one], written["rate"])
    return made


def first(above: np.ndarray) -> int | None:
    """Return the first place that is above its threshold."""
    return int(above.argmax()) if above.any() else None


def picture(
    one: Mapping[str, Any],
    listed: Mapping[str, str],
    row: Mapping[str, str],
    fixed: Sequence[Mapping[str, Any]],
    values: np.ndarray,
    above: np.ndarray,
) -> Iterator[Found]:
    """Yield what ``audit.json`` and ``audit.csv`` say of one picture."""
    at = first(values > above)
    by: Mapping[str, Any] = {} if at is None else fixed[at]
    name, verdict = f"{one['path']}: ", by.get("verdict", NOTHING)
    yield f"{name}row of values.csv", row["picture"].removeprefix("'"), one["path"]
    yield f"{name}verdict", one["verdict"], verdict
    yield f"{name}verdict in audit.csv", listed["verdict"], verdict
    for key in ("found_by", "budget", "unit"):
        made = by.get(key)
        yield f"{name}{key}", one[key], made
        yield (
            f"{name}{key} in audit.csv",
            listed[key],
            str(by.get(key, "") if by.get(key) is not None else ""),
        )
    measures = np.array([each["measure"] for each in fixed])
    for key in ("similarity", "agreement"):
        most = float(values[measures == key].max())
        yield f"{name}{key}", one[key], most
        yield f"{name}{key} in audit.csv", float(listed[key]), most


def counts(written: Mapping[str, Any], found: np.ndarray, use: np.ndarray) -> Iterator[Found]:
    """Yield the counts of verdicts, with the interval of false alarms."""
    mine, unseen = found[use == "audited"], found[use == "never seen"]
    yield "held-out pictures", written["held_out"], len(unseen)
    yield "calibrating pictures", written["calibrating"], int((use == "fixes").sum())
    for one in written["counts"]:
        chosen = VERDICTS if one["verdict"] == ANY else (one["verdict"],)
        alarms = int(np.isin(unseen, chosen).sum())
        share = binomtest(alarms, len(unseen)).proportion_ci(method="exact")
        name = f"{one['verdict']}: "
        yield f"{name}pictures", one["pictures"], int(np.isin(mine, chosen).sum())
        yield f"{name}false alarms", one["false_alarms"], alarms
        yield f"{name}low", one["low"], float(share.low)
        yield f"{name}high", one["high"], float(share.high)


def inference(written: Mapping[str, Any], values: np.ndarray, use: np.ndarray) -> Iterator[Found]:
    """Yield the p-value of all pictures together: weights fitted on one half of each side."""
    told = written["dataset_inference"]
    if told is None:
        return
    signals = values[[one["measure"] == "signal" for one in written["thresholds"]]].T
    random = np.random.default_rng(written["provenance"]["seed"])
    (fit, ours), (fit_others, others) = (
        np.array_split(random.permutation(side), [len(side) // 2])
        for side in (signals[use == "audited"], signals[use != "audited"])
    )
    every = np.concatenate((fit, fit_others))
    spread = np.where(np.ptp(every, axis=0) == 0, 1.0, every.std(axis=0))
    sides = np.repeat([1.0, 0.0], [len(fit), len(fit_others)])
    weights = nnls((every - every.mean(axis=0)) / spread, sides - sides.mean())[0] / spread
    mine, theirs = ours @ weights, others @ weights
    moments = [(side.mean(), side.std(ddof=1), len(side)) for side in (mine, theirs)]
    with np.errstate(all="ignore"):
        p = ttest_ind_from_stats(*moments[0], *moments[1], False, "greater").pvalue
    yield "dataset inference: p", told["p"], 1.0 if math.isnan(p) else float(p)
    yield "dataset inference: members", told["members"], len(mine)
    yield "dataset inference: others", told["others"], len(theirs)


def differs(written: Any, made: Any) -> bool:
    """Tell whether two values are further apart than rounding explains."""
    if isinstance(written, float) and isinstance(made, float):
        return not math.isclose(written, made, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(written != made)


def main(folder: str) -> int:
    """Compare, say how much agrees, and list what does not."""
    compared = list(audit(Path(folder)))
    wrong = [one for one in compared if differs(*one[1:])]
    for name, written, made in wrong:
        print(f"{name}: {written} is written, {made} made again")
    print(f"{len(compared) - len(wrong)} of {len(compared)} agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python recompute_audit.py AUDITED")
    if not Path(sys.argv[1], "audit.json").is_file():
        sys.exit(f"{sys.argv[1]} holds no audit.json; give the folder of an audit")
    sys.exit(main(sys.argv[1]))
