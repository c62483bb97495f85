"""What came out of all arms, put together as a report, with how the numbers were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import xarray as xr

from iarmem_plugin.evaluation.counts import TWIN
from iarmem_plugin.evaluation.determinism import check_batching as batching_differences
from iarmem_plugin.evaluation.extraction import stored_tokens
from iarmem_plugin.evaluation.recovery.curves import with_recovered
from iarmem_plugin.interfaces import Plugin
from iarmem_plugin.jobs.arms import Arm, ArmOutcome
from iarmem_plugin.jobs.attack import Attack, taken_views
from iarmem_plugin.jobs.contrast import alike, each
from iarmem_plugin.jobs.gallery import gallery, pictured
from iarmem_plugin.jobs.protocol import RATE
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.jobs.recalibration import judged_anew, kept_completions
from iarmem_plugin.models.provenance import describe_images, model_provenance
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import described, versions
from iarmem_plugin.report.features import features_dataset, kept_features, kept_moments
from iarmem_plugin.report.report import Report


def reported(
    model: ImageARModel,
    scores: xr.Dataset,
    outcomes: Sequence[ArmOutcome],
    attack: Attack,
    quality: QualityProtocol | None,
    provenance: Mapping[str, Any],
) -> Report:
    """Put what came out of all arms together.

    Args:
        model: the unmodified model; it decodes what the gallery shows.
        scores: scores that all arms share.
        outcomes: of the arms, the original first.
        attack: what all arms share.
        quality: how image quality is measured.
        provenance: how the numbers were made.
    """
    names = xr.DataArray([one.result.name for one in outcomes], dims="arm", name="arm")
    joined = xr.concat(alike([one.extraction for one in outcomes]), names, combine_attrs="override")
    joined = joined.assign(target_tokens=stored_tokens(attack.targets.tokens.numpy()))
    joined, calibration = _recalibrated(joined, outcomes, attack)
    return Report(
        model=model.adapter.variant.name,
        provenance=provenance,
        scores=scores,
        arms=tuple(outcome.result for outcome in outcomes),
        extraction=joined,
        gallery=gallery(model, joined, attack.targets, pictured([one.result for one in outcomes])),
        neurons=xr.concat([outcome.neurons for outcome in outcomes], names),
        features=_features(outcomes, quality),
        calibration=calibration,
        floors={one.name: one.quality for one in (quality.floors if quality else ())},
        recovery=_recovery(outcomes),
        membership=_membership(outcomes),
        depth=_depth(outcomes),
    )


def _membership(outcomes: Sequence[ArmOutcome]) -> xr.Dataset | None:
    """Return the membership signals that every arm has, dims (arm, candidate, signal)."""
    known = {one.result.name: one.membership for one in outcomes if one.membership is not None}
    if not known:
        return None
    names = xr.DataArray(list(known), dims="arm", name="arm")
    every = [one.drop_vars("half", errors="ignore") for one in known.values()]
    return xr.concat(every, names, join="inner", combine_attrs="drop_conflicts")


def _depth(outcomes: Sequence[ArmOutcome]) -> xr.Dataset | None:
    """Return the losses that the blocks of arms leave, dims (arm, block, candidate)."""
    known = {one.result.name: one.depth for one in outcomes if one.depth is not None}
    if TWIN not in known:
        return None
    names = xr.DataArray(list(known), dims="arm", name="arm")
    return xr.concat(list(known.values()), names, combine_attrs="override")


def _recovery(outcomes: Sequence[ArmOutcome]) -> xr.Dataset | None:
    """Return what is recovered in each arm in which triggers were tried, dims (arm, ...)."""
    tried = {one.result.name: one.recovery for one in outcomes if one.recovery is not None}
    if not tried:
        return None
    names = xr.DataArray(list(tried), dims="arm", name="arm")
    return with_recovered(xr.concat(list(tried.values()), names), rate=RATE)


def _recalibrated(
    joined: xr.Dataset, outcomes: Sequence[ArmOutcome], attack: Attack
) -> tuple[xr.Dataset, xr.Dataset | None]:
    """Judge all arms at thresholds fixed anew, too; return with it what all thresholds rest on."""
    fixed = None if attack.recognition is None else attack.recognition.completions
    if attack.recalibration is None:
        return joined, fixed
    anew = {one.result.name: one.calibration for one in outcomes if one.calibration is not None}
    return judged_anew(joined, anew, attack.recalibration.rate), kept_completions(fixed, anew)


def comparison_provenance(
    model: ImageARModel,
    scores: xr.Dataset,
    arms: Sequence[Arm],
    attack: Attack,
    quality: QualityProtocol | None,
    twin: ImageARModel | None,
    made_by: Mapping[str, Any],
    check_batching: int = 0,
) -> dict[str, Any]:
    """Return what a report says of how the numbers of all arms were made.

    Args:
        model: the unmodified model.
        scores: scores that all arms share.
        arms: what was compared.
        attack: what all arms share.
        quality: how image quality is measured.
        twin: the model that never saw the canaries, if there is one.
        made_by: what `model_provenance` says of the model.
        check_batching: how many candidates are completed one by one, too.
    """
    return {
        **made_by,
        **_plugins(model, arms, attack, quality, made_by["versions"]),
        **_settings(model, attack, check_batching),
        **_inputs(scores, attack, quality),
        **_of_twin(twin),
    }


def _settings(model: ImageARModel, attack: Attack, checked: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "backend": attack.backend,
        "prefix_tokens": attack.prefix_tokens,
        "batch_size": attack.completing.size,
        "attack": attack.provenance,
    }
    if attack.recovery is not None:
        settings["recovery"] = attack.recovery.provenance
    if model.adapter.decoding:
        settings["decoding"] = model.adapter.decoding
    if checked:
        differences = batching_differences(
            model,
            attack.candidates,
            taken_views(model, attack.view),
            prefix_tokens=attack.prefix_tokens,
            batch_size=attack.completing.size,
            images=checked,
        )
        settings["batching"] = asdict(differences)
    return settings


def _inputs(scores: xr.Dataset, attack: Attack, quality: QualityProtocol | None) -> dict[str, Any]:
    candidates = attack.candidates
    chosen = "given" if candidates.hit_rate is None else "best predicted of each class"
    found: dict[str, Any] = {
        "scores": json.loads(scores.attrs["provenance"]),
        "candidates": describe_images(candidates.images) | {"chosen": chosen},
        "similarity": dict(attack.similarity.provenance),
    }
    if attack.recognition is not None and attack.recognition.threshold is not None:
        found["recognition"] = {
            "threshold": attack.recognition.threshold,
            "threshold_source": attack.recognition.source,
        }
    if (again := attack.recalibration) is not None:
        seen = describe_images(again.candidates.images)
        found["recalibration"] = {"rate": again.rate, "candidates": seen}
    if candidates.ranking is not None:
        found["candidates"] |= {"ranking": dict(candidates.ranking)}
    if (clusters := candidates.clusters) is not None:
        marked = {"threshold": clusters.threshold, "clusters": len(clusters)}
        found["candidates"] |= {"near_duplicates": marked}
    if candidates.generations is not None:
        drawn = candidates.generations
        found["free generations"] = asdict(drawn.sampling) | {"images": len(drawn.tokens)}
    if attack.losses is not None:
        found["losses"] = attack.losses.provenance
    if attack.retained is not None:
        found["retained"] = describe_images(attack.retained)
    if quality is not None:
        found["generation"] = quality.provenance
        found["quality"] = dict(quality.quality.provenance)
    return found


def _features(outcomes: Sequence[ArmOutcome], quality: QualityProtocol | None) -> xr.Dataset | None:
    if quality is None:
        return None
    generated = {one.result.name: one.features for one in outcomes if one.features is not None}
    real = {name: kept_features([one]) for name, one in quality.references.items()}
    for one in quality.files:
        whole = one.features is not None and len(one.features) == one.images
        real[one.name] = (
            kept_features([one.features])
            if whole and one.features is not None
            else kept_moments(one.mean, one.covariance, one.images)
        )
    floors = {
        one.reference: (kept_features([one.real]), kept_features([one.other]))
        for one in quality.floors
    }
    first = quality.sampling.seed
    return features_dataset(generated, real, floors, seed=first if isinstance(first, int) else 0)


def _of_twin(twin: ImageARModel | None) -> dict[str, Any]:
    if twin is None:
        return {}
    known = model_provenance(twin)
    return {
        "twin": {
            name: known[name] for name in ("model", "weights_sha256", "files", "dtype", "device")
        }
    }


def _plugins(
    model: ImageARModel,
    arms: Sequence[Arm],
    attack: Attack,
    quality: QualityProtocol | None,
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """Return each plugin that was used, once, and the versions of their distributions."""
    used: list[Plugin] = [model.adapter, attack.similarity]
    for arm in arms:
        used += [one for one in (arm.selector, arm.intervention, arm.edit) if one]
    if attack.losses is not None:
        used.append(attack.losses.quality)
    if quality is not None:
        used.append(quality.quality)
    scored = [json.loads(one.attrs["provenance"]) for arm in arms for one in each(arm.scores)]
    facts: list[dict[str, Any]] = []
    for one in [*map(described, used), *(fact for said in scored for fact in said["plugins"])]:
        facts += [] if one in facts else [one]
    known = {name: one for said in scored for name, one in said["versions"].items()}
    return {"plugins": facts, "versions": {**libraries, **known, **versions(*used)}}
