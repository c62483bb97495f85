"""What was published of the very model and edit of an arm, to stand beside what was measured."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from iarmem_plugin.evaluation.counts import GENERATED, HELD_OUT, count_extracted, having_role
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report.results import ArmResult, Results

EDIT = ("scale-weights", 0.5)
METRIC = "unitmem"


@dataclass(frozen=True, slots=True)
class Beside:
    """One arm's outcome beside the published one.

    Attributes:
        arm: name of the arm.
        extracted: number of candidates extracted here.
        candidates: number of candidates here, but held-out and generated ones.
        fid: Fréchet inception distance measured here; None where it was not.
        fid_label: its protocol; empty where it was not measured.
        published_extracted: as published; None where nothing was.
        published_fid: as published.
        source: where it was published.
    """

    arm: str
    extracted: int
    candidates: int
    fid: float | None
    fid_label: str
    published_extracted: int | None
    published_fid: float
    source: str


@cache
def facts() -> Mapping[str, Any]:
    """Return the published numbers: ``sources``, each ``edit``, and ``fid`` by model."""
    text = resources.files("iarmem_plugin.report.published").joinpath("published.toml")
    return tomllib.loads(text.read_text(encoding="utf-8"))


def edits_of(model: str) -> list[Mapping[str, Any]]:
    """Return the published edits of a model, the smallest fraction first."""
    return [one for one in facts()["edit"] if one["model"] == model]


def published_lines(model: str) -> list[str]:
    """Say in a line each what was published of a model; nothing of one that is not there."""
    known = facts()
    if model not in known["fid"]:
        return []
    lines = []
    for one in edits_of(model):
        (before, after), (fid, later) = one["extracted"], one["fid"]
        lines.append(
            f"{one['fraction']:.0%}: extracted {before} to {after}, FID {fid:g} to {later:g} "
            f"({known['sources']['paper']}, {one['where']})"
        )
    if not lines:
        source = _source_of_model(model)
        lines.append(f"unmodified: FID {known['fid'][model]:g} ({source}); no edit")
    return lines


def published(results: Results) -> tuple[Beside, ...]:
    """Return the arms whose model and edit were published, with both outcomes.

    The original stands with what was published of the unmodified model; a treatment, if it is the
    paper's: the highest by UnitMem of the whole model, weights halved, at a published fraction.
    """
    return tuple(_found(results)) if results.model in facts()["fid"] else ()


def _found(results: Results) -> Iterator[Beside]:
    shown = ~having_role(results.extraction, HELD_OUT) & ~having_role(results.extraction, GENERATED)
    counts = count_extracted(results.extraction, shown)["extracted"].values.tolist()
    metric, edits = str(results.scores.attrs["metric"]), edits_of(results.model)
    for arm, extracted in zip(results.arms, counts, strict=True):
        known = _published_of(results.model, arm, metric, edits)
        if known is not None:
            fid = _fid(arm)
            label = "" if fid is None else fid.label
            value = None if fid is None else fid.value
            yield Beside(arm.name, extracted, int(shown.sum()), value, label, *known)


def _published_of(
    model: str, arm: ArmResult, metric: str, edits: list[Mapping[str, Any]]
) -> tuple[int | None, float, str] | None:
    """Return extracted, FID and source; None where nothing fits."""
    paper = facts()["sources"]["paper"]
    if arm.role == "original":
        before = edits[0]["extracted"][0] if edits else None
        source = _source_of_model(model)
        return before, facts()["fid"][model], f"{paper}; FID: {source}" if edits else source
    if arm.role != "treatment" or not _is_papers(arm, metric):
        return None
    for one in edits:
        if math.isclose(one["fraction"], arm.fraction or 0.0, rel_tol=1e-9):
            return one["extracted"][1], one["fid"][1], f"{paper}, {one['where']}"
    return None


def _is_papers(arm: ArmResult, metric: str) -> bool:
    edit, chosen = arm.intervention or {}, arm.selector or {}
    return (
        (edit.get("name"), edit.get("factor")) == EDIT
        and chosen.get("name") == "highest"
        and chosen.get("pool", "model") == "model"
        and chosen.get("by", "score") == "score"
        and chosen.get("scales", "mean") in ("mean", "sum")  # which rank alike
        and str(chosen.get("scores", metric)).partition(":")[0] == METRIC
        and "cross_fit" not in chosen
    )


def _source_of_model(model: str) -> str:
    return str(facts()["sources"][model.partition("-")[0]])


def _fid(arm: ArmResult) -> QualityValue | None:
    """Return the FID of an arm: against statistics from a file, as is published, or else any."""
    found = [one for one in arm.quality if one.label.startswith("FID (") and one.value is not None]
    given = [one for one in found if ", reference statistics sha256 " in one.label]
    return next(iter([*given, *found]), None)


def document_of(results: Results) -> dict[str, Any]:
    """Return the entry ``published`` of ``report.json``; empty where nothing fits."""
    found = published(results)
    return {"published": [asdict(one) for one in found]} if found else {}


def notes(results: Results) -> Iterator[str]:
    """Say in a line an arm what was published, for a terminal."""
    for one in published(results):
        count = "" if one.published_extracted is None else f"{one.published_extracted} extracted, "
        yield f"Published of {one.arm}: {count}FID {one.published_fid:g} ({one.source})"
