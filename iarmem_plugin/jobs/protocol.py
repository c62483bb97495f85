"""What all arms share: random neuron sets, candidates, and the threshold."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions, same_pictures
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.extraction import calibrate
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.statistics import wilson
from iarmem_plugin.interfaces import Adapter, Similarity
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import DEFAULTS, ExtractionOptions, make_attack
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.selectors import Random
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress


RATE = 0.01  # of images never seen that may count as extracted
FEWEST_TO_CALIBRATE, ENOUGH_TO_CALIBRATE = 20, 100


def with_random_sets(arms: Sequence[Arm], count: int, *, first_seed: int) -> list[Arm]:
    """Return the arms, and beside them controls: random neuron sets of the size of the first's.

    Args:
        arms: what is tried; the first says how many neurons are drawn, and what is done to them.
        count: number of random sets.
        first_seed: seed for drawing the first set; each other has the next.
    """
    drawn = [
        replace(
            arms[0],
            name=f"random {number + 1}",
            selector=Random(),
            seed=first_seed + number,
            role="control",
        )
        for number in range(count)
    ]
    return [*arms, *drawn]


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures that a user has for a comparison.

    Attributes:
        images: training images, ranked where none are given.
        given: images to try; None tries the best predicted of each class.
        held_out: images that the model was not trained on; None leaves the threshold as it is.
        ranking: how the training images were ranked before; None ranks them.
    """

    images: Images
    given: Images | None = None
    held_out: Images | None = None
    ranking: Ranking | None = None


def choose_candidates(
    model: ImageARModel,
    pictures: Pictures,
    similarity: Similarity,
    *,
    per_class: int = 5,
    calibrates: bool = True,
    halves: bool = False,
    few: bool = False,
    recognition: Recognition | None = None,
    near_duplicates: float | None = None,
    options: ExtractionOptions = DEFAULTS,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Candidates:
    """Return the images to try, and fix the threshold where there are held-out images.

    Args:
        model: the unmodified model.
        pictures: what is given or ranked, and what is held out.
        similarity: its threshold is fixed; see `with_held_out`.
        per_class: images to keep of each class, where they are ranked.
        calibrates: whether half of the held-out images fix the threshold.
        halves: whether that half is left out of the candidates even if the threshold is given, and
            then fixes `recognition` alone; otherwise all are reported then.
        few: whether few held-out images may fix it, too.
        recognition: its threshold is fixed with it, if given.
        near_duplicates: correlation above which two are alike, see `Candidates.with_clusters`.
        options: how candidates are extracted in arms, so that thresholds are fixed alike.
        batch_size: images at a time; halved where memory does not suffice.
        progress: where progress bars may be shown.

    Raises:
        InputError: a ranking of another model or other images; too few held-out images, all of
            them among the others; or images that lack what the model is told.
    """
    held_out = pictures.held_out
    _check_told(pictures, model.adapter)
    if held_out is not None:
        others = [one for one in (pictures.images, pictures.given) if one is not None]
        check_unseen(held_out, others)
    tried = _tried(model, pictures, per_class, batch_size, progress)
    if near_duplicates is not None:
        tried = tried.with_clusters(near_duplicates, progress=progress)
    if held_out is None:
        return tried
    if not calibrates and not halves:
        return tried.joined(held_out, np.full(len(held_out), HELD_OUT))
    return with_held_out(
        model,
        tried,
        held_out,
        similarity,
        few=few,
        given=not calibrates,
        recognition=recognition,
        options=options,
        batch_size=batch_size,
        progress=progress,
    )


def _tried(
    model: ImageARModel,
    pictures: Pictures,
    per_class: int,
    batch_size: int,
    progress: Progress | None,
) -> Candidates:
    """Return the images that are given, or the best of a ranking, made before or now."""
    given, ranking = pictures.given, pictures.ranking
    if given is not None and ranking is not None:
        raise InputError("images to try were given, and a ranking to choose them from; give one")
    if given is not None:
        return Candidates(given, np.full(len(given), "candidate"))
    if ranking is not None:
        ranking.check_model(model)
        return ranking.candidates(pictures.images, per_class=per_class)
    how: Any = {"per_class": per_class, "batch_size": batch_size, "progress": progress}
    return rank_candidates(model, pictures.images, model.adapter.variant.views, **how)


def with_held_out(
    model: ImageARModel,
    candidates: Candidates,
    held_out: Images,
    similarity: Similarity,
    *,
    few: bool = False,
    given: bool = False,
    recognition: Recognition | None = None,
    options: ExtractionOptions = DEFAULTS,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Candidates:
    """Fix the threshold on every other held-out image, and add the rest to the candidates.

    Where fewer than 100 fix it, a warning says what is known of the rate at which it lets images
    through that the model never saw.

    Args:
        model: the unmodified model.
        candidates: images to extract.
        held_out: images that the model was not trained on.
        similarity: its threshold is fixed.
        few: whether fewer than 20 images may fix it, too.
        given: whether the similarity's threshold is given, and stays; fewer than 20 images then
            leave `recognition` as it is, unless `few`.
        recognition: its threshold is fixed with it, if given.
        options: how candidates are extracted in arms, so that thresholds are fixed alike.
        batch_size: images at a time; halved where memory does not suffice.
        progress: where a progress bar may be shown.

    Raises:
        InputError: too few held-out images; see `check_calibration`.
    """
    check_calibration(len(held_out), few=few or given)
    half = Candidates(*_half(held_out, 0))
    if given and len(half) < FEWEST_TO_CALIBRATE and not few:  # too few for the other outcome
        return candidates.joined(*_half(held_out, 1))
    threshold, told = similarity.threshold, similarity.threshold_source
    source = "half of the held-out images, unmodified model"
    calibrate_on(
        model,
        half,
        similarity,
        source=source,
        recognition=recognition,
        options=options,
        batch_size=batch_size,
        progress=progress,
    )
    if given:
        similarity.threshold, similarity.threshold_source = threshold, told
    else:
        warn_of_few(len(half), similarity.threshold)
    return candidates.joined(*_half(held_out, 1))


def calibration_half(held_out: Images) -> Images:
    """Return the held-out images that thresholds and temperatures are fixed on: every other one."""
    return halves(held_out)[0]


def halves(held_out: Images) -> tuple[Images, Images]:
    """Return the held-out images on which things are fixed, and the others."""
    return _half(held_out, 0)[0], _half(held_out, 1)[0]


def check_calibration(held_out: int, *, few: bool = False) -> None:
    """Refuse so few held-out images that a threshold fixed on half of them would mean nothing.

    Args:
        held_out: number of held-out images.
        few: whether fewer than 20 may fix the threshold, too.

    Raises:
        InputError: fewer than two, or too few for the other half to say how often the threshold
            lets an image through that the model never saw.
    """
    half = -(-held_out // 2)
    if held_out < 2:
        raise InputError(f"{held_out} held-out images were given; two or more are needed")
    if half < FEWEST_TO_CALIBRATE and not few:
        raise InputError(
            f"{held_out} held-out images were given, every other one of which fixes the threshold: "
            f"{half} are too few for that; give {2 * FEWEST_TO_CALIBRATE} or more (better "
            f"{2 * ENOUGH_TO_CALIBRATE}), or a threshold (--threshold), or say that few will do "
            "(--few-held-out)"
        )


def calibrate_on(
    model: ImageARModel,
    held_out: Candidates,
    similarity: Similarity,
    *,
    source: str,
    prefix_tokens: int | None = None,
    rate: float = RATE,
    recognition: Recognition | None = None,
    options: ExtractionOptions = DEFAULTS,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> float:
    """Fix a similarity's threshold by completing pictures that the model was not trained on.

    Do this once, on the unmodified model; see `calibrate`.

    Args:
        model: the unmodified model.
        held_out: pictures that it was not trained on, and that are not reported.
        similarity: its threshold is fixed.
        source: where the pictures come from, for the report.
        prefix_tokens: tokens given to each completion; None gives as many as the options name.
        rate: share that may count as extracted, in [0, 1).
        recognition: its threshold is fixed on the same completions at the same rate, if given.
        options: how candidates are extracted in arms: reference, sampling, prefix.
        batch_size: images at a time; halved where memory does not suffice.
        progress: where a progress bar may be shown.

    Returns:
        the similarity's threshold.
    """
    given = options.prefix_tokens if prefix_tokens is None else prefix_tokens
    alike = replace(options, prefix_tokens=given, batch_size=batch_size)
    extraction = make_attack(model, held_out, similarity, alike).run(model, progress)
    if recognition is not None:
        recognition.calibrate(extraction, rate=rate, source=source)
    values = extraction["similarity"].to_numpy()
    return calibrate(similarity, values, rate=rate, source=source)


def warn_of_few(count: int, threshold: float) -> None:
    """Say what is known of the rate of a threshold that was fixed on fewer than 100 images.

    Args:
        count: number of images that fixed it.
        threshold: the threshold.
    """
    if count >= ENOUGH_TO_CALIBRATE:
        return
    allowed = math.floor(Fraction(str(RATE)) * count)
    low, high = wilson(allowed, count)
    warnings.warn(
        f"the threshold {threshold:.4g} was fixed on {count} held-out images, {allowed} of which "
        f"lie above it: that leaves between {100 * low:.1f}% and {100 * high:.1f}% (95%) for the "
        f"share of images never seen that it counts as extracted; give {2 * ENOUGH_TO_CALIBRATE} "
        "held-out images or more, or a threshold",
        stacklevel=4,
    )


def _check_told(pictures: Pictures, adapter: Adapter) -> None:
    for images in (pictures.images, pictures.given, pictures.held_out):
        if images is not None:
            check_conditions(images, adapter.conditions, adapter.variant.num_classes)


def check_unseen(held_out: Images, others: Sequence[Images]) -> None:
    """Warn of held-out images that are among others; refuse it if all are.

    Args:
        held_out: images that the model was not trained on.
        others: training images and candidates.

    Raises:
        InputError: all of them are.
    """
    if not (shared := same_pictures(held_out, others)):
        return
    message = (
        f"{len(shared)} of {len(held_out)} held-out images are also among the training images or "
        f"the candidates, such as {shown(shared[0])}; held-out images are those that the model was "
        "not trained on"
    )
    if len(shared) == len(held_out):
        raise InputError(message)
    warnings.warn(message, stacklevel=3)


def _half(images: Images, first: int) -> tuple[Images, np.ndarray]:
    chosen = images.subset(range(first, len(images), 2))
    return chosen, np.full(len(chosen), HELD_OUT)
