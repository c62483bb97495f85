"""What a model is told of images: made, sliced, moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition


@pytest.mark.parametrize("labels", [[3, 5, 5], np.array([3, 5, 5], np.int32), (3, 5, 5)])
def test_labels_may_be_lists_or_arrays_and_ids_count_from_nought(labels: object) -> None:
    told = Condition.of(labels)  # type: ignore[arg-type]  # tried as users may
    assert told.label.tolist() == [3, 5, 5]
    assert told.image.tolist() == [0, 1, 2]
    assert told.label.dtype == told.image.dtype == torch.int64
    assert told.text is None


def test_a_slice_keeps_every_part_of_an_image_together() -> None:
    told = Condition.of([3, 5, 7, 9], image=[10, 20, 30, 40], text=["a", "b", "c", "d"])
    part = told[1:3]
    assert (part.label.tolist(), part.image.tolist(), part.text) == ([5, 7], [20, 30], ("b", "c"))
    assert len(part) == 2


def test_a_condition_moves_with_its_tensors() -> None:
    told = Condition.of([1, 2], text=["a", "b"]).to("meta")
    assert {told.label.device.type, told.image.device.type} == {"meta"}
    assert told.text == ("a", "b")


def test_no_images_are_no_error() -> None:
    assert len(Condition.of([])) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": [1, 2], "text": ["a"]}, "2 labels, 2 ids, 1 captions"),
        ({"label": [1, 2], "image": [1]}, "2 labels, 1 ids"),
        ({"label": np.array([0.5, 1.0])}, r"float64 \(2,\); give one integer"),
        ({"label": np.array([[1], [2]])}, r"int64 \(2, 1\); give one integer"),
        ({"label": np.array([True])}, "bool"),
        ({"label": np.array(["cat"])}, "cannot be made a tensor"),
    ],
)
def test_parts_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Condition.of(**given)


def test_pictures_say_what_a_model_is_told_of_them() -> None:
    pixels = np.zeros((4, 2, 2, 3), np.uint8)
    images = Images.from_arrays(pixels, np.array([7, 8, 9, 7]), captions=list("abcd"))
    told = Condition.of_images(images.subset([3, 1, 0]), slice(0, 2))
    assert told.label.tolist() == [7, 8]
    assert told.image.tolist() == [3, 1]
    assert told.text == ("d", "b")
    unlabelled = Condition.of_images(Images.from_arrays(pixels))
    assert (unlabelled.label.tolist(), unlabelled.text) == ([-1] * 4, None)
