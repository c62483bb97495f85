"""Quality is measured alike in every arm: seeds, floors of real pictures, and marks below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.generation import conditions_like, generate
from iarmem_plugin.interfaces import Condition, Quality, QualityValue, Sampling, TunedSampling
from iarmem_plugin.jobs.measuring import TEMPERATURES, tune_sampling
from iarmem_plugin.jobs.quality import (
    ALONE,
    SHARPER,
    QualityProtocol,
    drawn,
    find_floors,
    generated_features,
    measured,
    quality_protocol,
)
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.tracing import ImageARModel

DRAWN = Sampling(greedy=False, seed=3)


class Means(Quality):
    """The distance of mean colours without an error, and of their means with one."""

    name = "means"
    minimum = 2
    provenance: Mapping[str, str | int | None] = {}

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def features(self, images: Iterable[torch.Tensor]) -> np.ndarray:
        found = [batch.mean((2, 3)).double().numpy() for batch in images]
        self.sizes += [len(one) for one in found]
        return np.concatenate(found)

    def compare(
        self, generated: np.ndarray, reference: np.ndarray, *, reference_name: str
    ) -> list[QualityValue]:
        apart = np.abs(generated.mean(0) - reference.mean(0))
        sizes = f"reference {reference_name} n={len(reference)}, generated n={len(generated)}"
        return [
            QualityValue(f"first ({sizes})", float(apart[0]), len(generated)),
            QualityValue(f"all ({sizes})", float(apart.mean()), len(generated), 0.5),
        ]


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def protocol_of(references: Mapping[str, np.ndarray], **others: Any) -> QualityProtocol:
    return QualityProtocol(Means(), references, Condition.of([0] * 4), DRAWN, **others)


def test_reference_features_are_computed_in_batches_of_the_given_size(
    model: ImageARModel, pictures: Images
) -> None:
    measure = Means()
    quality_protocol(model, measure, {"given images": pictures}, generated=10, seed=0, batch_size=3)
    assert measure.sizes == [3, 3, 1]


def test_generated_classes_are_as_frequent_as_those_of_the_first_reference(
    model: ImageARModel, pictures: Images
) -> None:
    references = {"all": pictures, "two": pictures.subset([0, 5])}
    made = quality_protocol(model, Means(), references, generated=14, seed=3)
    assert np.bincount(made.condition.label).tolist() == [4, 4, 2, 2, 2]
    assert list(made.references) == ["all", "two"]
    assert made.sampling.seed == 3


def test_images_are_drawn_anew_for_each_seed_and_as_by_that_seed_alone(
    model: ImageARModel, pictures: Images
) -> None:
    settings: dict[str, Any] = {"generated": 4, "temperature": 0.7}
    made = quality_protocol(model, Means(), {"all": pictures}, seed=3, seeds=2, **settings)
    alone = quality_protocol(model, Means(), {"all": pictures}, seed=4, **settings)
    first, second = generated_features(model, "original", made, Batching.of(64))
    (other,) = generated_features(model, "original", alone, Batching.of(2))
    np.testing.assert_array_equal(second, other)
    assert not np.array_equal(first, second)
    assert made.sampling.temperature == alone.sampling.temperature == 0.7


def test_a_value_is_the_mean_over_seeds_beside_their_deviation() -> None:
    seeds = [column(1, 1, 1, 1), column(4, 4, 4, 4)]
    first, whole = measured(seeds, protocol_of({"mine": column(0, 0, 0)}, seeds=2))
    assert first == QualityValue(
        "first (reference mine n=3, generated n=4), temperature 1, mean of 2 seeds",
        *(2.5, 4, None, float(np.sqrt(4.5))),
    )
    assert whole.error == 0.5
    (alone, _) = measured(seeds[:1], protocol_of({"mine": column(0, 0, 0)}))
    assert alone.label.endswith("generated n=4), temperature 1, one seed")
    assert alone.deviation is None


@pytest.mark.parametrize("sampling", [Sampling(), replace(DRAWN, seed=None)])
def test_several_seeds_need_a_sampling_that_has_one(sampling: Sampling) -> None:
    with pytest.raises(InputError, match="2 sampling seeds were asked for"):
        QualityProtocol(Means(), {}, Condition.of([0] * 4), sampling, seeds=2)


def test_a_floor_holds_as_many_real_pictures_on_each_side_as_an_arm_has() -> None:
    random = np.random.default_rng(0)
    unseen, others, members = (random.random((n, 2)) for n in (9, 8, 13))
    references = {"unseen": unseen, "members": members}
    beside, halves = find_floors(
        Means(), references, {"unseen": ("others", others)}, generated=7, seed=5
    )
    assert (beside.name, beside.reference) == ("others against unseen", "unseen")
    np.testing.assert_array_equal(beside.real, drawn(others, 7, 5))
    np.testing.assert_array_equal(beside.other, drawn(unseen, 7, 5))
    assert halves.name == "members: one half against the other"
    assert halves.reference == "half of the members"
    assert len(halves.real) == len(halves.other) == 6
    both = np.concatenate((halves.real, halves.other))
    assert len(np.unique(both, axis=0)) == 12
    assert np.isin(both, members).all()
    apart = np.abs(beside.real.mean(0) - beside.other.mean(0))
    assert [one.value for one in beside.quality] == [apart[0], apart.mean()]


def test_a_reference_with_too_few_pictures_has_no_floor() -> None:
    assert find_floors(Means(), {"three": column(1, 2, 3)}, {}, generated=9, seed=0) == ()


def test_rows_are_drawn_by_the_seed_in_their_order() -> None:
    rows = column(*range(50))
    found = drawn(rows, 20, 7)
    assert (np.diff(found[:, 0]) > 0).all()
    np.testing.assert_array_equal(found, drawn(rows, 20, 7))
    assert not np.array_equal(found, drawn(rows, 20, 8))
    np.testing.assert_array_equal(drawn(rows, 50, 7), rows)


def floored(unseen: np.ndarray, others: np.ndarray) -> QualityProtocol:
    references = {"unseen": unseen}
    floors = find_floors(Means(), references, {"unseen": ("others", others)}, generated=4, seed=0)
    return protocol_of(references, floors=floors)


def test_a_value_below_real_pictures_is_marked_and_the_one_with_an_error_decides() -> None:
    unseen = np.zeros((4, 2))
    protocol = floored(unseen, np.full((4, 2), 2.0))  # real pictures are 2 apart
    cases = {(1.0, 1.0): (SHARPER, SHARPER), (1.0, 5.0): (ALONE, ""), (3.0, 3.0): ("", "")}
    for (first, second), marks in cases.items():
        values = measured([np.tile([first, second], (4, 1))], protocol)
        assert tuple(one.mark for one in values) == marks
        assert len(values) == 2  # as many as the floor's, so none stands twice


def test_arms_are_drawn_down_to_the_floor_where_it_has_fewer_pictures() -> None:
    protocol = floored(column(0, 0, 0), column(2, 2, 2, 2))
    images = column(1, 2, 3, 4)
    values = measured([images], protocol)
    assert [one.label.partition(")")[0] for one in values] == [
        "first (reference unseen n=3, generated n=4",
        "all (reference unseen n=3, generated n=4",
        "first (reference unseen n=3, generated n=3",
        "all (reference unseen n=3, generated n=3",
    ]
    assert values[2].value == pytest.approx(drawn(images, 3, 3).mean())


def test_a_measure_whose_labels_change_with_the_seed_is_named() -> None:
    class Counts(Means):
        def compare(
            self, generated: np.ndarray, reference: np.ndarray, *, reference_name: str
        ) -> list[QualityValue]:
            return [QualityValue(f"sum {generated.sum():g}", 1.0, 4)]

    protocol = replace(protocol_of({"mine": column(0, 0)}, seeds=2), quality=Counts())
    with pytest.raises(PluginError, match="gave the same images other labels"):
        measured([column(1, 1, 1, 1), column(2, 2, 2, 2)], protocol)


def test_the_temperature_with_the_least_deciding_value_is_taken(
    model: ImageARModel, pictures: Images
) -> None:
    found = tune_sampling(model, Means(), pictures, generated=12, seed=3, temperatures=(0.5, 2.0))
    protocol = quality_protocol(
        model, Means(), {"calibration pictures": pictures}, generated=12, seed=3
    )
    told, (real,) = conditions_like(pictures, 12), protocol.references.values()
    for at, value in found.values.items():
        sampling = replace(model.adapter.variant.sampling, temperature=at, seed=3, greedy=False)
        made = Means().features(generate(model, told, sampling))
        expected = Means().compare(made, real, reference_name="calibration pictures")[1]
        assert value == expected
    assert found.temperature == min(found.values, key=lambda at: found.values[at].value or 0)
    assert TunedSampling.of(found.provenance) == found
    tuned = quality_protocol(
        model, Means(), {"all": pictures}, generated=4, seed=0, temperature=found
    )
    assert tuned.sampling.temperature == found.temperature
    assert tuned.provenance["tuned"] == found.provenance


def test_nine_temperatures_are_tried_and_the_lowest_of_equals_is_taken() -> None:
    assert TEMPERATURES == (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    values = {at: QualityValue("x", value, 2) for at, value in ((1.2, 1.0), (0.9, 1.0), (1.0, 2.0))}
    assert TunedSampling(values).temperature == 0.9
    with pytest.raises(InputError, match="none of 1 temperatures could be measured"):
        TunedSampling({1.0: QualityValue("x", None, 2)})
