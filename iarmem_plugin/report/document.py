"""``report.json``: plain values made from results, and arms made from plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import (
    ANEW,
    EXTRACTED,
    RECOGNISABLE,
    count_anew,
    outcomes,
    pair_with_original,
)
from iarmem_plugin.evaluation.losses import LOSS, TEMPERATURE
from iarmem_plugin.evaluation.recognition import count_outcome
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report.depth.rows import depth_document
from iarmem_plugin.report.evidence.document import evidence_document
from iarmem_plugin.report.evidence.evidence import evidence_of
from iarmem_plugin.report.published.beside import document_of
from iarmem_plugin.report.recovery.rows import recovery_document
from iarmem_plugin.report.results import ArmResult, ArmRole, Results, block_sums

SCHEMA = 1
FILE = "report.json"
OUTCOMES = {"extraction": EXTRACTED, "recognition": RECOGNISABLE}
LIMITS = ("threshold", "threshold_low", "threshold_high")
FLOORS, EVIDENCE = "floors", "evidence"
KEYS = ("schema", "model", "provenance", "scores", "arms")


def to_document(results: Results) -> dict[str, Any]:
    """Return what ``report.json`` holds: plain values, null for what is not a number."""
    counts = {one: count_outcome(results.extraction, one) for one in outcomes(results.extraction)}
    if results.losses is not None:
        counts[LOSS] = results.losses
    anew, pairs = _anew(results.extraction), _pairs(results.extraction)
    scores = {
        "metric": str(results.scores.attrs["metric"]),
        "by_block_and_scale": block_sums(results.scores).values,
    }
    return {
        "schema": SCHEMA,
        "model": results.model,
        "provenance": plain(results.provenance),
        "scores": plain(scores),
        "arms": [
            plain(
                {
                    **_arm(arm, counts, results.extraction),
                    **anew.get(arm.name, {}),
                    **pairs.get(arm.name, {}),
                    "quality": [asdict(value) for value in arm.quality],
                }
            )
            for arm in results.arms
        ],
        **_floors(results.floors),
        **document_of(results),
        **_evidence(results),
        **({} if results.recovery is None else {"recovery": recovery_document(results.recovery)}),
        **({} if results.depth is None else {"depth": plain(depth_document(results.depth))}),
    }


def read_document(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's ``report.json`` holds; None where there is none of this schema."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(found, dict) and set(KEYS) <= set(found) and found["schema"] == SCHEMA
    return found if ours else None


def arms_of(document: Mapping[str, Any], roles: Iterable[str]) -> tuple[ArmResult, ...]:
    """Return the arms of a document, whose roles are written elsewhere."""
    known: dict[str, ArmRole] = {role: role for role in get_args(ArmRole)}
    return tuple(
        ArmResult(
            **{key: arm[key] for key in ("name", "intervention", "selector", "fraction")},
            quality=tuple(QualityValue(**value) for value in arm["quality"]),
            role=known[role],
            edit=arm.get("edit"),
        )
        for arm, role in zip(document["arms"], roles, strict=True)
    )


def floors_of(document: Mapping[str, Any]) -> dict[str, tuple[QualityValue, ...]]:
    """Return what a document says of real pictures held against real pictures."""
    return {
        name: tuple(QualityValue(**value) for value in values)
        for name, values in document.get(FLOORS, {}).items()
    }


def check_same_numbers(written: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Compare a document with one made anew from the other files of its folder.

    Raises:
        InputError: counts or scores differ.
    """
    if not _alike(_counts(written), _counts(found)):
        raise InputError(f"{FILE} and extraction.nc do not give the same counts")
    tables = [document["scores"]["by_block_and_scale"] for document in (written, found)]
    one, other = (np.array(table, dtype=np.float64) for table in tables)
    # sums of float64 in another order, on another machine
    if one.shape != other.shape or not np.allclose(one, other, rtol=1e-9, equal_nan=True):
        raise InputError(f"{FILE} and scores.nc do not give the same sums of scores")


def plain(value: Any) -> Any:
    """Return JSON values alone: null for NaN and infinity, text for whatever JSON does not know."""
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def _arm(
    arm: ArmResult, counts: Mapping[str, xr.Dataset], extraction: xr.Dataset
) -> dict[str, Any]:
    by_group = {
        key: _by_group(outcome, counts[outcome].sel(arm=arm.name))
        for key, outcome in OUTCOMES.items()
        if outcome in counts
    }
    if LOSS in counts:
        by_group["losses"] = _by_group("", counts[LOSS].sel(arm=arm.name))
        by_group[TEMPERATURE] = extraction[TEMPERATURE].sel(arm=arm.name).item()
    return {
        "name": arm.name,
        "intervention": arm.intervention,
        "selector": arm.selector,
        "fraction": arm.fraction,
        **({} if arm.edit is None else {"edit": arm.edit}),
        **by_group,
    }


def _anew(extraction: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return by arm its own thresholds with their intervals, and what counts at them."""
    found: dict[str, dict[str, Any]] = {}
    for key, outcome in OUTCOMES.items():
        anew = count_anew(extraction, outcome=outcome) if outcome in outcomes(extraction) else None
        for name in () if anew is None else anew["arm"].values.astype(str).tolist():
            mine = anew.sel(arm=name)  # type: ignore[union-attr]  # there are none without it
            ends = {end: mine[end].item() for end in LIMITS}
            counts = _by_group(outcome, mine.drop_vars(LIMITS))
            found.setdefault(name, {})[key] = {**ends, "counts": counts}
    images = extraction.attrs.get(f"{ANEW}images")
    return {name: {"recalibrated": {"images": images, **one}} for name, one in found.items()}


def _evidence(results: Results) -> dict[str, Any]:
    """Return how arms stand against random neurons, where there is anything to say."""
    evidence = evidence_of(results)
    return {} if evidence is None else {EVIDENCE: plain(evidence_document(evidence))}


def _floors(floors: Mapping[str, tuple[QualityValue, ...]]) -> dict[str, Any]:
    """Return what real pictures come to, where they were held against others."""
    if not floors:
        return {}
    return {FLOORS: {name: plain(list(map(asdict, values))) for name, values in floors.items()}}


def _pairs(extraction: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return by arm how its canaries changed against the original's, by outcome."""
    found: dict[str, dict[str, Any]] = {}
    for outcome in outcomes(extraction):
        for pair in pair_with_original(extraction, outcome=outcome):
            values = {name: value for name, value in pair._asdict().items() if name != "arm"}
            found.setdefault(pair.arm, {})[outcome] = values
    return {name: {"paired": one} for name, one in found.items()}


def _by_group(outcome: str, counts: xr.Dataset) -> dict[str, dict[str, int | float]]:
    """Return the numbers of one arm, dims (group)."""
    names = {"extracted": outcome}
    values = {names.get(str(name), str(name)): one.values for name, one in counts.items()}
    return {
        str(group): {name: one[place].item() for name, one in values.items()}
        for place, group in enumerate(counts["group"].values)
    }


def _alike(written: Mapping[Any, Any], found: Mapping[Any, Any]) -> bool:
    return written.keys() == found.keys() and all(
        np.allclose(one, found[key], rtol=1e-9) for key, one in written.items()
    )


def _counts(document: Mapping[str, Any]) -> dict[tuple[str, str, str], tuple[int | float, ...]]:
    """Return all numbers of the arms that come from the extraction, but intervals."""
    return _outcomes(document) | {
        (arm["name"], "losses", group): (
            *(one["loss"], one["plain_loss"], one["change"], one["plain_change"]),
            arm[TEMPERATURE],
        )
        for arm in document["arms"]
        for group, one in arm.get("losses", {}).items()
    }


def _outcomes(document: Mapping[str, Any]) -> dict[tuple[str, str, str], tuple[int | float, ...]]:
    found = {
        (arm["name"], key, group): (
            *(counts[outcome], counts["candidates"]),
            counts.get("agreement", 0),
        )
        for arm in document["arms"]
        for key, outcome in OUTCOMES.items()
        for group, counts in arm.get(key, {}).items()
    }
    return found | {
        (arm["name"], f"recalibrated {key}", group): (counts[outcome], one["threshold"])
        for arm in document["arms"]
        for key, outcome in OUTCOMES.items()
        for one in [arm.get("recalibrated", {}).get(key, {})]
        for group, counts in one.get("counts", {}).items()
    }
