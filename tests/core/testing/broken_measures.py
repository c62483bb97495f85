"""Measures that are wrong, each in one way; run by `test_kit.py`, with pytest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Completion, Quality, QualityValue, Similarity
from iarmem_plugin.testing import QualityTests, SimilarityTests

TESTS = {  # what finds each of them
    "LowerIsCloser": "the_same_image_is_extracted",
    "GivesOneNumber": "it_gives_each_image_a_number",
    "SeesTheBatch": "batching_does_not_matter",
    "WritesIntoImages": "what_it_is_given_stays",
    "HidesItsThreshold": "its_provenance_fits",
    "DropsTheLastBatch": "it_sees_every_image_once",
    "LeavesTheReferenceUnnamed": "its_values_name_the_reference",
    "IsAlwaysTheSame": "it_tells_other_pictures",
}


class LowerIsCloser(PixelCorrelation):
    def compare(self, completion: Completion, target: Completion) -> Tensor:
        return 1 - super().compare(completion, target)


class GivesOneNumber(PixelCorrelation):
    def compare(self, completion: Completion, target: Completion) -> Tensor:
        return super().compare(completion, target).mean()


class SeesTheBatch(PixelCorrelation):
    def compare(self, completion: Completion, target: Completion) -> Tensor:
        found = super().compare(completion, target)
        return found - found.std(unbiased=False)


class WritesIntoImages(PixelCorrelation):
    def compare(self, completion: Completion, target: Completion) -> Tensor:
        completion.images.clamp_(0.2, 0.8)
        return super().compare(completion, target)


class HidesItsThreshold(PixelCorrelation):
    @property
    def provenance(self) -> Mapping[str, str | float]:
        return {"name": self.name}


class Means(Quality):
    """Right: the distance of mean colours."""

    name = "means"
    minimum = 2

    @property
    def provenance(self) -> Mapping[str, str | int | None]:
        return {"tool": "means"}

    def features(self, images: Iterable[Tensor]) -> np.ndarray:
        return torch.cat([batch.mean((2, 3)) for batch in images]).numpy()

    def compare(
        self, generated: np.ndarray, reference: np.ndarray, *, reference_name: str
    ) -> list[QualityValue]:
        apart = float(np.abs(generated.mean(0) - reference.mean(0)).sum())
        return [QualityValue(f"means ({reference_name})", apart, len(generated))]


class DropsTheLastBatch(Means):
    def features(self, images: Iterable[Tensor]) -> np.ndarray:
        batches = list(images)
        return super().features(batches[: max(1, len(batches) - 1)])


class LeavesTheReferenceUnnamed(Means):
    def compare(
        self, generated: np.ndarray, reference: np.ndarray, *, reference_name: str
    ) -> list[QualityValue]:
        return super().compare(generated, reference, reference_name="")


class IsAlwaysTheSame(Means):
    def features(self, images: Iterable[Tensor]) -> np.ndarray:
        return np.zeros_like(super().features(images))


def _tests_of(kind: type[Similarity] | type[Quality]) -> type:
    if issubclass(kind, Similarity):

        class OfSimilarity(SimilarityTests):
            @pytest.fixture
            def similarity(self) -> Similarity:
                return kind()

        return OfSimilarity

    class OfQuality(QualityTests):
        @pytest.fixture
        def quality(self) -> Quality:
            return kind()

    return OfQuality


for _name in ("Means", *TESTS):
    globals()[f"Test{_name}"] = type(f"Test{_name}", (_tests_of(globals()[_name]),), {})
