"""The audit: which of some pictures a model memorized, as far as triggers and signals tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from iarmem_plugin.checks import check_kind, check_number
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.extraction import make_targets
from iarmem_plugin.evaluation.membership.inference import DatasetInference, dataset_inference
from iarmem_plugin.evaluation.membership.signals import LEFT_OUT, VALUES, membership_signals
from iarmem_plugin.evaluation.recovery.attempts import TriggerProtocol, check_triggers
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.evaluation.statistics import clopper_pearson
from iarmem_plugin.interfaces import AnyTrigger, EditData, Similarity
from iarmem_plugin.interfaces.edits import EDIT_PARTS
from iarmem_plugin.jobs.auditing.completions import Completions
from iarmem_plugin.jobs.auditing.judging import judged
from iarmem_plugin.jobs.auditing.peaks import peaks
from iarmem_plugin.jobs.protocol import RATE, check_unseen
from iarmem_plugin.jobs.triggers.completing import PrefixLadder
from iarmem_plugin.jobs.triggers.embedding import LearnedEmbedding
from iarmem_plugin.jobs.triggers.protocol import FEWEST
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.provenance import model_provenance
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.report.auditing.audit import Audit
from iarmem_plugin.report.auditing.findings import (
    NOTHING,
    VERDICTS,
    AuditedPicture,
    Verdict,
    VerdictCount,
)

if TYPE_CHECKING:
    from rich.progress import Progress

STEPS = (0, 5, 10)
ANY = "any of these"


def audit(
    model: ImageARModel,
    images: Images,
    held_out: Images,
    *,
    triggers: Sequence[AnyTrigger] | None = None,
    similarity: Similarity | None = None,
    rate: float = RATE,
    neurons: bool = True,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Audit:
    """Say which of some pictures a model memorized, as far as is found; it comes back as it was.

    Every other held-out picture fixes thresholds, of all attempts and of all membership signals
    together; on the rest it is counted how often a picture that was never seen gets a verdict.

    Args:
        model: wrapped model, such as one that was fine-tuned on the pictures.
        images: pictures to judge.
        held_out: pictures of the same kind that the model never saw, 40 or more.
        triggers: ways to bring a picture back, the cheapest first; None: `default_triggers`.
        similarity: how alike two pictures are; None: by their pixels. It needs no threshold.
        rate: share of the calibrating pictures that each verdict may let through.
        neurons: whether the neurons that peak on each picture are sought.
        seed: seed for what triggers, views and subsets draw.
        batch_size: pictures in one pass; halved where memory does not suffice.
        progress: where progress bars may be shown.

    Raises:
        InputError: no or unfit pictures, continuous tokens, or a trigger of no use here.
    """
    check_kind("the model", model, ImageARModel, "a wrapped model, from iarmem.load or iarmem.wrap")
    check_audit(images, held_out, triggers, rate)
    adapter, chosen = model.adapter, default_triggers(model) if triggers is None else triggers
    _check_fit(model, images, held_out)
    how: Any = {"batch_size": batch_size, "progress": progress}
    protocol = _protocol(model, images, held_out, chosen, similarity, seed=seed, **how)
    signals = membership_signals(model, protocol.candidates, protocol.targets.tokens, **how)
    shown = Completions(images, protocol.targets.images)
    attempts = replace(protocol, seen=shown.keep).attempted(model, progress)
    fixed, every = judged(attempts, signals, protocol.calibrates, rate)
    mine, unseen, fixing = _measured(protocol, images, every, shown)
    mine = _with_neurons(model, protocol, mine, seed=seed, **how) if neurons else mine
    return Audit(
        model=adapter.variant.name,
        pictures=tuple(sorted(mine, key=_place)),
        counts=_counts(mine, unseen),
        held_out=len(unseen),
        calibrating=len(fixing),
        rate=float(rate),
        triggers=tuple(one.key for one in protocol.triggers),
        inference=_inference(signals, len(images), seed),
        left_out=_left_out(model, triggers, signals, neurons=neurons),
        provenance=model_provenance(model) | {"recovery": protocol.provenance, "seed": seed},
        thresholds=fixed,
        unseen=tuple(unseen),
        fixing=tuple(fixing),
    )


def _with_neurons(
    model: ImageARModel, protocol: TriggerProtocol, mine: list[AuditedPicture], **how: Any
) -> list[AuditedPicture]:
    pictures = protocol.candidates.images.subset(np.flatnonzero(~protocol.calibrates))
    found = peaks(model, pictures, len(mine), **how)
    return [replace(one, neurons=top) for one, top in zip(mine, found, strict=True)]


def default_triggers(model: ImageARModel) -> tuple[AnyTrigger, ...]:
    """Return a completion of the usual prefix, and a learned embedding where there are classes."""
    plain = PrefixLadder(budgets=(model.adapter.variant.prefix_tokens,))
    if not model.adapter.condition_width:
        return (plain,)
    return (plain, LearnedEmbedding(budgets=STEPS))


def check_audit(
    images: Images, held_out: Images, triggers: Sequence[AnyTrigger] | None, rate: float
) -> None:
    """Refuse what no audit can be made of; ask before the model is loaded.

    Raises:
        InputError: no pictures, too few held-out ones, no triggers, one that needs training
            images, two that are the same, or a rate outside [0, 1).
        PluginError: one is no trigger.
    """
    check_number("the rate", rate)
    if not 0 <= rate < 1:
        raise InputError(f"the rate is {rate}; expected 0 or more, and below 1")
    if not len(images):
        raise InputError("there are no pictures to audit; give one or more")
    if len(held_out) < 2 * FEWEST:
        raise InputError(
            f"{len(held_out)} held-out pictures were given, every other one of which fixes the "
            f"thresholds; give {2 * FEWEST} or more, of the same kind as those to audit"
        )
    if triggers is None:
        return
    if not triggers:
        raise InputError("there are no triggers; give one or more, or None for the usual ones")
    for one in check_triggers(triggers).values():
        if missing := sorted(one.needs - {"candidates", "calibration"}):
            raise InputError(
                f"the trigger {one.key!r} needs {EDIT_PARTS[missing[0]].partition(';')[0]}, which "
                "an audit does not have; choose another, or use `iarmem compare`"
            )


def _check_fit(model: ImageARModel, images: Images, held_out: Images) -> None:
    for one in (images, held_out):
        check_conditions(one, model.adapter.conditions, model.adapter.variant.num_classes)
    check_unseen(held_out, [images])


def _inference(signals: xr.Dataset, mine: int, seed: int) -> DatasetInference | None:
    values = signals[VALUES].transpose("candidate", "signal").to_numpy()
    return dataset_inference(values[:mine], values[mine:], seed=seed)


def _protocol(
    model: ImageARModel,
    images: Images,
    held_out: Images,
    triggers: Sequence[AnyTrigger],
    similarity: Similarity | None,
    *,
    seed: int,
    batch_size: int,
    progress: Progress | None,
) -> TriggerProtocol:
    mine = Candidates(images, np.full(len(images), "candidate"))
    every = mine.joined(held_out, np.full(len(held_out), HELD_OUT))
    calibrates = np.zeros(len(every), bool)
    calibrates[len(images) :: 2] = True  # as `calibration_half`
    variant, given = model.adapter.variant, images.subset(range(len(images)))
    return TriggerProtocol(
        triggers=tuple(triggers),
        candidates=every,
        calibrates=calibrates,
        targets=make_targets(model, every, variant.views, batch_size=batch_size, progress=progress),
        similarity=PixelCorrelation() if similarity is None else similarity,
        given=variant.prefix_tokens,
        data=EditData(given, calibration=held_out.subset(range(0, len(held_out), 2))),
        seed=seed,
        batching=Batching(batch_size),
        places=np.where(calibrates, -1, np.arange(len(every))),
    )


def _measured(
    protocol: TriggerProtocol, images: Images, judged: list[AuditedPicture], shown: Completions
) -> tuple[list[AuditedPicture], list[AuditedPicture], list[AuditedPicture]]:
    """Return the pictures to audit, those never seen that are reported, and those that fix."""
    first = judged[: len(images)]
    mine = [replace(one, number=at, **shown.of(at, one.verdict)) for at, one in enumerate(first)]
    rest = [replace(one, number=at) for at, one in enumerate(judged[len(images) :])]
    fixes = protocol.calibrates[len(images) :]
    reported, fixing = (
        [one for one, fixed in zip(rest, fixes, strict=True) if fixed == wanted]
        for wanted in (False, True)
    )
    return mine, reported, fixing


def _counts(
    mine: Sequence[AuditedPicture], unseen: Sequence[AuditedPicture]
) -> tuple[VerdictCount, ...]:
    def counted(name: str, verdicts: Sequence[Verdict]) -> VerdictCount:
        ours, theirs = (
            sum(one.verdict in verdicts for one in pictures) for pictures in (mine, unseen)
        )
        return VerdictCount(name, ours, theirs, *clopper_pearson(theirs, len(unseen)))

    each = (counted(one, (one,)) for one in VERDICTS if one != NOTHING)
    return (*each, counted(ANY, VERDICTS[:3]))


def _left_out(
    model: ImageARModel,
    triggers: Sequence[AnyTrigger] | None,
    signals: xr.Dataset,
    *,
    neurons: bool,
) -> tuple[str, ...]:
    said = []
    if triggers is None and not model.adapter.condition_width:
        said.append(
            f"The trigger {LearnedEmbedding.name!r} is left out: models of family "
            f"{model.layout.family} have no class embedding that is known"
        )
    if reason := signals.attrs[LEFT_OUT]:
        said.append(f"The signal {reason}")
    if not neurons:
        said.append("Neurons were not asked for")
    return tuple(f"{one}." for one in said)


def _place(one: AuditedPicture) -> tuple[int, float]:
    return VERDICTS.index(one.verdict), -one.similarity
