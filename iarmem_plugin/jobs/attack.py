"""The extraction attack as it is run in every arm: what is completed, how, and compared how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Int8
from torch import Tensor

from iarmem_plugin.checks import check_integer, check_kind
from iarmem_plugin.data.augmentation import Augmentation, OneView
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates, Completes
from iarmem_plugin.evaluation.counts import ORIGINAL
from iarmem_plugin.evaluation.depth.protocol import DepthProtocol
from iarmem_plugin.evaluation.extraction import GREEDY, Targets, extract, make_targets
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.evaluation.membership.signals import membership_signals
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.recovery.attempts import TriggerProtocol
from iarmem_plugin.interfaces import EditData, Sampling, Similarity
from iarmem_plugin.jobs.contrast import every_other
from iarmem_plugin.jobs.edits.making import check_retained, edit_data
from iarmem_plugin.jobs.recalibration import COMPLETED, Recalibration, completed_before
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.intervening import check_backend
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress


REFERENCES = ("reconstruction", "original")


@dataclass(frozen=True, slots=True)
class ExtractionOptions:
    """How candidates are extracted, the same in every arm.

    Attributes:
        prefix_tokens: tokens given to each completion; None gives as many as the variant names.
        backend: how neurons are edited, see `intervene`.
        batch_size: images at a time; halved where memory does not suffice, and then for the
            arms that follow, too.
        check_batching: how many candidates are also completed one by one by the unmodified
            model; what differs is counted under ``batching`` in the report's provenance.
        reference: what completions are compared with: the picture that the tokenizer makes of the
            target's tokens, as published, or the ``"original"`` picture.
        sampling: how tokens are chosen after the prefix, in arms and where thresholds are fixed; by
            default the likeliest, without guidance, as published. One completion a candidate.
        view: which view of the training is tokenized and completed, from 0, drawn with seed 0 (of
            RAR one of the ten crops, of VAR a random one); None takes the centre view.
        checkpoints: folder in which finished arms are kept, so that a comparison that was ended
            goes on after the last of them; None keeps none. It stays, so that a report which
            cannot be saved is not lost; delete it once it is.
    """

    prefix_tokens: int | None = None
    backend: str = "weights"
    batch_size: int = 64
    check_batching: int = 0
    reference: str = "reconstruction"
    sampling: Sampling = GREEDY
    view: int | None = None
    checkpoints: Path | str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers of another kind, and a way of editing that there is not."""
        if self.prefix_tokens is not None:
            check_integer("prefix_tokens", self.prefix_tokens, least=0)
        if self.view is not None:
            check_integer("view", self.view, least=0)
        check_integer("batch_size", self.batch_size, least=1)
        check_integer("check_batching", self.check_batching, least=0)
        check_backend(self.backend)
        check_kind("sampling", self.sampling, Sampling, "Sampling, such as Sampling(greedy=False)")
        if self.reference not in REFERENCES:
            raise InputError(
                f"the reference is {shown(self.reference, 60)!r}; expected reconstruction or "
                "original"
            )


DEFAULTS = ExtractionOptions()
NOT_KNOWN: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Attack:
    """The extraction attack as it is run in every arm.

    Attributes:
        candidates: training images to extract.
        targets: what completions are compared with, from the unmodified model.
        similarity: decides what counts as extracted.
        prefix_tokens: tokens given to each completion.
        backend: how neurons are edited, see `intervene`.
        completing: images completed at a time; what fitted in one arm is kept for the next.
        generating: images generated at a time for the quality, likewise.
        mean: mean activation of every neuron, dims (block, neuron), for edits of values; None
            where the scores do not hold it.
        recognition: decides what counts as recognisable; None does not judge it.
        losses: how it is measured what a model still predicts; None leaves it out.
        recalibration: on what thresholds are fixed anew; None leaves it out.
        unseen: what completions of its candidates are compared with.
        retained: images of the training, none of them a candidate, for edits of the whole model;
            None where there are none.
        sampling: how tokens are chosen after the prefix.
        view: which view of the training is completed, from 0; None completes the centre view.
        recovery: how pictures are brought back; None leaves it out.
        membership: whether it is measured by how much the model takes candidates for members.
        depth: how it is measured how deep edits go; None leaves it out.
    """

    candidates: Candidates
    targets: Targets
    similarity: Similarity
    prefix_tokens: int
    backend: str
    completing: Batching
    generating: Batching
    mean: xr.DataArray | None = None
    recognition: Recognition | None = None
    losses: LossProtocol | None = None
    recalibration: Recalibration | None = None
    unseen: Targets | None = None
    retained: Images | None = None
    sampling: Sampling = GREEDY
    view: int | None = None
    recovery: TriggerProtocol | None = None
    membership: bool = False
    depth: DepthProtocol | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """How candidates are attacked, where the published attack leaves it open; JSON values."""
        return {
            "reference": self.targets.reference,
            "decoding": asdict(self.sampling) | {"tries": 1},
            "view": "centre" if self.view is None else f"training view {self.view}",
            "label_drop": 0,
            "candidates": "fixed: the same in all arms, chosen with the unmodified model",
        }

    @property
    def edit_data(self) -> EditData:
        """What edits of the whole model may use: images that are none of those reported as unseen.

        The candidates that are to be forgotten are among them, as they are in the attack.
        """
        fitted_on = None if self.losses is None else self.losses.images
        return edit_data(self.candidates, self.retained, fitted_on)

    def run(self, model: Completes, progress: Progress | None = None) -> xr.Dataset:
        """Complete the candidates' prefixes by a model, edited or not; see `extract`."""
        return extract(
            model,
            self.candidates,
            self.targets,
            similarity=self.similarity,
            prefix_tokens=self.prefix_tokens,
            recognition=self.recognition,
            losses=self.losses,
            sampling=self.sampling,
            batch_size=self.completing,
            progress=progress,
        )

    def predicted(self, model: Completes) -> xr.Dataset | None:
        """Return the losses of the candidates by a model, edited or not; see `LossProtocol`."""
        if self.losses is None:
            return None
        return self.losses.measured(model, xr.Dataset(), self.candidates, self.targets.tokens)

    def taken_for_members(self, model: Completes) -> xr.Dataset:
        """Return the membership signals of the candidates by a model; see `membership_signals`."""
        return membership_signals(
            model, self.candidates, self.targets.tokens, batch_size=self.completing
        )

    def recalibrated(self, model: Completes, arm: str) -> xr.Dataset | None:
        """Complete, by the model of an arm, the pictures that fix thresholds anew.

        What the unmodified model completed to fix the shared thresholds is taken as it is.

        Returns:
            ``similarity``, ``equal_tokens`` and ``agreement``, dims (candidate); None where the
            arm is left out.
        """
        again, unseen = self.recalibration, self.unseen
        if again is None or unseen is None or not again.covers(arm):
            return None
        if arm == ORIGINAL:
            known = completed_before(self.recognition, again, self.made_alike)
            if known is not None:
                return known
        found = extract(
            model,
            again.candidates,
            unseen,
            similarity=self.similarity,
            prefix_tokens=self.prefix_tokens,
            sampling=self.sampling,
            batch_size=self.completing,
        )
        return found[list(COMPLETED)]

    @property
    def made_alike(self) -> dict[str, Any]:
        """What must be equal in completions that thresholds are fixed on: see `extract`'s attrs."""
        return {
            "similarity": self.similarity.name,
            "prefix_tokens": self.prefix_tokens,
            "reference": self.targets.reference,
            "sampling": json.dumps(asdict(self.sampling)),
        }

    def on(self, half: Int8[np.ndarray, " candidate"], number: int) -> Attack:
        """Return the same attack on one half of the candidates.

        Args:
            half: half of each candidate.
            number: the half that is meant; every other picture fixes thresholds anew.
        """
        positions = np.flatnonzero(half == number)
        some = self.candidates.subset(positions)
        recovery = None if self.recovery is None else self.recovery.on(half, number)
        targets = self.targets.subset(positions, some)
        depth = None if self.depth is None else self.depth.on(half, number)
        own = replace(self, candidates=some, targets=targets, recovery=recovery, depth=depth)
        if self.recalibration is None or self.unseen is None:
            return own
        others = self.recalibration.candidates
        places = np.arange(len(others))[every_other(number)]
        fewer = others.subset(places)
        return replace(
            own,
            recalibration=replace(self.recalibration, candidates=fewer),
            unseen=self.unseen.subset(places, fewer),
        )


def make_attack(
    model: ImageARModel,
    candidates: Candidates,
    similarity: Similarity,
    options: ExtractionOptions = DEFAULTS,
    *,
    mean: xr.DataArray | None = None,
    recognition: Recognition | None = None,
    losses: LossProtocol | None = None,
    recalibration: Recalibration | None = None,
    tokens: Mapping[str, Tensor] = NOT_KNOWN,
    retained: Images | None = None,
    progress: Progress | None = None,
) -> Attack:
    """Make the targets, once, from the unmodified model, and settle what all arms share.

    Args:
        model: the unmodified model.
        candidates: training images to extract.
        similarity: decides what counts as extracted.
        options: how candidates are extracted.
        mean: mean activation of every neuron, see `Attack`.
        recognition: decides what counts as recognisable; None does not judge it.
        losses: how it is measured what a model still predicts; None leaves it out.
        recalibration: on what thresholds are fixed anew in each arm; None leaves it out.
        tokens: of ``"candidates"``, and of the recalibration's as ``"unseen"``, where known.
        retained: images of the training that edits of the whole model are to keep, see `EditData`.
        progress: where a progress bar may be shown.

    Raises:
        InputError: there are no candidates, they lack what the model must be told, a prefix of all
            tokens, thresholds fixed with other options, or an image to retain is a candidate.
    """
    check_retained(model, retained, candidates)
    given, unseen = _prefix(model, candidates, options), None
    size, views = options.batch_size, taken_views(model, options.view)
    how: Any = {"batch_size": size, "reference": options.reference}
    if recalibration is not None:
        again = recalibration.candidates
        check_conditions(again.images, model.adapter.conditions, model.adapter.variant.num_classes)
        unseen = make_targets(model, again, views, tokens=tokens.get("unseen"), **how)
    how |= {"tokens": tokens.get("candidates"), "progress": progress}
    attack = Attack(
        candidates,
        make_targets(model, candidates, views, **how),
        similarity,
        given,
        options.backend,
        *(Batching(size), Batching(size)),
        mean,
        recognition,
        losses,
        recalibration,
        unseen,
        retained,
        sampling=options.sampling,
        view=options.view,
    )
    _check_fixed_alike(attack)
    return attack


def taken_views(model: ImageARModel, view: int | None) -> Augmentation:
    """Return the augmentation that a model was trained with, and which of its views is completed.

    Args:
        model: the model.
        view: number of a view of the training, from 0; None takes the centre view.
    """
    views = model.adapter.variant.views
    return views if view is None else OneView(views, view)


def _prefix(model: ImageARModel, candidates: Candidates, options: ExtractionOptions) -> int:
    """Return how many tokens are given; refuse candidates and prefixes that cannot be completed."""
    variant, given = model.adapter.variant, options.prefix_tokens
    check_conditions(candidates.images, model.adapter.conditions, variant.num_classes)
    if given is not None and given >= (count := len(model.layout.predicting)):
        raise InputError(
            f"a prefix of {given} tokens leaves nothing to complete: these images have {count}"
        )
    return variant.prefix_tokens if given is None else given


def _check_fixed_alike(attack: Attack) -> None:
    """Refuse a recognition threshold that was fixed on completions made otherwise."""
    fixed = None if attack.recognition is None else attack.recognition.completions
    if fixed is None:
        return
    for name in ("reference", "sampling"):
        now = attack.made_alike[name]
        if (was := fixed.attrs.get(name, now)) != now:
            raise InputError(
                f"thresholds were fixed with the {name} {shown(was, 120)}, and here {now} is "
                "given; fix them with the same options"
            )
