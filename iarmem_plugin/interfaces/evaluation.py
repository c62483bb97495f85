"""What measures the success and the cost of an edit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.plugin import Plugin
from iarmem_plugin.text import as_call
from iarmem_plugin.typing import Tensor


@dataclass(frozen=True, slots=True)
class Completion:
    """Images with the tokens they were decoded from.

    Attributes:
        images: decoded images, RGB in [0, 1].
        tokens: all tokens of each image, the given prefix included.
    """

    images: Float[Tensor, "image 3 height width"]
    tokens: Shaped[Tensor, "image token *rest"]

    def copy(self) -> Completion:
        """Return the same with memory of its own."""
        return Completion(self.images.clone(), self.tokens.clone())


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model predicts of the tokens of images, given the true earlier ones.

    Attributes:
        logits: unnormalised log-probabilities of every token.
        tokens: the true tokens.
    """

    logits: Float[Tensor, "image token vocab"]
    tokens: Int[Tensor, "image token"]


@dataclass(frozen=True, slots=True)
class QualityValue:
    """One measured value with the whole label of its protocol.

    Attributes:
        label: tool, extractor, reference and sample counts, such as
            ``"FID (emoji classifier, reference training pictures once each n=718, generated
            n=512)"``; two values may be compared only if their labels are equal.
        value: measured value, lower for images more like the reference; None where it could not be
            measured. In a report, the mean over sampling seeds.
        n: number of generated images.
        error: its standard error, where the measure knows it. In a report, the seeds' mean; all
            share the reference, so it is not divided by their number.
        deviation: standard deviation over seeds (n - 1), in a report with several.
        mark: what a report says of a value below that of real pictures, see `Floor`.
    """

    label: str
    value: float | None
    n: int
    error: float | None = None
    deviation: float | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class TunedSampling:
    """A sampling temperature, found by the quality of the images that it gives.

    Attributes:
        values: the value at each temperature that was tried.

    Raises:
        InputError: no temperature was tried, or none could be measured.
    """

    values: Mapping[float, QualityValue]

    def __post_init__(self) -> None:
        """Refuse values that name no temperature."""
        if not any(one.value is not None for one in self.values.values()):
            raise InputError(
                f"none of {len(self.values)} temperatures could be measured; give images that the "
                "measure can tell apart"
            )

    @property
    def temperature(self) -> float:
        """The one with the least value; the lowest of several."""
        known = {at: one.value for at, one in self.values.items() if one.value is not None}
        return min(sorted(known), key=known.__getitem__)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return all of it, as JSON values."""
        first = next(iter(self.values.values()))
        return {
            "temperature": self.temperature,
            "label": first.label,
            "generated": first.n,
            "by_temperature": {
                f"{at:g}": {"value": one.value, "error": one.error}
                for at, one in self.values.items()
            },
        }

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> TunedSampling:
        """Make it of what `provenance` gives."""
        label, n = provenance["label"], provenance["generated"]
        tried = provenance["by_temperature"].items()
        return cls({float(at): QualityValue(label, n=n, **one) for at, one in tried})


class Similarity(Plugin):
    """Closeness of completion and target; higher is closer; options go to ``__init__``.

    Attributes:
        threshold: similarity strictly above which a candidate is extracted.
        threshold_source: who calibrated the threshold, on what.
    """

    kind = "similarity"
    threshold: float
    threshold_source: str

    def __repr__(self) -> str:
        """Return class and provenance."""
        return as_call(self, self.provenance)

    @property
    def provenance(self) -> Mapping[str, str | float]:
        """Return everything beside the images that the values depend on."""
        return {
            "name": self.name,
            "threshold": self.threshold,
            "threshold_source": self.threshold_source,
        }

    @abstractmethod
    def compare(self, completion: Completion, target: Completion) -> Float[Tensor, " image"]:
        """Return one similarity for each image.

        Args:
            completion: images completed from a prefix.
            target: training images whose tokens the prefixes are from.
        """


class Quality(Plugin):
    """Measures image quality; every value carries the label of its protocol.

    Attributes:
        minimum: smallest number of images that it can measure, on either side.
    """

    kind = "quality"
    minimum: int

    def __repr__(self) -> str:
        """Return class and provenance."""
        return as_call(self, self.provenance)

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, str | int | None]:
        """Return everything beside the images that the values depend on."""

    @abstractmethod
    def features(
        self, images: Iterable[Float[Tensor, "_ 3 _ _"]]
    ) -> Float[np.ndarray, "image feature"]:
        """Return what the measure sees of images; those of a reference are computed once.

        Args:
            images: batches of images, RGB in [0, 1].
        """

    @abstractmethod
    def compare(
        self,
        generated: Float[np.ndarray, "generated feature"],
        reference: Float[np.ndarray, "reference feature"],
        *,
        reference_name: str,
    ) -> list[QualityValue]:
        """Compare the features of generated images with those of a reference.

        Args:
            generated: features of the generated images.
            reference: features of the reference images.
            reference_name: name of the reference in the labels of the values.
        """

    def compare_moments(
        self,
        generated: Float[np.ndarray, "generated feature"],
        mean: Float[np.ndarray, " feature"],
        covariance: Float[np.ndarray, "feature feature"],
        *,
        features: Float[np.ndarray, "reference feature"] | None,
        images: int | None,
        reference_name: str,
    ) -> list[QualityValue]:
        """Compare the features of generated images with the moments of a reference's.

        A measure that can do so overrides it; the others need the features of all its images.

        Args:
            generated: features of the generated images.
            mean: mean of the reference's features.
            covariance: their covariance, n - 1.
            features: of the reference's images, or of some of many; None where they are not known.
            images: number of the reference's images; None where it is not recorded.
            reference_name: name of the reference in the labels of the values.

        Raises:
            InputError: it needs features, and there are not those of all images.
        """
        if features is not None and len(features) == images:
            return self.compare(generated, features, reference_name=reference_name)
        raise InputError(
            f"{self.name!r} compares features, and not those of all images of the reference are "
            "in its file; give the pictures"
        )


class LossQuality(Plugin):
    """Measures how well a model predicts images, by their true tokens; chosen as a quality.

    It is given logits and never the model, so that it sees every arm alike.
    """

    kind = "quality"

    def __repr__(self) -> str:
        """Return class and provenance."""
        return as_call(self, self.provenance)

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, str | int | float | None]:
        """Return everything beside the predictions that the values depend on."""

    @abstractmethod
    def fit(self, predictions: Iterable[Prediction]) -> float:
        """Return the logit temperature, above 0, at which images are predicted best.

        Args:
            predictions: batches, of images that the model was not trained on and that are not
                reported.
        """

    @abstractmethod
    def losses(self, prediction: Prediction, temperature: float) -> Float64[np.ndarray, " image"]:
        """Return one loss for each image, nats a token; lower is better.

        Args:
            prediction: some images.
            temperature: from `fit`; 1 for the model as it is.
        """


AnyQuality: TypeAlias = Quality | LossQuality
