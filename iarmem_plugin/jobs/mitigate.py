"""The second job: edit neurons, and measure what is forgotten and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import xarray as xr

from iarmem_plugin.checks import check_kind
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.generation import seeded
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.evaluation.recognition import Recognition, check_recognition
from iarmem_plugin.interfaces import ActivationIntervention, Condition, Similarity
from iarmem_plugin.jobs.arms import (
    NEVER_SHOWN,
    UNMODIFIED,
    Arm,
    ArmOutcome,
    Stage,
    run_arm,
    select_neurons,
)
from iarmem_plugin.jobs.attack import DEFAULTS, Attack, ExtractionOptions, make_attack
from iarmem_plugin.jobs.compare.cells import ArmCells, ReadyArm
from iarmem_plugin.jobs.compare.reporting import comparison_provenance, reported
from iarmem_plugin.jobs.contrast import CrossFit, each
from iarmem_plugin.jobs.edits.making import check_needs
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.jobs.recalibration import Recalibration
from iarmem_plugin.jobs.rehearsal import rehearse
from iarmem_plugin.jobs.scores import check_made_with, mean_activation
from iarmem_plugin.models.provenance import (
    commit,
    model_provenance,
    module_hashes,
    weights_sha256,
)
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.progress import progress_bar
from iarmem_plugin.report.report import Report
from iarmem_plugin.stages import Cells
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
    retained: Images | None = None,
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
        retained: images of the training, no candidates, for arms that edit the whole model.
        options: how candidates are extracted.
        progress: where progress bars may be shown.

    Returns:
        the report; `Report.save` writes it.

    Raises:
        InputError: scores of another model, arms of one name, or no images that an edit needs.
        PluginError: a plugin returns what it should not; mostly seen before the rest is begun.
        DiskFullError: there is no room for a finished arm; those before it stay.

    Reference: arXiv 2509.00488, sections 3.3 and 4.3; arXiv 2502.02514 (the attack).
    """
    _check_kinds(model, scores, similarity, options, recognition, losses, recalibration)
    arms = _checked_arms(model, arms, candidates, twin)
    mean = check_arms(model, arms, scores, candidates)
    rehearse(model, scores, arms, candidates.images, similarity, backend=options.backend)
    attack = make_attack(
        *(model, candidates, similarity, options),
        mean=mean,
        recognition=recognition,
        losses=losses,
        recalibration=recalibration,
        retained=retained,
        progress=progress,
    )
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
    """Run the arms and report them; refuse before, what an edit lacks or another twin."""
    check_edits(arms, attack)
    rehearse_twin(twin, attack)
    made_by = model_provenance(model) | {"commit": commit()}
    work = ready(model, scores, arms, twin, made_by)
    outcomes = _outcomes(work, attack, quality, options.checkpoints, progress)
    shared = (model, scores, arms, attack, quality, twin, made_by, options.check_batching)
    provenance = comparison_provenance(*shared)
    return reported(model, scores, outcomes, attack, quality, provenance)


def ready(
    model: ImageARModel,
    scores: xr.Dataset,
    arms: Sequence[Arm],
    twin: ImageARModel | None,
    made_by: Mapping[str, Any],
) -> list[ReadyArm]:
    """Select the neurons of every arm, before the first is run; the twin is the last arm.

    Args:
        model: the unmodified model.
        scores: scores that all arms share.
        arms: what is compared.
        twin: a model trained alike that never saw the canaries, if there is one.
        made_by: what `model_provenance` says of the model.

    Raises:
        InputError: scores that lack what a selector needs.
    """
    layout = model.layout
    work = [ReadyArm(arm, model, made_by, select_neurons(arm, scores, layout)) for arm in arms]
    if twin is not None:
        neurons = select_neurons(NEVER_SHOWN, scores, layout)
        work.append(ReadyArm(NEVER_SHOWN, twin, model_provenance(twin), neurons))
    return work


def _outcomes(
    work: Sequence[ReadyArm],
    attack: Attack,
    quality: QualityProtocol | None,
    folder: Path | str | None,
    progress: Progress | None,
) -> list[ArmOutcome]:
    """Run the arms: through a folder of cells stage by stage, or else one after the other."""
    if folder is None:
        advance = progress_bar(progress, "arms", len(work))
        return [_ran(one, attack, quality, advance) for one in work]
    cells = ArmCells(Cells(folder), attack, quality)
    for stage in get_args(Stage):
        if pieces := sum(len(cells.pieces(one, stage)) for one in work):
            advance = progress_bar(progress, f"arms: {stage}", pieces)
            cells.fill(work, stage, records=False, advance=advance)
    return [cells.outcome(one) for one in work]


def _ran(
    one: ReadyArm,
    attack: Attack,
    quality: QualityProtocol | None,
    advance: Callable[[int], object],
) -> ArmOutcome:
    outcome = run_arm(one.model, one.arm, one.neurons, attack, quality)
    advance(1)
    return outcome


def check_edits(arms: Sequence[Arm], attack: Attack) -> None:
    """Refuse edits of the whole model that lack images which they need.

    Args:
        arms: what is compared.
        attack: says what edits may use.

    Raises:
        InputError: naming what is missing.
    """
    for edit in (arm.edit for arm in arms if arm.edit is not None):
        check_needs(edit, attack.edit_data)


def _check_kinds(
    model: object, scores: object, similarity: object, options: object, *measures: object
) -> None:
    check_kind("the model", model, ImageARModel, "a wrapped model, from iarmem.load or iarmem.wrap")
    check_kind("the scores", scores, xr.Dataset, "what localize returned")
    check_kind("the similarity", similarity, Similarity, "a measure, such as PixelCorrelation()")
    check_kind("options", options, ExtractionOptions, "ExtractionOptions")
    _check_measures(*measures)


def _check_measures(recognition: object, losses: object, recalibration: object) -> None:
    check_recognition(recognition)
    nothing = type(None)
    check_kind("losses", losses, (LossProtocol, nothing), "what loss_protocol returned, or None")
    check_kind("recalibration", recalibration, (Recalibration, nothing), "a Recalibration, or None")


def _checked_arms(
    model: ImageARModel, arms: Sequence[Arm], candidates: Candidates, twin: ImageARModel | None
) -> list[Arm]:
    """Return the arms that edit something, after the original."""
    check_kind("arms", arms, (list, tuple), "a list of arms")
    for arm in arms:
        check_kind("an arm", arm, Arm, "an Arm, such as Arm('highest', Highest(), ScaleWeights())")
    check_kind("the candidates", candidates, Candidates, "Candidates")
    adapter = model.adapter
    check_conditions(candidates.images, adapter.conditions, adapter.variant.num_classes)
    check_twin(model, twin, arms)
    return [UNMODIFIED, *(arm for arm in arms if arm.edits)]


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


def check_twin(model: ImageARModel, twin: ImageARModel | None, arms: Sequence[Arm]) -> None:
    """Refuse a twin that cannot be compared with the model.

    Args:
        model: the unmodified model.
        twin: a model trained alike that never saw the canaries; None passes.
        arms: none of them may have its name.

    Raises:
        InputError: it is the model itself, in another precision, or has another tokenizer.
    """
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


def rehearse_twin(twin: ImageARModel | None, attack: Attack) -> None:
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


def check_arms(
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
