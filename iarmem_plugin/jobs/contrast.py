"""Scores by contrast, and candidates that are tested with neurons that were not chosen on them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int8

from iarmem_plugin.borrowing import evaluating, generators_kept
from iarmem_plugin.checks import check_integer, check_kind
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions, same_pictures
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.interfaces import ImageScorer
from iarmem_plugin.models.provenance import describe_images, model_provenance, weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import author, blamed, described, versions
from iarmem_plugin.plugins.create import create
from iarmem_plugin.text import shown

ALL_TOKENS = "all tokens"
LISTED = ("images", "image_list_sha256")
TRIED = ("canary", "candidate")  # roles of what a model is to forget


def contrast(
    model: ImageARModel,
    candidates: Images,
    reference: Images,
    *,
    scorer: str | ImageScorer = "gradient-weight",
) -> xr.Dataset:
    """Score every neuron by what tells candidates from other images.

    Args:
        model: the wrapped model, unmodified; it comes back as it was.
        candidates: images that the model is to forget.
        reference: images that it is to predict as before, such as held-out ones.
        scorer: name of a scorer, be it with options, or an instance.

    Returns:
        ``score`` with dims (block, scale, neuron), of one scale, and the coordinate ``valid``: what
        `select` and an `Arm` take. The highest are to be edited first.

    Raises:
        UnknownNameError: there is no such scorer.
        InputError: no images on a side, images that cannot be used, or a model that is edited.
        PluginError: the scorer returns something else than a finite number a neuron.

    Reference: for what is scored on candidates and tested on the same, see `cross_fit`.
    """
    chosen = create("scorer", scorer) if isinstance(scorer, str) else scorer
    check_kind("the scorer", chosen, ImageScorer, "a scorer, or the name of one")
    _check_given(model, candidates, reference, apart=chosen.needs_images)
    said = dict(chosen.parameters)  # refused before the work, where they are no plain values
    made_by, values = _given_back(model, chosen, candidates, reference)
    score = xr.DataArray(
        _checked(chosen, values, model)[:, None, :].astype(np.float64),
        {
            "block": np.arange(model.layout.num_blocks),
            "scale": [0],
            "scale_name": ("scale", np.array([ALL_TOKENS], object)),
            "neuron": np.arange(model.layout.neurons_per_block, dtype=np.int32),
        },
        ("block", "scale", "neuron"),
    )
    score = score.assign_coords(valid=xr.ones_like(score, bool))
    said = {
        **made_by,
        "metric": chosen.key,
        "metric_parameters": said,
        "candidates": describe_images(candidates),
        "reference": describe_images(reference),
        "plugins": [described(model.adapter), described(chosen)],
        "versions": made_by["versions"] | versions(chosen),
    }
    attributes = {"metric": chosen.key, "provenance": json.dumps(said)}
    return xr.Dataset({"score": score}, attrs=attributes)


def _given_back(
    model: ImageARModel, scorer: ImageScorer, candidates: Images, reference: Images
) -> tuple[dict[str, Any], object]:
    """Return what identifies the model, and a scorer's scores; the model is as it was.

    Raises:
        PluginError: the scorer changed the model's weights.
    """
    made_by, parts = model_provenance(model), model.adapter.modules.values()
    # a caller's inference mode would leave no gradients to a scorer that needs them
    kept, evaluated = generators_kept(model.device), evaluating(parts)
    with torch.inference_mode(False), kept, evaluated, blamed(scorer):
        values: object = scorer.score(model, candidates, reference)
    if weights_sha256(model) != made_by["weights_sha256"]:
        raise PluginError(
            f"{author(scorer)} changed the model's weights; it is to leave the model as it was, so "
            "load the model again"
        )
    return made_by, values


def _check_given(model: object, candidates: object, reference: object, *, apart: bool) -> None:
    check_kind("the model", model, ImageARModel, "a wrapped model, from iarmem.load or iarmem.wrap")
    assert isinstance(model, ImageARModel)
    for what, images in (("candidates", candidates), ("reference images", reference)):
        check_kind(f"the {what}", images, Images, "Images, such as Images.from_folder(path)")
        assert isinstance(images, Images)
        if not len(images):
            raise InputError(f"there are no {what}; a contrast needs images on both sides")
        check_conditions(images, model.adapter.conditions, model.adapter.variant.num_classes)
    assert isinstance(candidates, Images)
    assert isinstance(reference, Images)
    if apart:
        check_apart(candidates, reference)
    if model._overlay:
        raise InputError(
            "this model is edited through the trace, so its weights are not those that it computes "
            "with; give the unmodified model"
        )


def check_apart(candidates: Images, reference: Images) -> None:
    """Warn of reference images that are among the candidates; refuse it if all are.

    Args:
        candidates: images that a model is to forget, or that are reported.
        reference: what they are contrasted with.

    Raises:
        InputError: all of them are.
    """
    if not (shared := same_pictures(reference, [candidates])):
        return
    message = (
        f"{len(shared)} of {len(reference)} images that candidates are contrasted with are also "
        f"among the candidates or the held-out images, such as {shown(shared[0])}; give others"
    )
    if len(shared) == len(reference):
        raise InputError(message)
    warnings.warn(message, stacklevel=4)


def _checked(scorer: ImageScorer, values: object, model: ImageARModel) -> np.ndarray:
    shape = (model.layout.num_blocks, model.layout.neurons_per_block)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        found = f"a {type(values).__name__}"
    elif values.shape != shape:
        found = f"an array of shape {values.shape}"
    elif not np.isfinite(values).all():
        found = f"{int((~np.isfinite(values)).sum())} scores that are not finite"
    else:
        return values
    raise PluginError(
        f"{author(scorer)} returned {found}; expected a finite number for each neuron, {shape}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """Scores that were made without one half of the candidates, for each half.

    An `Arm` with such scores edits the model twice: the candidates of each half are completed by
    the model whose neurons were chosen without them. So what is chosen on candidates is never
    tested on the same.

    Attributes:
        scores: two datasets as `contrast` or `localize` return; number i was made without half i.
        half: 0 or 1, the half of each candidate.
        seed: seed of the draw of the halves.
        made_for: `Candidates.identity` of the candidates; empty where not known.

    Raises:
        InputError: other than two scores, or halves other than 0 and 1.
    """

    scores: tuple[xr.Dataset, xr.Dataset]
    half: Int8[np.ndarray, " candidate"]
    seed: int = 0
    made_for: str = ""

    def __post_init__(self) -> None:
        """Check that there are two scores and two halves."""
        check_kind("the scores of a CrossFit", self.scores, tuple, "two datasets of scores")
        if len(self.scores) != 2:
            raise InputError(f"{len(self.scores)} scores were given; a CrossFit has two halves")
        for one in self.scores:
            check_kind(
                "the scores of a half", one, xr.Dataset, "what contrast or localize returned"
            )
        check_kind("the halves", self.half, np.ndarray, "an array with 0 or 1 for each candidate")
        values = sorted(set(self.half.ravel().tolist()))
        if self.half.ndim != 1 or self.half.dtype.kind not in "iu" or values != [0, 1]:
            raise InputError(
                f"the halves are {self.half.dtype} with the values {shown(str(values), 60)}; "
                "expected the integers 0 and 1, each at least once"
            )


def cross_fit(
    candidates: Candidates, score: Callable[[Images], xr.Dataset], *, seed: int = 0
) -> CrossFit:
    """Score neurons twice, each time on one half of what is to be forgotten.

    Args:
        candidates: all candidates; every group is halved, and canaries and candidates of no known
            role are scored on.
        score: function that scores neurons on some of these images, such as
            ``lambda images: contrast(model, images, held_out)``.
        seed: seed of the draw of the halves.

    Raises:
        InputError: fewer than two images to score on.
    """
    half = halves(candidates, seed=seed)
    if not callable(score):
        raise InputError(f"score is a {type(score).__name__}; expected a function of images")
    first, second = (score(scored_on(candidates, half == other)) for other in (1, 0))
    return CrossFit((first, second), half, seed, candidates.identity)


def halves(candidates: Candidates, *, seed: int = 0) -> Int8[np.ndarray, " candidate"]:
    """Return the half of each candidate, 0 or 1, drawn so that every group is halved.

    A group of an odd number gives the one more to one half, and the next such to the other.

    Args:
        candidates: all candidates.
        seed: seed of the draw.
    """
    check_kind("the candidates", candidates, Candidates, "Candidates")
    check_integer("the seed", seed, least=0)
    random, half, first = np.random.default_rng(seed), np.zeros(len(candidates), np.int8), 0
    for name in dict.fromkeys(candidates.group.tolist()):
        mine = random.permutation(np.flatnonzero(candidates.group == name))
        half[mine] = (np.arange(len(mine)) + first) % 2
        first = (first + len(mine)) % 2
    return half


def scored_on(candidates: Candidates, chosen: np.ndarray) -> Images:
    """Return those of some candidates that a model is to forget.

    Args:
        candidates: all candidates.
        chosen: bool, one for each.

    Raises:
        InputError: there are none.
    """
    positions = np.flatnonzero(chosen & np.isin(candidates.role, TRIED))
    if not len(positions):
        raise InputError(
            "half of the candidates holds no image that is to be forgotten, so neurons cannot be "
            "chosen on it; give two candidates or more that are neither members nor held out"
        )
    return candidates.images.subset(positions)


def made_from(scores: xr.Dataset | CrossFit | None) -> dict[str, Any]:
    """Return what a report says of the scores that an arm has of its own.

    Args:
        scores: from `contrast`, `localize` or `cross_fit`; None for those that all arms share.

    Returns:
        ``scores``, the metric or scorer; where known, the images ``scored_on`` and the
        ``reference``, of each half where there are two; and ``cross_fit``.
    """
    if scores is None:
        return {}
    every = each(scores)
    made = [json.loads(one.attrs["provenance"]) for one in every]
    found: dict[str, Any] = {"scores": made[0].get("metric", every[0].attrs["metric"])}
    for name, key in (("scored_on", "candidates"), ("reference", "reference")):
        listed = [{one: said[key][one] for one in LISTED} for said in made if key in said]
        found |= {name: listed if len(every) > 1 else listed[0]} if listed else {}
    if isinstance(scores, CrossFit):
        found["cross_fit"] = {"halves": 2, "seed": scores.seed}
    return found


def each(scores: xr.Dataset | CrossFit | None) -> tuple[xr.Dataset, ...]:
    """Return the scores that an arm has of its own, one or two."""
    if isinstance(scores, CrossFit):
        return scores.scores
    return () if scores is None else (scores,)


def every_other(half: int) -> slice:
    """Return which of images that are no candidates are for a half, so that classes are shared."""
    return slice(half, None, 2)


def whole(parts: Sequence[xr.Dataset], scores: xr.Dataset | CrossFit | None) -> xr.Dataset:
    """Join what came out of the halves, in the order of the candidates.

    Args:
        parts: extractions of the halves, or of all candidates.
        scores: those of the arm; without a `CrossFit` there is one part.

    Returns:
        the extraction, with the ``half`` of each candidate; what is one number for each half, such
        as the fitted temperature, is their mean.
    """
    if not isinstance(scores, CrossFit):
        return parts[0]
    every = [np.flatnonzero(scores.half == half) for half in range(2)]
    scalars = [str(name) for name, one in parts[0].data_vars.items() if not one.dims]
    joined = xr.concat([one.drop_vars(scalars) for one in parts], "candidate")
    joined = joined.isel(candidate=np.argsort(np.concatenate(every)))
    means = {name: np.mean([one[name].item() for one in parts]) for name in scalars}
    return joined.assign(means).assign(half=("candidate", scores.half))


def interleaved(parts: Sequence[xr.Dataset | None]) -> xr.Dataset | None:
    """Join what came out of every other image by each half, in the order of the images."""
    found = [one for one in parts if one is not None]
    if len(found) < 2:
        return found[0] if found else None
    joined = xr.concat(found, "candidate")
    count = joined.sizes["candidate"]
    places = np.concatenate([np.arange(count)[every_other(half)] for half in range(2)])
    return joined.isel(candidate=np.argsort(places))


def alike(extractions: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Return extractions, all of them with halves where one has them; -1 says of none."""
    if not any("half" in one for one in extractions):
        return list(extractions)
    none = ("candidate", np.full(extractions[0].sizes["candidate"], -1, np.int8))
    return [one if "half" in one else one.assign(half=none) for one in extractions]
