"""What a user named on the command line, made into the objects that the jobs take."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iarmem_plugin import plugins
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates, centre_views, rank_candidates
from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.generation import proportional_labels
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.interfaces import Intervention, Similarity
from iarmem_plugin.jobs.mitigate import Arm, QualityProtocol, calibrate_on
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.selectors import Random

if TYPE_CHECKING:
    from rich.progress import Progress


def arms(
    selector: str,
    intervention: str,
    factor: float | None,
    fraction: float,
    random_sets: int,
    seed: int,
) -> list[Arm]:
    """Return the arm that the user named, and random neuron sets of the same size beside it.

    The random sets are drawn with the seeds after `seed`, so none is the named arm's own.

    Raises:
        UnknownNameError: no such selector or intervention.
        InputError: a fraction outside (0, 1], or a factor for an intervention that takes none.
    """
    edit = make_intervention(intervention, factor)
    chosen = _make(plugins.find("selector", selector), "selector", selector)
    drawn = [
        Arm(f"random {number}", Random(), edit, fraction, seed=seed + number)
        for number in range(1, random_sets + 1)
    ]
    return [Arm(selector, chosen, edit, fraction, seed=seed), *drawn]


def make_intervention(name: str, factor: float | None) -> Intervention:
    """Return the intervention of that name.

    Raises:
        UnknownNameError: no such intervention.
        InputError: a factor for an intervention that takes none.
    """
    found = plugins.find("intervention", name)
    if factor is None:
        made: Intervention = _make(found, "intervention", name)
        return made
    if "factor" not in inspect.signature(found).parameters:
        raise InputError(f"intervention {name!r} takes no factor; leave out --factor {factor}")
    return _make(found, "intervention", name, factor=factor)  # type: ignore[no-any-return]  # checked


def similarity(name: str, file: Path | None) -> Similarity:
    """Return the similarity measure of that name, from its file where it needs one.

    Raises:
        UnknownNameError: no such measure.
        InputError: a file is missing, or one is given that is not needed.
    """
    found = plugins.find("similarity", name)
    needs_file = "file" in inspect.signature(found).parameters
    if needs_file and file is None:
        raise InputError(f"similarity {name!r} needs a TorchScript file; name it with --sscd FILE")
    if not needs_file and file is not None:
        raise InputError(f"similarity {name!r} takes no file; use --similarity sscd with --sscd")
    made: Similarity = _make(found, "similarity", name, **({"file": file} if needs_file else {}))
    return made


def candidates(
    model: ImageARModel,
    images: Images,
    given: Images | None,
    per_class: int,
    progress: Progress | None,
    *,
    batch_size: int = 64,
) -> Candidates:
    """Return the images that the user names, or the best predicted of each class."""
    if given is not None:
        return Candidates(given, np.full(len(given), "candidate"))
    views = model.adapter.variant.views
    return rank_candidates(
        model, images, views, per_class=per_class, batch_size=batch_size, progress=progress
    )


def with_held_out(
    model: ImageARModel,
    candidates: Candidates,
    held_out: Images,
    similarity: Similarity,
    progress: Progress | None,
    *,
    batch_size: int = 64,
) -> Candidates:
    """Fix the threshold on every other held-out image, and add the rest to the candidates.

    Raises:
        InputError: fewer than two held-out images.
    """
    if len(held_out) < 2:
        raise InputError(f"{len(held_out)} held-out images were given; two or more are needed")
    half = Candidates(*_half(held_out, 0))
    source = "half of the held-out images, unmodified model"
    calibrate_on(model, half, similarity, source=source, batch_size=batch_size, progress=progress)
    images, groups = _half(held_out, 1)
    return Candidates(candidates.images.join(images), np.concatenate((candidates.group, groups)))


def _half(images: Images, first: int) -> tuple[Images, np.ndarray]:
    chosen = images.subset(range(first, len(images), 2))
    return chosen, np.full(len(chosen), HELD_OUT)


def quality(
    model: ImageARModel,
    weights: Path,
    real: Images,
    generated: int,
    seed: int,
    *,
    batch_size: int = 64,
) -> QualityProtocol:
    """Return the FID and KID protocol with Inception, the reference being the real images."""
    measure = TorchFidelity(weights, "Inception v3", device=str(model.device))
    views = model.adapter.variant.views
    starts = range(0, len(real), batch_size)
    parts = (slice(start, min(start + batch_size, len(real))) for start in starts)
    features = measure.features(centre_views(real, views, rows) for rows in parts)
    return QualityProtocol(
        measure,
        {"given images": features},
        proportional_labels(real.labels, generated),
        replace(model.adapter.variant.sampling, seed=seed),
    )


def _make(found: type[Any], kind: str, name: str, **parameters: Any) -> Any:
    try:
        return found(**parameters)
    except TypeError as error:
        raise InputError(
            f"{kind} {name!r} cannot be made here: {error}; use it in Python"
        ) from error
