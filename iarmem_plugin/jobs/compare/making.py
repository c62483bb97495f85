"""Arms made of what a plan says of them: plugins from their texts, scores from their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.compare.material import Material
from iarmem_plugin.jobs.compare.shared import Shared
from iarmem_plugin.jobs.contrast import CrossFit
from iarmem_plugin.jobs.mitigate import check_arms
from iarmem_plugin.jobs.plan.arms import OWN_SCORES, SPLIT_SCORES
from iarmem_plugin.jobs.plan.planned import PlannedArm
from iarmem_plugin.jobs.scores import check_made_with, load_scores, mean_activation
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.listed import Listed
from iarmem_plugin.neurons.selectors import select
from iarmem_plugin.plugins.create import create
from iarmem_plugin.plugins.options import Written
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.jobs.plan.plan import Plan

Which = tuple[str, int]
"""A scorer, or the name of scores, and a draw of the halves."""
NOTHING: Mapping[Any, Any] = MappingProxyType({})
STAND_IN = "weight-norm"
"""Scorer of the scores that a report shows where no arm of the plan needs any."""


def made_arms(
    plan: Plan, planned: Sequence[PlannedArm], shared: Shared, material: Material
) -> tuple[xr.Dataset, list[Arm]]:
    """Make the arms of a plan, and score neurons where that is asked for.

    Args:
        plan: the plan.
        planned: its arms.
        shared: makes scores once for all workers.
        material: the pictures, candidates among them.

    Returns:
        the scores that arms share which have none of their own, and the arms.

    Raises:
        InputError: scores of another model or images, or a contrast without images.
    """
    candidates = material.candidates
    if candidates is None:
        raise InputError("the plan has no candidates; name images or candidates in [pictures]")
    named = _named_scores(plan, shared, material)
    default = next(iter(named.values()), None)
    own = {
        which: _with_activity(one, default)
        for which, one in _contrasts(planned, shared, material, candidates).items()
    }
    own |= _split_scores(planned, shared, material, candidates)
    if default is None:
        stand_in = shared.contrasted(create("scorer", STAND_IN), candidates, None)
        assert isinstance(stand_in, xr.Dataset)
        default = stand_in
    arms = [made_arm(one, named, own) for one in planned]
    check_arms(shared.model, arms, default, candidates)
    return default, arms


def check_scores(plan: Plan, model: ImageARModel) -> None:
    """Refuse scores and lists of neurons that cannot be used, before candidates are ranked.

    Args:
        plan: the plan.
        model: the unmodified model.

    Raises:
        InputError: naming the scores: another model's, damaged, or without what a selector needs.
    """
    _check_lists(plan, model)
    for name, path in plan.scores.items():
        try:
            scores = load_scores(path)
            check_made_with(model, scores)
            for one in plan.arms():
                if one.scorer is None and one.scores == name and one.role == "treatment":
                    selector = create("selector", one.selector or "")
                    select(scores, fraction=one.fraction or 1.0, selector=selector, seed=one.seed)
        except InputError as error:
            raise InputError(f"[scores] {shown(name, 60)}: {error}") from error


def _check_lists(plan: Plan, model: ImageARModel) -> None:
    """Refuse listed neurons that the model does not have, or another share of them."""
    shape = (model.layout.num_blocks, 1, model.layout.neurons_per_block)
    nothing = xr.DataArray(np.zeros(shape), dims=("block", "scale", "neuron"), name="score")
    for one in plan.arms():
        if one.selector is not None and Written.of(one.selector).name == Listed.name:
            listed = create("selector", one.selector)
            select(nothing.to_dataset(), fraction=one.fraction or 1.0, selector=listed)


def _named_scores(plan: Plan, shared: Shared, material: Material) -> dict[str, xr.Dataset]:
    """Return the plan's scores by name, the default first."""
    if plan.scores:
        return {name: load_scores(path) for name, path in plan.scores.items()}
    if material.captured is None:
        return {}
    return {OWN_SCORES: shared.unitmem(material.captured)}


def _split_scores(
    planned: Sequence[PlannedArm], shared: Shared, material: Material, candidates: Candidates
) -> dict[Which, CrossFit]:
    """Return UnitMem without each half of the candidates, once for each draw of the halves."""
    splits = [one.split + 1 for one in planned if one.scores == SPLIT_SCORES]
    if not splits or material.captured is None:
        return {}
    found = shared.unitmem_split(material.captured, candidates, max(splits))
    return {(SPLIT_SCORES, place): one for place, one in enumerate(found)}


def _contrasts(
    planned: Sequence[PlannedArm], shared: Shared, material: Material, candidates: Candidates
) -> dict[Which, xr.Dataset | CrossFit]:
    """Return scores by contrast for each scorer that an arm names, and each draw of the halves."""
    found: dict[Which, xr.Dataset | CrossFit] = {}
    wanted = [(one.scorer, one.split) for one in planned if one.scorer is not None]
    for text, split in dict.fromkeys(wanted):
        scorer = create("scorer", text)
        reference = material.contrasted_by(scorer.name)
        if scorer.needs_images and reference is None:
            raise InputError(
                f"{shown(text, 60)} contrasts the candidates with images that the model is to "
                "predict as before; give held-out or contrast-with in [pictures]"
            )
        found[text, split] = shared.contrasted(scorer, candidates, reference, split)
    return found


def _with_activity(
    scores: xr.Dataset | CrossFit, default: xr.Dataset | None
) -> xr.Dataset | CrossFit:
    """Give scores by contrast the neurons' mean activation, by which random sets are matched."""
    mean = None if default is None else mean_activation(default)
    if mean is None:
        return scores
    if isinstance(scores, CrossFit):
        first, second = (_active(one, mean) for one in scores.scores)
        return replace(scores, scores=(first, second))
    return _active(scores, mean)


def _active(scores: xr.Dataset, mean: xr.DataArray) -> xr.Dataset:
    every = mean.transpose("block", "neuron").values[:, None, :]
    return scores.assign(mean_activation=(("block", "scale", "neuron"), every))


def made_arm(
    one: PlannedArm,
    scores: Mapping[str, xr.Dataset] = NOTHING,
    own: Mapping[Which, xr.Dataset | CrossFit] = NOTHING,
) -> Arm:
    """Make an arm of what a plan says of it.

    Args:
        one: the arm.
        scores: the plan's scores by name; an arm takes those that all share, the first, as it is.
        own: scores that were made for arms, by scorer or name and by split.
    """
    if one.edit is not None:
        return Arm(one.name, edit=create("edit", one.edit), seed=one.seed, role=one.role)
    named = one.scorer or one.scores or ""
    mine: xr.Dataset | CrossFit | None = own.get((named, one.split))
    if mine is None and named in [*scores][1:]:
        mine = scores[named]
    return Arm(
        one.name,
        create("selector", one.selector or ""),
        create("intervention", one.intervention or ""),
        one.fraction or 0.0,
        seed=one.seed,
        role=one.role,
        scores=mine,
    )
