"""A rehearsal on two pictures, so that a plugin that is no use is known before hours of ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import compared, make_targets
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.interfaces import ActivationIntervention, AnyIntervention, Similarity
from iarmem_plugin.jobs.arms import Arm, select_neurons
from iarmem_plugin.jobs.scores import mean_activation
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel

PICTURES, NEURONS = 2, 4


def rehearse(
    model: ImageARModel,
    scores: xr.Dataset,
    arms: Sequence[Arm],
    images: Images,
    similarity: Similarity,
    *,
    backend: str = "weights",
) -> None:
    """Compare two pictures with themselves, and edit a few of the neurons that are to be edited.

    Each intervention is tried once, on real weights and in one pass over the two pictures.

    Args:
        model: the unmodified model; it comes back as it was.
        scores: scores of its neurons.
        arms: what is to be compared.
        images: pictures, of which the first two are taken.
        similarity: decides what counts as extracted.
        backend: how neurons are edited, see `intervene`.

    Raises:
        PluginError: a selector, an intervention or the similarity returns something else than it
            should.
    """
    two = images.subset(range(min(PICTURES, len(images))))
    views = model.adapter.variant.views
    targets = make_targets(model, Candidates(two, np.full(len(two), "rehearsal")), views)
    target = targets.at(slice(0, len(two)), model.device)
    with model.borrowed():
        compared(similarity, target, target, two.paths)
    tried: list[AnyIntervention] = []
    for arm in arms:
        if arm.intervention is None or any(arm.intervention is one for one in tried):
            continue
        tried.append(arm.intervention)
        selected = select_neurons(arm, scores, model.layout)
        few = _few(selected.isel(half=0, drop=True) if "half" in selected.dims else selected)
        of_values = isinstance(arm.intervention, ActivationIntervention)
        way, mean = ("trace", mean_activation(scores)) if of_values else (backend, None)
        with intervene(model, few, arm.intervention, backend=way, mean=mean) as edited:
            rank_candidates(edited, two, views, per_class=PICTURES, batch_size=PICTURES)


def _few(selected: xr.DataArray) -> xr.DataArray:
    """Return the first of some neurons."""
    flat = selected.to_numpy().ravel()
    first = np.zeros_like(flat)
    first[np.flatnonzero(flat)[:NEURONS]] = True
    return selected.copy(data=first.reshape(selected.shape))
