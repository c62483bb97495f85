"""The second job: edit neurons, and measure what is forgotten and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from iarmem_plugin.checks import check_kind
from iarmem_plugin.data.opening import check_conditions
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.determinism import check_batching
from iarmem_plugin.evaluation.extraction import stored_tokens
from iarmem_plugin.evaluation.generation import seeded
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.evaluation.recognition import Recognition, check_recognition
from iarmem_plugin.interfaces import ActivationIntervention, Condition, Plugin, Similarity
from iarmem_plugin.jobs.arms import (
    NEVER_SHOWN,
    UNMODIFIED,
    Arm,
    ArmOutcome,
    run_arm,
    select_neurons,
)
from iarmem_plugin.jobs.attack import DEFAULTS, Attack, ExtractionOptions, make_attack
from iarmem_plugin.jobs.contrast import CrossFit, alike, each
from iarmem_plugin.jobs.finished import FinishedArms, shared_settings
from iarmem_plugin.jobs.gallery import gallery
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.jobs.recalibration import Recalibration, judged_anew, kept_completions
from iarmem_plugin.jobs.rehearsal import rehearse
from iarmem_plugin.jobs.scores import check_made_with, mean_activation
from iarmem_plugin.models.provenance import (
    commit,
    describe_images,
    model_provenance,
    module_hashes,
    weights_sha256,
)
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import described, versions
from iarmem_plugin.progress import progress_bar
from iarmem_plugin.report.features import features_dataset, kept_features
from iarmem_plugin.report.report import Report
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress


def mitigate(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    arms: Sequence[Arm],
    *,
    similarity: Similarity,
    recognition: Recognition | None = None,
    losses: LossProtocol | None = None,
    recalibration: Recalibration | None = None,
    quality: QualityProtocol | None = None,
    twin: ImageARModel | None = None,
    options: ExtractionOptions = DEFAULTS,
    progress: Progress | None = None,
) -> Report:
    """Run the extraction attack on a model as it came and after each intervention.

    Candidates, prefix, targets, seeds and threshold are the same in all arms.

    Args:
        model: the wrapped model; it comes back as it was.
        scores: scores of its neurons, from `localize`.
        candidates: training images to extract, in named groups.
        arms: what to compare; the unmodified model is added as the first.
        similarity: decides what counts as extracted.
        recognition: decides what counts as recognisable; None, or one that was not fixed, does not.
        losses: how well each arm predicts images, see `loss_protocol`; None leaves it out.
        recalibration: on what thresholds are fixed anew in each arm; None fixes none.
        quality: how image quality is measured; None leaves it out.
        twin: a model trained alike that never saw the canaries, for the last arm.
        options: how candidates are extracted.
        progress: where progress bars may be shown.

    Returns:
        the report; `Report.save` writes it.

    Raises:
        InputError: scores of another model, or arms of one name.
        PluginError: a plugin returns what it should not; mostly seen before the rest is begun.
        FingerprintMismatchError: the arms that were finished before had other settings.
        DiskFullError: there is no room for a finished arm; those before it stay.

    Reference: arXiv 2509.00488, sections 3.3 and 4.3; arXiv 2502.02514 (the attack).
    """
    _check_kinds(model, scores, similarity, options)
    _check_measures(recognition, losses, recalibration)
    _check_tried(model, arms, candidates, twin)
    arms = [UNMODIFIED, *(arm for arm in arms if arm.selector is not None)]
    mean = _check_arms(model, arms, scores, candidates)
    rehearse(model, scores, arms, candidates.images, similarity, backend=options.backend)
    attack = make_attack(
        *(model, candidates, similarity, options),
        mean=mean,
        recognition=recognition,
        losses=losses,
        recalibration=recalibration,
        progress=progress,
    )
    _rehearse_twin(twin, attack)
    return _compared(model, scores, arms, attack, quality, twin, options, progress)


def _compared(
    model: ImageARModel,
    scores: xr.Dataset,
    arms: Sequence[Arm],
    attack: Attack,
    quality: QualityProtocol | None,
    twin: ImageARModel | None,
    options: ExtractionOptions,
    progress: Progress | None,
) -> Report:
    """Run the arms and report them."""
    work = [(arm, select_neurons(arm, scores, model.layout)) for arm in arms]
    made_by = model_provenance(model) | {"commit": commit()}
    provenance = made_by | _plugins(model, arms, attack, quality, made_by["versions"])
    run = _runner(options, provenance, attack, quality)
    outcomes = [run(model, *one, attack, quality) for one in _shown(work, progress)]
    outcomes += _asked(twin, model, scores, attack, quality)
    settings = _settings(model, attack, options.check_batching)
    names = xr.DataArray([one.result.name for one in outcomes], dims="arm", name="arm")
    joined = xr.concat(alike([one.extraction for one in outcomes]), names, combine_attrs="override")
    joined = joined.assign(target_tokens=stored_tokens(attack.targets.tokens.numpy()))
    joined, calibration = _recalibrated(joined, outcomes, attack)
    return Report(
        model=model.adapter.variant.name,
        provenance=provenance | settings | _inputs(scores, attack, quality) | _of_twin(twin),
        scores=scores,
        arms=tuple(outcome.result for outcome in outcomes),
        extraction=joined,
        gallery=gallery(model, joined, attack.targets),
        neurons=xr.concat([outcome.neurons for outcome in outcomes], names),
        features=_features(outcomes, quality),
        calibration=calibration,
        floors={one.name: one.quality for one in (quality.floors if quality else ())},
    )


def _recalibrated(
    joined: xr.Dataset, outcomes: Sequence[ArmOutcome], attack: Attack
) -> tuple[xr.Dataset, xr.Dataset | None]:
    """Judge all arms at thresholds fixed anew, too; return with it what all thresholds rest on."""
    fixed = None if attack.recognition is None else attack.recognition.completions
    if attack.recalibration is None:
        return joined, fixed
    anew = {one.result.name: one.calibration for one in outcomes if one.calibration is not None}
    return judged_anew(joined, anew, attack.recalibration.rate), kept_completions(fixed, anew)


def _check_kinds(model: object, scores: object, similarity: object, options: object) -> None:
    check_kind("the model", model, ImageARModel, "a wrapped model, from iarmem.load or iarmem.wrap")
    check_kind("the scores", scores, xr.Dataset, "what localize returned")
    check_kind("the similarity", similarity, Similarity, "a measure, such as PixelCorrelation()")
    check_kind("options", options, ExtractionOptions, "ExtractionOptions")


def _check_measures(recognition: object, losses: object, recalibration: object) -> None:
    check_recognition(recognition)
    nothing = type(None)
    expected = "what loss_protocol returned, or None"
    check_kind("losses", losses, (LossProtocol, nothing), expected)
    expected = "a Recalibration, or None"
    check_kind("recalibration", recalibration, (Recalibration, nothing), expected)


def _check_tried(
    model: ImageARModel, arms: Sequence[Arm], candidates: Candidates, twin: ImageARModel | None
) -> None:
    check_kind("arms", arms, (list, tuple), "a list of arms")
    for arm in arms:
        check_kind("an arm", arm, Arm, "an Arm, such as Arm('highest', Highest(), ScaleWeights())")
    check_kind("the candidates", candidates, Candidates, "Candidates")
    adapter = model.adapter
    check_conditions(candidates.images, adapter.conditions, adapter.variant.num_classes)
    _check_twin(model, twin, arms)


def _own_scores(arms: Sequence[Arm], candidates: Candidates) -> Iterator[xr.Dataset]:
    """Yield the scores that arms have of their own; refuse halves of other candidates."""
    for arm in arms:
        yield from each(arm.scores)
        if isinstance(arm.scores, CrossFit):
            known = arm.scores.made_for in ("", candidates.identity)
            if not known or arm.scores.half.shape != (len(candidates),):
                raise InputError(
                    f"arm {shown(arm.name)!r} has halves of {arm.scores.half.size} candidates, and "
                    f"{len(candidates)} are given, others or in another order; cross-fit these"
                )


def _check_twin(model: ImageARModel, twin: ImageARModel | None, arms: Sequence[Arm]) -> None:
    if twin is None:
        return
    check_kind("the twin", twin, ImageARModel, "a wrapped model, from iarmem.load or iarmem.wrap")
    if any(arm.name == NEVER_SHOWN.name for arm in arms):
        raise InputError(f"an arm is named {NEVER_SHOWN.name!r}, as that of the twin is")
    if weights_sha256(model) == weights_sha256(twin):
        raise InputError(
            f"the twin {twin.adapter.variant.name} has the model's own weights; give a model that "
            "never saw the canaries"
        )
    one, other = (str(next(each.adapter.network.parameters()).dtype) for each in (model, twin))
    if one != other:
        raise InputError(f"the twin is {other} and the model {one}; load both in one precision")
    if module_hashes(model.adapter) != module_hashes(twin.adapter):
        raise InputError(
            f"{twin.adapter.variant.name} has another tokenizer than {model.adapter.variant.name}, "
            "so their tokens cannot be compared; give a twin on the same tokenizer"
        )


def _rehearse_twin(twin: ImageARModel | None, attack: Attack) -> None:
    """Let the twin complete two candidates, before the arms are run and not after them."""
    if twin is None:
        return
    images, rows = attack.candidates.images, slice(0, min(2, len(attack.candidates)))
    check_conditions(images, twin.adapter.conditions, twin.adapter.variant.num_classes)
    given = attack.targets.at(rows, twin.device).tokens[:, : attack.prefix_tokens]
    with twin.borrowed():
        told = Condition.of_images(images, rows).to(twin.device)
        tokens = twin.complete(given, told, seeded(attack.sampling, rows))
    if tokens.shape[1] != attack.targets.tokens.shape[1]:
        raise InputError(
            f"{twin.adapter.variant.name} makes images of {tokens.shape[1]} tokens, and the "
            f"candidates have {attack.targets.tokens.shape[1]}; give a twin of the same layout"
        )


def _runner(
    options: ExtractionOptions,
    provenance: Mapping[str, Any],
    attack: Attack,
    quality: QualityProtocol | None,
) -> Callable[..., ArmOutcome]:
    if options.checkpoints is None:
        return run_arm
    return FinishedArms(Path(options.checkpoints), shared_settings(provenance, attack, quality)).run


def _shown(
    work: Sequence[tuple[Arm, xr.DataArray]], progress: Progress | None
) -> Iterator[tuple[Arm, xr.DataArray]]:
    advance = progress_bar(progress, "arms", len(work))
    for one in work:
        yield one
        advance(1)


def _settings(model: ImageARModel, attack: Attack, checked: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "backend": attack.backend,
        "prefix_tokens": attack.prefix_tokens,
        "batch_size": attack.completing.size,
        "attack": attack.provenance,
    }
    if model.adapter.decoding:
        settings["decoding"] = model.adapter.decoding
    if checked:
        differences = check_batching(
            model,
            attack.candidates,
            model.adapter.variant.views,
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
    if (alike := candidates.clusters) is not None:
        marked = {"threshold": alike.threshold, "clusters": len(alike)}
        found["candidates"] |= {"near_duplicates": marked}
    if candidates.generations is not None:
        drawn = candidates.generations
        found["free generations"] = asdict(drawn.sampling) | {"images": len(drawn.tokens)}
    if attack.losses is not None:
        found["losses"] = attack.losses.provenance
    if quality is not None:
        found["generation"] = quality.provenance
        found["quality"] = dict(quality.quality.provenance)
    return found


def _features(outcomes: Sequence[ArmOutcome], quality: QualityProtocol | None) -> xr.Dataset | None:
    if quality is None:
        return None
    generated = {one.result.name: one.features for one in outcomes if one.features is not None}
    real = {name: kept_features([one]) for name, one in quality.references.items()}
    floors = {
        one.reference: (kept_features([one.real]), kept_features([one.other]))
        for one in quality.floors
    }
    first = quality.sampling.seed
    return features_dataset(generated, real, floors, seed=first if isinstance(first, int) else 0)


def _asked(
    twin: ImageARModel | None,
    model: ImageARModel,
    scores: xr.Dataset,
    attack: Attack,
    quality: QualityProtocol | None,
) -> list[ArmOutcome]:
    """Ask the twin, if there is one, what the arms were asked."""
    if twin is None:
        return []
    neurons = select_neurons(NEVER_SHOWN, scores, model.layout)
    return [run_arm(twin, NEVER_SHOWN, neurons, attack, quality)]


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
        used += [one for one in (arm.selector, arm.intervention) if one is not None]
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


def _check_arms(
    model: ImageARModel, arms: Sequence[Arm], scores: xr.Dataset, candidates: Candidates
) -> xr.DataArray | None:
    """Return the neurons' mean activation; refuse, before the attack, arms that cannot be run."""
    check_made_with(model, scores, *_own_scores(arms, candidates))
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise InputError(f"arms need different names, got {names}")
    mean = mean_activation(scores)
    for arm in arms:
        edit = arm.intervention
        if isinstance(edit, ActivationIntervention) and edit.needs_mean and mean is None:
            raise InputError(
                f"the intervention {shown(edit.name)!r} of arm {shown(arm.name)!r} needs the "
                "neurons' mean activation, and the scores have no 'mean_activation'; score the "
                "neurons again with localize"
            )
    return mean
