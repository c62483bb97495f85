"""Numbers of one model: what comes out of it, and what metrics say of its neurons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import xarray as xr

import iarmem_plugin as iarmem
from iarmem_plugin.data.images import Images
from iarmem_plugin.jobs.protocol import RATE, calibrate_on
from iarmem_plugin.plugins import registry

from .pairs import Pictures, Sizes

TOP = 0.1  # of the neurons
AS_IT_IS, ROUNDED, RELEARNED = "as it is", "8 bits", "relearned"
STATES = (AS_IT_IS, ROUNDED, RELEARNED)
OUTCOMES = ("extracted", "recognisable", "agreement", "NLL", "NLL - held-out NLL")


def measured(model: iarmem.ImageARModel, pictures: Pictures, sizes: Sizes) -> dict[str, Any]:
    """Return the numbers of a model, and of what rounding and relearning make of it.

    Args:
        model: organism or twin; it comes back as it was.
        pictures: the same for both.
        sizes: how much is measured.

    Returns:
        name of each of `STATES` -> name of a number -> its value.
    """
    return {
        state: outcomes(one, pictures) | top_means(one, pictures, sizes)
        for state, one in states(model, pictures, sizes)
    }


def states(
    model: iarmem.ImageARModel, pictures: Pictures, sizes: Sizes
) -> Iterator[tuple[str, iarmem.ImageARModel]]:
    """Yield the model as it is, with weights of 8 bits, and after relearning."""
    yield AS_IT_IS, model
    data = iarmem.EditData(retained=pictures.retained)
    relearn = iarmem.Relearn(budgets=(sizes.steps,), batch_size=sizes.batch_size)
    for name, trigger in ((ROUNDED, iarmem.Rounded(8)), (RELEARNED, relearn)):
        with closing(trigger.models(model, data, seed=0)) as changed:
            for _, one in changed:
                yield name, one


def outcomes(model: iarmem.ImageARModel, pictures: Pictures) -> dict[str, float]:
    """Return what comes out of a model; thresholds are fixed on its own completions.

    Args:
        model: is measured.
        pictures: canaries, those that fix thresholds, and held-out ones.

    Returns:
        shares of canaries that are extracted and recognisable, their mean agreement, the mean
        plain NLL of their tokens (nats a token), and that less the held-out pictures'; and two
        that are no outcomes, ``"threshold"`` and ``"recognition threshold"``.
    """
    similarity, recognition = iarmem.PixelCorrelation(), iarmem.Recognition()
    source = "calibration pictures of the split, this model"
    calibrate_on(model, pictures.fixing, similarity, source=source, recognition=recognition)
    variant = model.adapter.variant
    found = iarmem.extract(
        *(model, pictures.canaries),
        iarmem.make_targets(model, pictures.canaries, variant.views),
        similarity=similarity,
        prefix_tokens=variant.prefix_tokens,
        recognition=recognition,
    )
    own, others = (plain_nll(model, one) for one in (pictures.canaries, pictures.held_out))
    shares = {name: float(found[name].mean()) for name in ("extracted", "recognisable")}
    values = (float(found["agreement"].mean()), own, own - others)
    assert recognition.threshold is not None
    return {
        **shares,
        **dict(zip(OUTCOMES[2:], values, strict=True)),
        "threshold": float(similarity.threshold),
        "recognition threshold": recognition.threshold,
    }


def plain_nll(model: iarmem.ImageARModel, candidates: iarmem.Candidates) -> float:
    """Return the mean NLL of some pictures' tokens at temperature 1, nats a token."""
    protocol = iarmem.loss_protocol(
        model, iarmem.HeldOutLoss(), candidates.images, model.adapter.variant.views
    )
    found = protocol.measured(model, xr.Dataset(), candidates, protocol.tokens)
    return float(found["plain_loss"].mean())


def top_means(model: iarmem.ImageARModel, pictures: Pictures, sizes: Sizes) -> dict[str, float]:
    """Return, for each metric and each scorer, the mean score of its highest 10% of neurons."""
    scores = scored(model, pictures.canaries.images, pictures.reference, sizes)
    return {f"top 10%: {name}": top_mean(one) for name, one in scores.items()}


def scored(
    model: iarmem.ImageARModel, candidates: Images, reference: Images, sizes: Sizes
) -> dict[str, xr.Dataset]:
    """Score neurons by every metric that plugins provide, and by every scorer.

    Metrics have one capture of candidates and reference together; scorers contrast the two.
    """
    options = iarmem.CaptureOptions(views=sizes.views)
    metrics = registry.names("metric")
    found = iarmem.localize(model, _joined(candidates, reference), metric=metrics, options=options)
    for name in registry.names("scorer"):
        made = f"{name}:views={sizes.views}" if name == "difference-of-means" else name
        found[name] = iarmem.contrast(model, candidates, reference, scorer=made)
    return found


def top_mean(scores: xr.Dataset) -> float:
    """Return the mean score of the highest 10% of neurons, as `Highest` ranks them.

    A neuron's score is the mean over its scales, of which those that are not valid count 0.

    Args:
        scores: what `localize` or `contrast` returned.
    """
    chosen = iarmem.select(scores, fraction=TOP)
    score = scores["score"].where(scores["valid"], 0).mean("scale")
    return float(score.where(chosen).mean())


def _joined(one: Images, other: Images) -> Images:
    empty = np.full(len(one), "candidate"), np.full(len(other), "reference")
    return iarmem.Candidates(one, empty[0]).joined(other, empty[1]).images


MADE_BY = {"top": TOP, "rate": RATE, "states": STATES}
"""What of the settings is fixed here."""
