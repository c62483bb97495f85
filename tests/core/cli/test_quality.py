"""`--quality`, `--seeds`, `--temperature` and `--held-out` say how images are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch

from iarmem_plugin.cli.quality import QualityChoice
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Adapter, Quality, QualityValue
from iarmem_plugin.jobs.protocol import halves
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import CLASSES, PIXELS


class Means(Quality):
    """The distance of mean colours."""

    name, minimum = "means", 3
    provenance: Mapping[str, str | int | None] = {}

    def features(self, images: Iterable[torch.Tensor]) -> np.ndarray:
        return np.concatenate([batch.mean((2, 3)).double().numpy() for batch in images])

    def compare(
        self, generated: np.ndarray, reference: np.ndarray, *, reference_name: str
    ) -> list[QualityValue]:
        apart = float(np.abs(generated.mean(0) - reference.mean(0)).sum())
        return [QualityValue(f"means ({reference_name})", apart, len(generated))]


@pytest.fixture
def model(adapter: Adapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def images() -> Images:
    """Seven pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, PIXELS, PIXELS, 3), np.uint8)
    return Images.from_arrays(pixels, np.arange(7, dtype=np.int32) % CLASSES)


def chosen(temperature: str | None = None, seeds: int = 1) -> QualityChoice:
    return QualityChoice(("means",), None, 4, 5, seeds, temperature)


def test_held_out_images_come_first_and_their_other_half_is_the_floor(
    model: ImageARModel, images: Images
) -> None:
    made = chosen(seeds=2).protocol(model, Means(), images, images, batch_size=2)
    assert made is not None
    _, reported = halves(images)
    sizes = {name: len(features) for name, features in made.references.items()}
    assert sizes == {"held-out images": len(reported), "given images": 7}
    beside, own = made.floors
    assert beside.name == "other held-out images against held-out images"
    assert len(beside.real) == len(beside.other) == 3
    assert own.reference == "half of the given images"
    assert [one.seed for one in made.samplings] == [5, 6]
    assert made.sampling.temperature == model.adapter.variant.sampling.temperature


def test_too_few_held_out_images_are_no_reference(model: ImageARModel, images: Images) -> None:
    for held_out in (None, images.subset(range(5))):
        made = chosen().protocol(model, Means(), images, held_out, batch_size=2)
        assert made is not None
        assert list(made.references) == ["given images"]


def test_the_temperature_is_as_given_or_tuned_on_half_of_the_held_out_images(
    model: ImageARModel, images: Images
) -> None:
    given = chosen("0.7").protocol(model, Means(), images, images, batch_size=2)
    assert given is not None
    assert (given.sampling.temperature, given.tuned) == (0.7, None)
    tuned = chosen("tuned").protocol(model, Means(), images, images, batch_size=2)
    assert tuned is not None
    assert tuned.tuned is not None
    assert len(tuned.tuned.values) == 9
    assert tuned.sampling.temperature == tuned.tuned.temperature


def test_half_of_the_held_out_images_must_suffice_to_tune_on(images: Images) -> None:
    chosen("tuned").check_enough(Means(), images, images.subset(range(5)))
    with pytest.raises(InputError, match=r"2 images \(half of --held-out\) are too few"):
        chosen("tuned").check_enough(Means(), images, images.subset(range(3)))
