"""Arms made of what a plan says of them: plugins from their texts, scores from their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.compare.material import Material
from iarmem_plugin.jobs.compare.shared import Shared
from iarmem_plugin.jobs.contrast import CrossFit
from iarmem_plugin.jobs.mitigate import check_arms
from iarmem_plugin.jobs.plan.planned import PlannedArm
from iarmem_plugin.jobs.scores import check_made_with, load_scores, mean_activation
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.selectors import select
from iarmem_plugin.plugins.create import create
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.jobs.plan.plan import Plan

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
    contrasts = {
        text: _with_activity(one, default)
        for text, one in _contrasts(planned, shared, material, candidates).items()
    }
    if default is None:
        stand_in = shared.contrasted(create("scorer", STAND_IN), candidates, None)
        assert isinstance(stand_in, xr.Dataset)
        default = stand_in
    arms = [_made(one, named, contrasts) for one in planned]
    check_arms(shared.model, arms, default, candidates)
    return default, arms


def check_scores(plan: Plan, model: ImageARModel) -> None:
    """Refuse scores that cannot be used, before candidates are ranked.

    Args:
        plan: the plan.
        model: the unmodified model.

    Raises:
        InputError: naming the scores: another model's, damaged, or without what a selector needs.
    """
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


def _named_scores(plan: Plan, shared: Shared, material: Material) -> dict[str, xr.Dataset]:
    """Return the plan's scores by name, the default first."""
    if plan.scores:
        return {name: load_scores(path) for name, path in plan.scores.items()}
    if material.captured is None:
        return {}
    return dict.fromkeys(plan.scores_names, shared.unitmem(material.captured))


def _contrasts(
    planned: Sequence[PlannedArm], shared: Shared, material: Material, candidates: Candidates
) -> dict[str, xr.Dataset | CrossFit]:
    """Return scores by contrast for each scorer that an arm names."""
    found: dict[str, xr.Dataset | CrossFit] = {}
    for text in dict.fromkeys(one.scorer for one in planned if one.scorer is not None):
        scorer = create("scorer", text)
        reference = material.contrasted_by(scorer.name)
        if scorer.needs_images and reference is None:
            raise InputError(
                f"{shown(text, 60)} contrasts the candidates with images that the model is to "
                "predict as before; give held-out or contrast-with in [pictures]"
            )
        found[text] = shared.contrasted(scorer, candidates, reference)
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


def _made(
    one: PlannedArm,
    scores: Mapping[str, xr.Dataset],
    contrasts: Mapping[str, xr.Dataset | CrossFit],
) -> Arm:
    if one.edit is not None:
        return Arm(one.name, edit=create("edit", one.edit), seed=one.seed, role=one.role)
    own: xr.Dataset | CrossFit | None = None
    if one.scorer is not None:
        own = contrasts[one.scorer]
    elif one.scores is not None and one.scores != next(iter(scores)):
        own = scores[one.scores]
    return Arm(
        one.name,
        create("selector", one.selector or ""),
        create("intervention", one.intervention or ""),
        one.fraction or 0.0,
        seed=one.seed,
        role=one.role,
        scores=own,
    )
