"""What a quality measure sees of images, and the sampling temperature that it likes best."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin.checks import check_number
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import centre_views
from iarmem_plugin.evaluation.generation import conditions_like, generate
from iarmem_plugin.evaluation.references.file import ReferenceFeatures, see_all
from iarmem_plugin.interfaces import Quality, QualityValue, TunedSampling
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import author, blamed
from iarmem_plugin.progress import progress_bar
from iarmem_plugin.report.document import plain

if TYPE_CHECKING:
    from rich.progress import Progress

TEMPERATURES = tuple(tenths / 10 for tenths in range(4, 13))


def tune_sampling(
    model: ImageARModel,
    measure: Quality,
    calibration: Images,
    *,
    generated: int = 1000,
    seed: int = 0,
    temperatures: Sequence[float] = TEMPERATURES,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> TunedSampling:
    """Find the temperature whose images are most like real ones, by KID or the like.

    Do this once, on the unmodified model, and use the same in every arm.

    Args:
        model: the unmodified model; what else its variant says of the sampler stays.
        measure: its first value with a standard error decides, or its first, without any.
        calibration: real images that are not reported and that the model was not trained on.
        generated: number of images to generate at each temperature.
        seed: seed for drawing their tokens, the same at each temperature.
        temperatures: which are tried; 0.4 to 1.2 by 0.1 by default.
        batch_size: images at a time; halved where memory does not suffice.
        progress: where a progress bar may be shown.

    Raises:
        InputError: too few images for the measure, or it gives no value.
    """
    variant = model.adapter.variant
    told = conditions_like(calibration, generated)
    sizes = {"generated": generated, "calibration": len(calibration)}
    check_enough(measure.name, measure.minimum, sizes)
    real = features_of(measure, centred(calibration, variant.views, batch_size))
    advance = progress_bar(progress, "temperatures", len(temperatures))
    found = {}
    for temperature in temperatures:
        sampling = replace(variant.sampling, temperature=temperature, seed=seed, greedy=False)
        images = generate(model, told, sampling, batch_size=batch_size)
        values = compared(measure, features_of(measure, images), real, "calibration pictures")
        if not values:
            raise InputError(f"{measure.name!r} gives no value to tune a temperature by")
        found[temperature] = next((one for one in values if one.error is not None), values[0])
        advance(1)
    return TunedSampling(found)


def check_enough(quality: str, minimum: int, sizes: Mapping[str, int]) -> None:
    """Refuse fewer images than a quality measure needs.

    Args:
        quality: name of the measure.
        minimum: smallest number that it can measure.
        sizes: number of images by what they are.

    Raises:
        InputError: naming those that are too few.
    """
    for name, size in sizes.items():
        if size < minimum:
            raise InputError(
                f"{size} images ({name}) are too few: {quality!r} needs {minimum} or more on each "
                "side"
            )


def features_of(
    quality: Quality, images: Iterable[Float[Tensor, "_ 3 _ _"]]
) -> Float[np.ndarray, "image feature"]:
    """Return what a quality measure sees of images.

    Args:
        quality: the measure.
        images: batches of images, RGB in [0, 1].

    Raises:
        PluginError: it is no finite number for each image and feature.
    """
    given = 0

    def counted() -> Iterator[Tensor]:
        nonlocal given
        for batch in images:
            given += len(batch)
            yield batch

    batches = counted()
    with blamed(quality):
        features = quality.features(batches)
    for _ in batches:  # what the measure did not look at counts, too
        pass
    if not isinstance(features, np.ndarray) or features.ndim != 2 or features.dtype.kind != "f":
        found = type(features).__name__
    elif len(features) != given or not np.isfinite(features).all():
        found = f"{len(features)} rows for {given} images, or values that are not finite"
    else:
        return features
    raise PluginError(
        f"{author(quality)} returned features that are {found}; expected an array of finite "
        "numbers, a row for each image"
    )


def compared(
    quality: Quality, generated: np.ndarray, reference: np.ndarray, name: str
) -> list[QualityValue]:
    """Return what a quality measure says of two sets of features, which stay as they are.

    Raises:
        PluginError: it says no list of values, or one that is not finite.
    """
    with blamed(quality):
        values = quality.compare(generated.copy(), reference.copy(), reference_name=name)
    return _checked(quality, values)


def compared_with(
    quality: Quality, generated: np.ndarray, reference: ReferenceFeatures
) -> list[QualityValue]:
    """Return what a quality measure says of features and of a reference from a file.

    Raises:
        InputError: the measure needs features that the file does not hold.
        PluginError: see `compared`.
    """
    with blamed(quality):
        values = reference.compared(quality, generated)
    return _checked(quality, values)


def see_images(
    measure: Quality,
    images: Images,
    views: Augmentation,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> ReferenceFeatures:
    """Return what a quality measure sees of real images, however many, to be kept in a file.

    Args:
        measure: sees them.
        images: the real images.
        views: their centre views are taken.
        batch_size: images at a time.
        progress: where a progress bar may be shown.

    Raises:
        InputError: too few images for the measure.
    """
    advance = progress_bar(progress, "features", len(images))

    def seen() -> Iterator[np.ndarray]:
        for batch in centred(images, views, batch_size):
            yield features_of(measure, [batch])
            advance(len(batch))

    made_by = {
        "measure": json.loads(json.dumps(dict(measure.provenance), default=str)),
        "views": plain(views.provenance),
        "pictures_sha256": images.digest,
    }
    return replace(see_all(measure, seen(), len(images)), made_by=made_by)


def _checked(quality: Quality, values: object) -> list[QualityValue]:
    if not isinstance(values, list) or not all(isinstance(one, QualityValue) for one in values):
        raise PluginError(f"{author(quality)} returned no list of QualityValue")
    for one in values:
        if one.value is not None:  # it could be measured
            check_number(f"{one.label!r} of {author(quality)}", one.value)
        if one.error is not None:
            check_number(f"the error of {one.label!r} of {author(quality)}", one.error)
    return values


def centred(
    images: Images, views: Augmentation, size: int
) -> Iterator[Float[Tensor, "_ 3 height width"]]:
    """Yield the centre views of real images, so many at a time."""
    for start in range(0, len(images), size):
        yield centre_views(images, views, slice(start, min(start + size, len(images))))
