"""An arm: one way to run the model, what is done in it, and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from iarmem_plugin.checks import check_integer, check_kind
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Completes
from iarmem_plugin.evaluation.counts import ORIGINAL, TWIN
from iarmem_plugin.evaluation.depth.protocol import DepthProtocol
from iarmem_plugin.evaluation.recovery.attempts import TriggerProtocol
from iarmem_plugin.interfaces import (
    ActivationIntervention,
    AnyIntervention,
    Intervention,
    ModelEdit,
    QualityValue,
    Selector,
)
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.jobs.attack import Attack
from iarmem_plugin.jobs.contrast import CrossFit, every_other, interleaved, made_from, whole
from iarmem_plugin.jobs.edits.making import edited_by
from iarmem_plugin.jobs.quality import EVERY, QualityProtocol, generated_features, measured
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.selectors import check_fraction, select
from iarmem_plugin.report.features import kept_features
from iarmem_plugin.report.results import ArmResult, ArmRole
from iarmem_plugin.text import shown

Stage = Literal["losses", "completions", "membership", "depth", "recovery", "images"]
"""What is measured of an arm at a time, the cheapest first."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to run the model: with some neurons edited, or all of it, or as it came.

    Attributes:
        name: unique among the arms.
        selector: which neurons are edited.
        intervention: what is done to them.
        fraction: share of all neurons, in (0, 1].
        seed: for selectors and edits that draw at random.
        scores: scores of this arm's own, such as from `contrast`; None takes those that all arms
            share. With a `CrossFit`, the candidates of each half are tested with neurons that
            were chosen without them.
        role: ``"treatment"``, ``"control"`` for what it is compared with, such as random neurons,
            ``"original"`` for the unmodified model, or ``"twin"`` for another one that never saw
            the canaries.
        edit: what is done to the whole model, in place of a selector and an intervention.

    Raises:
        InputError: a fraction outside (0, 1], half an edit, two of them, or an edited model as the
            original.
    """

    name: str
    selector: Selector | None = None
    intervention: AnyIntervention | None = None
    fraction: float = 0.1
    seed: int = 0
    role: ArmRole = "treatment"
    scores: xr.Dataset | CrossFit | None = field(default=None, repr=False, compare=False)
    edit: ModelEdit | None = None

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        check_kind("the name of an arm", self.name, str, "a text")
        if not self.name.strip():
            raise InputError("the name of an arm is empty; give each arm a name of its own")
        check_fraction(self.fraction)
        check_integer("the seed", self.seed, least=0)
        if self.role not in (roles := get_args(ArmRole)):
            raise InputError(
                f"the role of arm {self.name!r} is {shown(repr(self.role), 60)}; expected one of "
                f"{', '.join(roles)}"
            )
        self._check_edit()
        if (self.selector is None) != (self.intervention is None):
            raise InputError(f"arm {self.name!r} needs both a selector and an intervention")
        if self.scores is not None and self.selector is None:
            raise InputError(f"arm {self.name!r} has scores and no selector that would use them")
        kinds = (xr.Dataset, CrossFit, type(None))
        expected = "what localize, contrast or cross_fit returned, or None"
        check_kind(f"the scores of arm {self.name!r}", self.scores, kinds, expected)
        if self.role in ("original", "twin") and self.edits:
            what = "neurons" if self.edit is None else "the model"
            raise InputError(
                f"arm {self.name!r} edits {what}, so its role is not {self.role!r}; give "
                "'treatment' or 'control'"
            )

    @property
    def edits(self) -> bool:
        """Whether anything is changed: chosen neurons, or the whole model."""
        return self.selector is not None or self.edit is not None

    def _check_edit(self) -> None:
        if self.edit is not None and (self.selector, self.intervention) != (None, None):
            raise InputError(
                f"arm {self.name!r} was given an edit of the whole model beside a selector or an "
                "intervention; give either the edit, or both of the others"
            )
        changes = (Intervention, ActivationIntervention)
        kinds = (("selector", Selector), ("intervention", changes), ("edit", ModelEdit))
        for name, kind in kinds:
            if (one := getattr(self, name)) is not None:
                what = f"the {name} of arm {self.name!r}"
                check_kind(what, one, kind, f"an instance of a {name}")


UNMODIFIED = Arm(ORIGINAL, role="original")
NEVER_SHOWN = Arm(TWIN, role="twin")


@dataclass(frozen=True, slots=True, repr=False)
class ArmOutcome:
    """What came out of one arm.

    Attributes:
        result: the arm's settings and measured quality, as the report has them.
        extraction: from `extract`, dims (candidate, token).
        neurons: the neurons that were edited; bool, dims (block, neuron).
        features: what the quality measure saw of the generated images, seed by seed, see
            `kept_features`; None where there are none.
        calibration: completions of the pictures that fix thresholds anew, see
            `Attack.recalibrated`; None where they are not fixed.
        recovery: what triggers made of pictures, see `TriggerProtocol`; None where none are tried.
        membership: from `membership_signals`; None where it is left out.
        depth: from `patched_losses`; None where it is left out.
    """

    result: ArmResult
    extraction: xr.Dataset
    neurons: xr.DataArray
    features: xr.Dataset | None = None
    calibration: xr.Dataset | None = None
    recovery: xr.Dataset | None = None
    membership: xr.Dataset | None = None
    depth: xr.Dataset | None = None

    def __repr__(self) -> str:
        """Return the arm with what was counted."""
        extracted, edited = int(self.extraction["extracted"].sum()), int(self.neurons.sum())
        return f"ArmOutcome({self.result.name!r}, extracted={extracted}, neurons={edited})"


def select_neurons(arm: Arm, scores: xr.Dataset, layout: ModelLayout) -> xr.DataArray:
    """Return the neurons that an arm edits.

    Args:
        arm: its own scores come before those given.
        scores: scores that all arms share.
        layout: where the model's neurons are.

    Returns:
        bool, dims (block, neuron); none where no neurons are edited. With a `CrossFit`, dims (half,
        block, neuron): those with which the candidates of each half are tested.

    Raises:
        InputError: the scores lack what the selector needs.
    """
    if arm.selector is not None:
        picked = partial(select, fraction=arm.fraction, selector=arm.selector, seed=arm.seed)
        if isinstance(arm.scores, CrossFit):
            return xr.concat([picked(one) for one in arm.scores.scores], "half")
        return picked(scores if arm.scores is None else arm.scores)
    shape = (layout.num_blocks, layout.neurons_per_block)
    return xr.DataArray(np.zeros(shape, bool), dims=("block", "neuron"))


def run_arm(
    model: ImageARModel,
    arm: Arm,
    neurons: xr.DataArray,
    attack: Attack,
    quality: QualityProtocol | None = None,
) -> ArmOutcome:
    """Edit the model as an arm says, extract, and measure the quality; then undo the edit.

    Args:
        model: the unmodified model; it comes back as it was.
        arm: what is done to the neurons.
        neurons: from `select_neurons`, so that scores which cannot be used are refused before
            the first arm is run.
        attack: what all arms share.
        quality: how image quality is measured; None leaves it out.
    """
    stages = stages_of(arm, attack, quality)
    return joined(arm, neurons, run_stages(model, arm, neurons, attack, quality, stages), attack)


@dataclass(frozen=True, slots=True, repr=False)
class Measured:
    """What came out of some stages of an arm; None of those that were not run.

    Attributes:
        losses: what `Attack.predicted` returns.
        extraction: what `extract` returns.
        calibration: completions of the pictures that fix thresholds anew.
        features: what the quality measure saw of generated images, see `kept_features`.
        quality: the values.
        recovery: what triggers made of pictures.
        membership: by how much the model takes candidates for members.
        depth: what the original predicts with the blocks of this model.
    """

    losses: xr.Dataset | None = None
    extraction: xr.Dataset | None = None
    calibration: xr.Dataset | None = None
    features: xr.Dataset | None = None
    quality: tuple[QualityValue, ...] = ()
    recovery: xr.Dataset | None = None
    membership: xr.Dataset | None = None
    depth: xr.Dataset | None = None


def stages_of(arm: Arm, attack: Attack, quality: QualityProtocol | None) -> tuple[Stage, ...]:
    """Return the stages of an arm, the cheapest first; those that are left out in it are not."""
    given = {
        "losses": attack.losses is not None,
        "completions": True,
        "membership": attack.membership,
        "depth": attack.depth is not None,
        "recovery": attack.recovery is not None and attack.recovery.covers(arm.name),
        "images": quality is not None and quality.covers(arm.name),
    }
    return tuple(stage for stage in get_args(Stage) if given[stage])


def run_stages(
    model: ImageARModel,
    arm: Arm,
    neurons: xr.DataArray,
    attack: Attack,
    quality: QualityProtocol | None,
    stages: Sequence[Stage],
) -> Measured:
    """Run some stages of an arm on the model that it edits; see `run_arm`.

    Args:
        model: the unmodified model; it comes back as it was.
        arm: what is done to the neurons.
        neurons: from `select_neurons`.
        attack: what all arms share.
        quality: how image quality is measured.
        stages: which of `stages_of`.
    """
    runs = list(_runs(model, arm, neurons, attack, quality, stages))
    parts: dict[str, xr.Dataset] = {}
    for name in ("losses", "extraction", "membership"):
        if all(run.get(name) is not None for run in runs):
            parts[name] = whole([run[name] for run in runs], arm.scores)
    features = [np.concatenate(one) for one in zip(*(run["features"] for run in runs), strict=True)]
    return Measured(
        parts.get("losses"),
        parts.get("extraction"),
        interleaved([run["calibration"] for run in runs]),
        kept_features(features) if features else None,
        () if quality is None else measured(features, quality),
        _joined(runs, "recovery", arm, attack.recovery),
        parts.get("membership"),
        _joined(runs, "depth", arm, attack.depth),
    )


def joined(arm: Arm, neurons: xr.DataArray, parts: Measured, attack: Attack) -> ArmOutcome:
    """Return the outcome of an arm, all of whose stages were run.

    Args:
        arm: the arm.
        neurons: those that it edits.
        parts: what came out of its stages.
        attack: what all arms share.

    Raises:
        ValueError: it was not extracted.
    """
    if parts.extraction is None:
        raise ValueError(f"arm {arm.name!r} has no completions")
    result, extraction = result_of(arm, parts.quality, attack.backend), parts.extraction
    if parts.losses is not None:
        extraction = extraction.assign(parts.losses.data_vars)
    return ArmOutcome(
        *(result, extraction, neurons, parts.features, parts.calibration),
        *(parts.recovery, parts.membership, parts.depth),
    )


def _joined(
    runs: Sequence[Mapping[str, Any]],
    name: str,
    arm: Arm,
    protocol: TriggerProtocol | DepthProtocol | None,
) -> xr.Dataset | None:
    """Return what each edit of an arm gave, in the order of the protocol's own candidates."""
    found = [run[name] for run in runs if run.get(name) is not None]
    if not found or protocol is None:
        return None
    if isinstance(arm.scores, CrossFit):
        return protocol.whole(found, arm.scores.half)
    whole_one: xr.Dataset = found[0]
    return whole_one


def _runs(
    model: ImageARModel,
    arm: Arm,
    neurons: xr.DataArray,
    attack: Attack,
    quality: QualityProtocol | None,
    stages: Sequence[Stage],
) -> Iterator[dict[str, Any]]:
    """Yield what comes out of each edit of an arm: of two halves, or of all candidates."""
    parts = [(neurons, attack, EVERY)]
    if isinstance(arm.scores, CrossFit):
        parts = [
            (
                neurons.isel(half=half, drop=True),
                attack.on(arm.scores.half, half),
                every_other(half),
            )
            for half in range(2)
        ]
    for chosen, own, rows in parts:
        found: dict[str, Any] = {"features": [], "calibration": None}
        with _edited(model, arm, chosen, own) as edited:
            if "losses" in stages:
                found["losses"] = own.predicted(edited)
            if "completions" in stages:
                found["extraction"] = replace(own, losses=None).run(edited)
                found["calibration"] = own.recalibrated(edited, arm.name)
            if "membership" in stages:
                found["membership"] = own.taken_for_members(edited)
            outputs = None
            if "depth" in stages and own.depth is not None:
                outputs = own.depth.read(edited)
            if "recovery" in stages and own.recovery is not None:
                found["recovery"] = own.recovery.attempted(edited)
            if "images" in stages:
                seen = generated_features(edited, arm.name, quality, own.generating, rows)
                found["features"] = seen
        if own.depth is not None and outputs is not None:  # the edit is over
            found["depth"] = own.depth.put(outputs)
        yield found


def _edited(
    model: ImageARModel, arm: Arm, neurons: xr.DataArray, attack: Attack
) -> AbstractContextManager[Completes]:
    if arm.edit is not None:
        return edited_by(arm.edit, model, attack.edit_data, seed=arm.seed)
    if arm.intervention is None:
        return nullcontext(model)
    backend = _backend(arm.intervention, attack.backend)
    return intervene(model, neurons, arm.intervention, backend=backend, mean=attack.mean)


def _backend(intervention: AnyIntervention, asked: str) -> str:
    """Return how neurons are edited: their values by the trace, whatever is asked for."""
    return "trace" if isinstance(intervention, ActivationIntervention) else asked


def result_of(arm: Arm, quality: tuple[QualityValue, ...], backend: str) -> ArmResult:
    """Return an arm's settings and measured quality, as the report has them."""
    if arm.edit is not None:
        made = {"name": arm.edit.name, **arm.edit.parameters, "seed": arm.seed}
        return ArmResult(arm.name, None, None, None, quality, role=arm.role, edit=made)
    if arm.intervention is None or arm.selector is None:
        role: ArmRole = "twin" if arm.role == "twin" else "original"
        return ArmResult(arm.name, None, None, None, quality, role=role)
    backend = _backend(arm.intervention, backend)
    edit = {"name": arm.intervention.name, **arm.intervention.parameters, "backend": backend}
    selector = {"name": arm.selector.name, **arm.selector.parameters, "seed": arm.seed}
    selector |= made_from(arm.scores)
    return ArmResult(arm.name, edit, selector, arm.fraction, quality, role=arm.role)
