"""Image quality in every arm: how images are drawn, what they are compared with, and its floors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from iarmem_plugin.checks import check_integer, check_kind
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import Completes
from iarmem_plugin.evaluation.generation import conditions_like, generate
from iarmem_plugin.evaluation.references.file import ReferenceFeatures
from iarmem_plugin.interfaces import Condition, Quality, QualityValue, Sampling, TunedSampling
from iarmem_plugin.jobs.measuring import (
    centred,
    check_enough,
    compared,
    compared_with,
    features_of,
)
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import author
from iarmem_plugin.report.document import plain

SHARPER = "sharper, not better"
EVERY = slice(None)
ALONE = "below real pictures by this value alone"


@dataclass(frozen=True, slots=True, repr=False)
class Floor:
    """Real pictures held against real pictures: what no generated ones should go below.

    Attributes:
        name: what is held against what.
        reference: how labels call the second side.
        real: features of the pictures that stand where an arm's images do.
        other: features of the second side, as many.
        quality: the values between the two.
    """

    name: str
    reference: str
    real: Float[np.ndarray, "image feature"]
    other: Float[np.ndarray, "image feature"]
    quality: tuple[QualityValue, ...]

    def __repr__(self) -> str:
        """Return what it is and how many pictures stand on each side."""
        return f"Floor({self.name!r}, images={len(self.real)})"


@dataclass(frozen=True, slots=True, repr=False)
class QualityProtocol:
    """How image quality is measured, the same in every arm.

    Attributes:
        quality: the measure.
        references: features of each reference by the name that labels give it.
        condition: what the model is told of each image to generate.
        sampling: how its tokens are drawn; the same seed in every arm.
        arms: names of the arms in which images are generated; None generates them in all.
        seeds: how often they are generated, each time with the next seed.
        floors: real pictures against real pictures, see `find_floors`.
        tuned: how the temperature was found; None where it was given.
        files: references whose features, or mean and covariance, were read from a file.

    Raises:
        InputError: too few images for the measure, before any is generated, or several seeds where
            nothing is drawn by one.
    """

    quality: Quality
    references: Mapping[str, Float[np.ndarray, "reference feature"]]
    condition: Condition
    sampling: Sampling
    arms: frozenset[str] | None = None
    seeds: int = 1
    floors: tuple[Floor, ...] = ()
    tuned: TunedSampling | None = None
    files: tuple[ReferenceFeatures, ...] = ()

    def __repr__(self) -> str:
        """Return numbers of images in place of their features."""
        sizes = {"generated": len(self.condition)}
        sizes |= {name: len(features) for name, features in self.references.items()}
        seeds = "" if self.seeds == 1 else f", seeds={self.seeds}"
        return f"QualityProtocol({self.quality!r}, images={sizes}, {self.sampling}{seeds})"

    def __post_init__(self) -> None:
        """Check the numbers of images and of seeds."""
        sizes = {"generated": len(self.condition)}
        sizes |= {name: len(features) for name, features in self.references.items()}
        check_enough(self.quality.name, self.quality.minimum, sizes)
        check_integer("the number of sampling seeds", self.seeds, least=1)
        if self.seeds > 1 and (self.sampling.greedy or not isinstance(self.sampling.seed, int)):
            raise InputError(
                f"{self.seeds} sampling seeds were asked for, and {self.sampling} has no seed to "
                "count from; give a sampling that is not greedy, with an integer seed"
            )

    @property
    def samplings(self) -> list[Sampling]:
        """How tokens are drawn, once for each seed."""
        first = self.sampling.seed
        if self.seeds == 1 or not isinstance(first, int):
            return [self.sampling]
        return [replace(self.sampling, seed=first + place) for place in range(self.seeds)]

    def covers(self, arm: str) -> bool:
        """Tell whether images are generated in an arm."""
        return self.arms is None or arm in self.arms

    @property
    def width(self) -> int:
        """Number of features of an image."""
        known = [one.shape[1] for one in self.references.values()]
        return int([*known, *(len(one.mean) for one in self.files)][0])

    @property
    def provenance(self) -> dict[str, Any]:
        """What is generated and how it is drawn, and what was tried for that."""
        found = asdict(self.sampling) | {"images": len(self.condition), "seeds": self.seeds}
        if self.files:
            found["reference_files"] = [one.provenance for one in self.files]
        return found if self.tuned is None else found | {"tuned": dict(self.tuned.provenance)}

    @property
    def sampled(self) -> str:
        """What labels say of the sampler."""
        if self.sampling.greedy:
            return "greedy"
        seeds = "one seed" if self.seeds == 1 else f"mean of {self.seeds} seeds"
        return f"temperature {self.sampling.temperature:g}, {seeds}"


def quality_protocol(
    model: ImageARModel,
    measure: Quality,
    references: Mapping[str, Images],
    *,
    generated: int,
    seed: int,
    seeds: int = 1,
    temperature: float | TunedSampling | None = None,
    beside: Mapping[str, tuple[str, Images]] | None = None,
    arms: Iterable[str] | None = None,
    see: Callable[[Images], np.ndarray] | None = None,
    files: Sequence[ReferenceFeatures] = (),
    like: Images | None = None,
    batch_size: int = 64,
) -> QualityProtocol:
    """Return how quality is measured in every arm; references and floors are made once, here.

    Args:
        model: names the centre view of a picture, and how tokens are drawn.
        measure: how quality is measured.
        references: real images by the name that labels give them; the images to generate have
            the class frequencies, or the captions, of the first.
        generated: number of images to generate.
        seed: seed for drawing their tokens.
        seeds: how often they are generated, each time with the next seed.
        temperature: of the sampler, a number or from `tune_sampling`; None leaves the variant's.
        beside: other real images like those of a reference, and their name, by the reference's:
            its floor; a reference without any is halved.
        arms: names of the arms in which images are generated; None generates them in all.
        see: function that gives the features of real images; by default the measure does.
        files: references whose features were read from a file.
        like: real images whose classes are followed where there are no references but files.
        batch_size: real images at a time.

    Raises:
        InputError: too few images for the measure, or a file of other features.
    """
    check_kind("the measure", measure, Quality, "a Quality, such as TorchFidelity")
    variant = model.adapter.variant
    followed = _followed(measure, variant.views, next(iter(references.values()), like), files)
    seen = see or (lambda real: features_of(measure, centred(real, variant.views, batch_size)))
    features = {name: seen(real) for name, real in references.items()}
    others = {name: (what, seen(real)) for name, (what, real) in (beside or {}).items()}
    tuned = temperature if isinstance(temperature, TunedSampling) else None
    given = temperature.temperature if isinstance(temperature, TunedSampling) else temperature
    sampling = replace(variant.sampling, seed=seed)
    if given is not None:
        sampling = replace(sampling, temperature=given, greedy=False)
    return QualityProtocol(
        measure,
        features,
        conditions_like(followed, generated),
        sampling,
        None if arms is None else frozenset(arms),
        seeds,
        find_floors(measure, features, others, generated=generated, seed=seed),
        tuned,
        tuple(files),
    )


def _followed(
    measure: Quality,
    views: Augmentation,
    images: Images | None,
    files: Sequence[ReferenceFeatures],
) -> Images:
    """Return the images like which others are generated; refuse files of other features."""
    if images is None:
        raise InputError("no real images were given; images are generated like some, so give any")
    for one in files:
        seen = features_of(measure, centred(images.subset(range(1)), views, 1))
        one.check_seen_by(measure, plain(views.provenance), seen.shape[1])
    return images


def find_floors(
    measure: Quality,
    references: Mapping[str, np.ndarray],
    beside: Mapping[str, tuple[str, np.ndarray]],
    *,
    generated: int,
    seed: int,
) -> tuple[Floor, ...]:
    """Hold real pictures against real pictures, as many on each side as an arm has images at most.

    Args:
        measure: how quality is measured.
        references: features of each reference by its name.
        beside: features of other real pictures like those of a reference, and their name, by the
            reference's; a reference without any is halved at random, not in order, which would part
            near-duplicates evenly.
        generated: number of an arm's images.
        seed: seed for halving, and for drawing pictures where there are more.

    Returns:
        a floor a reference, but for those with too few pictures for the measure.
    """
    floors = []
    for reference, features in references.items():
        if reference in beside:
            what, real = beside[reference]
            name, label, other = f"{what} against {reference}", reference, features
        else:
            name, label = f"{reference}: one half against the other", f"half of the {reference}"
            real, other = _halves(features, seed)
        size = min(len(real), len(other), generated)
        if size >= measure.minimum:
            real, other = (drawn(side, size, seed) for side in (real, other))
            values = tuple(compared(measure, real, other, label))
            floors.append(Floor(name, label, real, other, values))
    return tuple(floors)


def _halves(features: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(features))
    half = len(features) // 2
    return features[np.sort(order[:half])], features[np.sort(order[half : 2 * half])]


def drawn(features: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return some rows in their order, drawn by a seed; all, where there are no more."""
    chosen: np.ndarray = np.random.default_rng(seed).choice(len(features), size, replace=False)
    rows: np.ndarray = features[np.sort(chosen)]
    return rows


def generated_features(
    model: Completes,
    arm: str,
    protocol: QualityProtocol | None,
    batch_size: Batching,
    rows: slice = EVERY,
) -> list[Float[np.ndarray, "image feature"]]:
    """Return what the measure sees of the images that an arm generates, seed by seed.

    Args:
        model: the model of the arm.
        arm: its name.
        protocol: says what is generated, and how.
        batch_size: images at a time.
        rows: which of the images this model generates.

    Returns:
        nothing where the protocol leaves the arm out.
    """
    if protocol is None or not protocol.covers(arm):
        return []
    told = protocol.condition[rows]
    drawn_by = (generate(model, told, one, batch_size=batch_size) for one in protocol.samplings)
    return [features_of(protocol.quality, images) for images in drawn_by]


def measured(features: Sequence[np.ndarray], protocol: QualityProtocol) -> tuple[QualityValue, ...]:
    """Compare an arm's images with each reference, and, at the floors' sizes, with the floors.

    Args:
        features: from `generated_features`.
        protocol: holds the references and floors.

    Returns:
        means over seeds: of each reference, then those that are read against a floor, where they
        are others; a value below its floor is marked.
    """
    if not features:
        return ()
    found = [
        value
        for name, reference in protocol.references.items()
        for value in _over_seeds(protocol, features, reference, name)
    ]
    for file in protocol.files:
        seen = [compared_with(protocol.quality, one, file) for one in features]
        found += _joined(protocol, seen)
    seeds = [sampling.seed for sampling in protocol.samplings]
    marked: dict[str, QualityValue] = {}
    for floor in protocol.floors:
        fewer = [
            drawn(one, len(floor.real), seed if isinstance(seed, int) else 0)
            for one, seed in zip(features, seeds, strict=True)
        ]
        values = _over_seeds(protocol, fewer, floor.other, floor.reference)
        marked |= {one.label: one for one in _marked(values, floor.quality)}
    kept = [marked.pop(one.label, one) for one in found]
    return (*kept, *marked.values())


def _over_seeds(
    protocol: QualityProtocol, features: Sequence[np.ndarray], reference: np.ndarray, name: str
) -> list[QualityValue]:
    return _joined(protocol, [compared(protocol.quality, one, reference, name) for one in features])


def _joined(
    protocol: QualityProtocol, by_seed: Sequence[Sequence[QualityValue]]
) -> list[QualityValue]:
    """Return means over seeds."""
    labels = [[value.label for value in values] for values in by_seed]
    if any(one != labels[0] for one in labels):
        raise PluginError(f"{author(protocol.quality)} gave the same images other labels")
    return [_mean(values, protocol.sampled) for values in zip(*by_seed, strict=True)]


def _mean(values: Sequence[QualityValue], sampled: str) -> QualityValue:
    known = [one.value for one in values if one.value is not None]
    errors = [one.error for one in values if one.error is not None]
    whole = len(known) == len(values)
    return replace(
        values[0],
        label=f"{values[0].label}, {sampled}",
        value=float(np.mean(known)) if whole else None,
        error=float(np.mean(errors)) if len(errors) == len(values) else None,
        deviation=float(np.std(known, ddof=1)) if whole and len(known) > 1 else None,
    )


def _marked(values: Sequence[QualityValue], floor: Sequence[QualityValue]) -> list[QualityValue]:
    """Mark what is below the floor; what has a standard error, such as KID, decides the words."""
    below = [
        one.value is not None and real.value is not None and one.value < real.value
        for one, real in zip(values, floor, strict=True)
    ]
    decides = [low for low, one in zip(below, values, strict=True) if one.error is not None]
    word = SHARPER if all(decides) else ALONE
    return [replace(one, mark=word if low else "") for one, low in zip(values, below, strict=True)]
