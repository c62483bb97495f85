"""The second job: edit neurons, and measure what is forgotten and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation import determinism
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import calibrate, extract, make_targets
from iarmem_plugin.evaluation.generation import generate
from iarmem_plugin.interfaces import (
    Intervention,
    Quality,
    QualityValue,
    Sampling,
    Selector,
    Similarity,
)
from iarmem_plugin.jobs.scores import check_scores
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.provenance import describe_images, model_provenance
from iarmem_plugin.models.tracing import ImageARModel, intervene
from iarmem_plugin.neurons.selectors import check_fraction
from iarmem_plugin.progress import progress_bar
from iarmem_plugin.report.gallery import gallery
from iarmem_plugin.report.report import ArmResult, Report

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to run the model: with some neurons edited, or, without a selector, as it came.

    Attributes:
        name: unique among the arms.
        selector: which neurons.
        intervention: what is done to them.
        fraction: share of all neurons, in (0, 1].
        seed: for selectors that draw at random.
    """

    name: str
    selector: Selector | None = None
    intervention: Intervention | None = None
    fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a fraction outside (0, 1], and half an edit."""
        check_fraction(self.fraction)
        if (self.selector is None) != (self.intervention is None):
            raise InputError(f"arm {self.name!r} needs both a selector and an intervention")


ORIGINAL = Arm("original")


@dataclass(frozen=True, slots=True)
class QualityProtocol:
    """How image quality is measured, the same in every arm.

    Attributes:
        quality: the measure.
        references: features of each reference by the name that labels give it.
        labels: class of each image to generate.
        sampling: how its tokens are drawn; the same seed in every arm.
    """

    quality: Quality
    references: Mapping[str, Float[np.ndarray, "reference feature"]]
    labels: Int[np.ndarray, " image"]
    sampling: Sampling

    def __post_init__(self) -> None:
        """Refuse too few images before any is generated."""
        sizes = {"generated": len(self.labels)}
        sizes |= {name: len(features) for name, features in self.references.items()}
        for name, size in sizes.items():
            if size < self.quality.minimum:
                raise InputError(
                    f"{size} images ({name}) are too few: {self.quality.name!r} needs "
                    f"{self.quality.minimum} or more on each side"
                )


def mitigate(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    arms: Sequence[Arm],
    *,
    similarity: Similarity,
    prefix_tokens: int | None = None,
    quality: QualityProtocol | None = None,
    backend: str = "weights",
    batch_size: int = 64,
    check_batching: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Run the extraction attack on a model as it came and after each intervention.

    Candidates, prefix, targets, seeds and threshold are the same in all arms.

    Args:
        model: the wrapped model; it comes back as it was.
        scores: from `localize`.
        candidates: training images to extract, in named groups.
        arms: what to compare; the unmodified model is added as the first.
        similarity: decides what counts as extracted.
        prefix_tokens: tokens given to each completion; by default the variant's.
        quality: how image quality is measured; None leaves it out.
        backend: see `intervene`.
        batch_size: images at a time; halved where memory does not suffice, and then for the
            arms that follow, too.
        check_batching: how many candidates are also completed one by one by the unmodified model;
            what differs is counted under ``batching`` in the provenance. See `check_batching`.
        progress: where progress bars may be shown.

    Returns:
        the report; `Report.save` writes it.

    Raises:
        InputError: scores of another model, or arms of one name.

    Reference: arXiv 2509.00488, sections 3.3 and 4.3; arXiv 2502.02514 (the attack).
    """
    arms = [ORIGINAL, *(arm for arm in arms if arm.selector is not None)]
    check_made_with(model, scores)
    _check_names(arms)
    prefix_tokens = model.adapter.variant.prefix_tokens if prefix_tokens is None else prefix_tokens
    views = model.adapter.variant.views
    targets = make_targets(model, candidates, views, batch_size=batch_size, progress=progress)
    selected = {arm.name: _select(arm, scores, model) for arm in arms}
    advance = progress_bar(progress, "arms", len(arms))
    completing, generating = Batching(batch_size), Batching(batch_size)
    results, extractions = [], []
    for arm in arms:
        with _edit(model, arm, selected[arm.name], backend) as edited:
            extraction = extract(
                edited,
                candidates,
                targets,
                similarity=similarity,
                prefix_tokens=prefix_tokens,
                batch_size=completing,
            )
            measured = _measure(edited, quality, generating)
        extractions.append(extraction)
        results.append(_result(arm, measured, backend))
        advance(1)
    settings: dict[str, Any] = {"backend": backend, "prefix_tokens": prefix_tokens}
    settings["batch_size"] = completing.size
    if check_batching:
        settings["batching"] = asdict(
            determinism.check_batching(
                model,
                candidates,
                views,
                prefix_tokens=prefix_tokens,
                batch_size=completing.size,
                images=check_batching,
            )
        )
    names = xr.DataArray([arm.name for arm in arms], dims="arm", name="arm")
    joined = xr.concat(extractions, names, combine_attrs="override")
    return Report(
        model=model.adapter.variant.name,
        provenance=_provenance(model, scores, candidates, similarity, quality, settings),
        scores=scores,
        arms=tuple(results),
        extraction=joined,
        gallery=gallery(model, joined, targets),
        neurons=xr.concat([selected[arm.name] for arm in arms], names),
    )


def calibrate_on(
    model: ImageARModel,
    held_out: Candidates,
    similarity: Similarity,
    *,
    source: str,
    prefix_tokens: int | None = None,
    rate: float = 0.01,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> float:
    """Fix a similarity's threshold by completing pictures that the model was not trained on.

    Do this once, on the unmodified model; see `calibrate`.

    Returns:
        the threshold.
    """
    variant = model.adapter.variant
    targets = make_targets(model, held_out, variant.views, batch_size=batch_size)
    extraction = extract(
        model,
        held_out,
        targets,
        similarity=similarity,
        prefix_tokens=variant.prefix_tokens if prefix_tokens is None else prefix_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    values = extraction["similarity"].to_numpy()
    return calibrate(similarity, values, rate=rate, source=source)


def _select(arm: Arm, scores: xr.Dataset, model: ImageARModel) -> xr.DataArray:
    if arm.selector is not None:
        return arm.selector.select(scores, fraction=arm.fraction, seed=arm.seed)
    shape = (model.layout.num_blocks, model.layout.neurons_per_block)
    return xr.DataArray(np.zeros(shape, bool), dims=("block", "neuron"))


def _edit(
    model: ImageARModel, arm: Arm, neurons: xr.DataArray, backend: str
) -> AbstractContextManager[ImageARModel]:
    if arm.intervention is None:
        return nullcontext(model)
    return intervene(model, neurons, arm.intervention, backend=backend)


def _measure(
    model: ImageARModel, protocol: QualityProtocol | None, batch_size: Batching
) -> tuple[QualityValue, ...]:
    if protocol is None:
        return ()
    images = generate(model, protocol.labels, protocol.sampling, batch_size=batch_size)
    features = protocol.quality.features(images)
    return tuple(
        value
        for name, reference in protocol.references.items()
        for value in protocol.quality.compare(features, reference, reference_name=name)
    )


def _result(arm: Arm, quality: tuple[QualityValue, ...], backend: str) -> ArmResult:
    if arm.intervention is None or arm.selector is None:
        return ArmResult(arm.name, None, None, None, quality)
    intervention = {"name": arm.intervention.name, **arm.intervention.parameters}
    selector = {"name": arm.selector.name, **arm.selector.parameters, "seed": arm.seed}
    edit = intervention | {"backend": backend}
    return ArmResult(arm.name, edit, selector, arm.fraction, quality)


def _provenance(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    similarity: Similarity,
    quality: QualityProtocol | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    found = model_provenance(model) | dict(settings)
    found["scores"] = json.loads(scores.attrs["provenance"])
    found["candidates"] = describe_images(candidates.images) | {
        "chosen": "given" if candidates.hit_rate is None else "best predicted of each class"
    }
    found["similarity"] = dict(similarity.provenance)
    if quality is not None:
        found["generation"] = asdict(quality.sampling) | {"images": len(quality.labels)}
        found["quality"] = dict(quality.quality.provenance)
    return found


def check_made_with(model: ImageARModel, scores: xr.Dataset) -> None:
    """Refuse scores of another model, or of other weights of this one.

    Raises:
        InputError: the message says what differs.
    """
    check_scores(scores)
    layout = model.layout
    expected = (layout.num_blocks, layout.neurons_per_block)
    found = (scores.sizes["block"], scores.sizes["neuron"])  # scales may be bands
    if found != expected:
        raise InputError(
            f"the scores have (block, neuron) = {found}, the model {expected}: "
            "they were made with another model"
        )
    made_with, here = json.loads(scores.attrs["provenance"]), model_provenance(model)
    for key in ("dtype", "weights_sha256"):
        if made_with.get(key, here[key]) != here[key]:
            raise InputError(
                f"the scores were made with other weights of this model ({key} "
                f"{made_with[key]}, not {here[key]}); run 'iarmem localize' again"
            )


def _check_names(arms: Sequence[Arm]) -> None:
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise InputError(f"arms need different names, got {names}")
