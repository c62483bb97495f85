"""How all arms of a plan are measured: candidates, thresholds, losses, image quality."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.depth.protocol import DepthProtocol
from iarmem_plugin.evaluation.extraction import GREEDY
from iarmem_plugin.evaluation.generation import with_generations
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import LossProtocol, loss_protocol
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.recovery.attempts import TriggerProtocol
from iarmem_plugin.evaluation.similarity import GIVEN, check_threshold
from iarmem_plugin.interfaces import Quality, Sampling, Similarity, TunedSampling
from iarmem_plugin.jobs.attack import Attack, ExtractionOptions, make_attack, taken_views
from iarmem_plugin.jobs.compare.material import Material, organism_of, others
from iarmem_plugin.jobs.compare.shared import Shared, without_threshold
from iarmem_plugin.jobs.contrast import TRIED
from iarmem_plugin.jobs.demo.pictures import spread
from iarmem_plugin.jobs.edits.making import edit_data
from iarmem_plugin.jobs.protocol import RATE
from iarmem_plugin.jobs.quality import QualityProtocol, quality_protocol
from iarmem_plugin.jobs.recalibration import Recalibration
from iarmem_plugin.jobs.triggers.protocol import trigger_protocol
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.plugins.create import create

if TYPE_CHECKING:
    from iarmem_plugin.jobs.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Protocol:
    """How all arms are measured.

    Attributes:
        attack: candidates, targets, thresholds and losses.
        quality: how image quality is measured; None leaves it out.
        material: the pictures, with what was ranked and generated among the candidates.
    """

    attack: Attack
    quality: QualityProtocol | None
    material: Material


def protocol(plan: Plan, shared: Shared, material: Material) -> Protocol:
    """Settle how all arms are measured; what takes long is made by one worker for all.

    Args:
        plan: the plan.
        shared: makes what all arms share.
        material: the pictures.

    Raises:
        InputError: no candidates, or a threshold or prefix that cannot be.
    """
    options = attack_options(plan)
    similarity, recognition = _similarity(plan, str(shared.model.device)), Recognition()
    whole = _with_generations(plan, shared, _ranked(plan, shared, material))
    tried = whole.candidates
    if tried is None:
        raise InputError("the plan has no candidates; name images or candidates in [pictures]")
    attack = _attack(shared, whole, tried, similarity, options, plan)
    if whole.unseen is not None and attack.unseen is not None:
        fixing = without_threshold(attack, whole.unseen, attack.unseen)
        given = plan.attack.threshold is not None
        shared.fix_thresholds(fixing, similarity, recognition, given=given)
    attack = replace(attack, recognition=recognition, losses=_losses(plan, shared, whole))
    attack = replace(attack, recovery=_recovery(plan, shared, attack, whole))
    attack = replace(attack, membership=plan.recovery.membership)
    attack = replace(attack, depth=_depth(plan, shared, attack))
    if not plan.attack.recalibrate:
        attack = replace(attack, recalibration=None, unseen=None)
    return Protocol(attack, _quality(plan, shared, whole), whole)


def attack_options(plan: Plan) -> ExtractionOptions:
    """Return how candidates are extracted, as a plan says."""
    attack = plan.attack
    return ExtractionOptions(
        prefix_tokens=attack.prefix_tokens,
        backend=attack.backend,
        batch_size=attack.batch_size,
        reference=attack.reference,
        sampling=_decoding(plan),
        view=plan.attack.view,
    )


def _decoding(plan: Plan) -> Sampling:
    how = plan.attack.decoding
    if how == "greedy":
        return GREEDY
    return Sampling(
        greedy=False,
        temperature=how.temperature,
        top_k=how.top_k,
        top_p=how.top_p,
        guidance=how.guidance,
        seed=how.seed,
    )


def _similarity(plan: Plan, device: str) -> Similarity:
    text, threshold = plan.attack.similarity, plan.attack.threshold
    check_threshold(threshold, text)
    made = create("similarity", text, {"device": device})
    if threshold is not None:
        made.threshold, made.threshold_source = threshold, GIVEN
    return made


def _ranked(plan: Plan, shared: Shared, material: Material) -> Material:
    """Return the pictures with candidates: those given, or the best of a ranking."""
    if material.candidates is not None or material.images is None:
        return material
    images, attack = material.images, plan.attack
    given = attack.ranking
    ranking = shared.ranking(images) if given is None else Ranking.load(given)
    ranking.check_model(shared.model)
    found = ranking.candidates(
        images,
        per_class=attack.per_class,
        global_top=attack.global_top,
        near_duplicates=attack.near_duplicates,
    )
    retained = material.retained
    if plan.pictures.retain is None:
        retained = others(images, found)
    return replace(material.with_ranked(found), retained=retained)


def _with_generations(plan: Plan, shared: Shared, material: Material) -> Material:
    count, tried = plan.attack.generations, material.candidates
    if not count or tried is None or material.images is None:
        return material
    sampling = replace(shared.model.adapter.variant.sampling, seed=plan.seed)
    if (tuned := _recorded(plan)) is not None:
        sampling = replace(sampling, temperature=tuned.temperature)
    size = plan.attack.batch_size
    drawn = with_generations(
        *(shared.model, tried, material.images, count), sampling=sampling, batch_size=size
    )
    return replace(material, candidates=drawn)


def _attack(
    shared: Shared,
    material: Material,
    tried: Candidates,
    similarity: Similarity,
    options: ExtractionOptions,
    plan: Plan,
) -> Attack:
    tokens = {"candidates": shared.tokens(tried.images, "candidates")}
    again = None
    if material.unseen is not None:
        tokens["unseen"] = shared.tokens(material.unseen.images, "held-out pictures")
        again = Recalibration(material.unseen, RATE)
    return make_attack(
        *(shared.model, tried, similarity, options),
        recalibration=again,
        tokens=tokens,
        retained=material.retained if any(one.edit for one in plan.arms()) else None,
        progress=shared.progress,
    )


def _recovery(
    plan: Plan, shared: Shared, attack: Attack, material: Material
) -> TriggerProtocol | None:
    """Choose what triggers are tried on; those that draw tokens do so as the plan draws images."""
    part = plan.recovery
    if not part.triggers:
        return None
    drawn = _temperature(plan, shared, material)
    if isinstance(drawn, TunedSampling):
        drawn = drawn.temperature
    offered = {} if drawn is None else {"temperature": drawn}
    return trigger_protocol(
        *(attack, material.unseen, attack.unseen),
        [create("trigger", one, offered) for one in part.triggers],
        pictures=part.pictures,
        calibration=part.calibration,
        arms=part.arms,
        data=edit_data(attack.candidates, material.retained, material.fitted),
        seed=plan.seed,
    )


def _depth(plan: Plan, shared: Shared, attack: Attack) -> DepthProtocol | None:
    """Choose pictures as `trigger_protocol` does; see that the blocks of the model can be read."""
    if not plan.recovery.depth:
        return None
    roles, most = attack.candidates.role, plan.recovery.pictures
    tried = spread(np.flatnonzero(np.isin(roles, TRIED)), most)
    places = np.sort(np.append(tried, spread(np.flatnonzero(roles == HELD_OUT), most)))
    found = DepthProtocol(
        shared.model,
        weights_sha256(shared.model),
        attack.candidates.subset(places),
        attack.targets.tokens[places],
        attack.prefix_tokens,
        attack.completing,
        places,
    )
    found.subset(np.arange(1)).read(shared.model)
    return found


def _losses(plan: Plan, shared: Shared, material: Material) -> LossProtocol | None:
    if not plan.quality.losses or material.fitted is None:
        return None
    return loss_protocol(
        shared.model,
        HeldOutLoss(),
        material.fitted,
        taken_views(shared.model, shared.view),
        tokens=shared.tokens(material.fitted, "held-out pictures"),
        batch_size=plan.attack.batch_size,
    )


def _quality(plan: Plan, shared: Shared, material: Material) -> QualityProtocol | None:
    part = plan.quality
    if part.images is None:
        return None
    if not material.references and material.seen is None:
        raise InputError(
            "image quality is compared with real pictures, and the plan names none; give images, "
            "held-out or reference in [pictures]"
        )
    measure = image_measure(plan, str(shared.model.device))
    return quality_protocol(
        *(shared.model, measure, material.references),
        generated=part.generated,
        seed=plan.seed,
        seeds=part.seeds,
        temperature=_temperature(plan, shared, material),
        beside=material.beside,
        see=shared.features(measure),
        files=() if material.seen is None else (material.seen,),
        like=material.images,
        batch_size=plan.attack.batch_size,
    )


def image_measure(plan: Plan, device: str) -> Quality:
    """Make the measure of generated images; ``fid`` alone sees by an organism's own classifier.

    Args:
        plan: the plan; it names a measure.
        device: of this worker's model.

    Raises:
        InputError: its options cannot be.
    """
    text = plan.quality.images or ""
    if plan.pictures.organism and text == TorchFidelity.name:
        organism = organism_of(plan.model.name)
        return TorchFidelity(organism.classifier(), organism.classifier_name)
    made: Any = create("quality", text, {"device": device})
    assert isinstance(made, Quality)
    return made


def _temperature(plan: Plan, shared: Shared, material: Material) -> float | TunedSampling | None:
    asked = plan.quality.temperature
    recorded = _recorded(plan)
    if asked is None or (asked == "tuned" and plan.quality.images is None and recorded):
        return recorded
    if asked != "tuned":
        return float(asked)
    if plan.quality.images is None:
        raise InputError(
            "[quality] temperature is 'tuned', which was not recorded of this organism, and the "
            "plan names no measure of images to find it by; give a number, or images in [quality]"
        )
    assert material.fitted is not None  # as the plan has seen
    measure = image_measure(plan, str(shared.model.device))
    return shared.sampler(measure, material.fitted, plan.quality.generated)


def _recorded(plan: Plan) -> TunedSampling | None:
    """Return the sampler that was tuned when an organism was trained."""
    return organism_of(plan.model.name).sampler if plan.pictures.organism else None
