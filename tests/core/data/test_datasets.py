"""Pictures from torch datasets: which labels are taken, and which items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


class Numbered(Dataset):
    """Items whose picture has one colour: their number."""

    def __init__(self, items: int = 3, **attributes: object) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> tuple[object, int]:
        return Image.new("RGB", (4, 4), (index, 0, 0)), 2 * index


@pytest.mark.parametrize("attribute", ["targets", "labels"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_datasets_own_labels_are_taken(attribute: str, kind: type) -> None:
    images = Images.from_dataset(Numbered(**{attribute: kind([0, 2, 4])}))
    assert images.labels.tolist() == [0, 2, 4]
    assert [np.asarray(images.load(i))[0, 0].tolist() for i in (2, 0)] == [[2, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    "attributes",
    [{}, {"targets": [0, 1, 2], "target_transform": abs}, {"targets": [[0], [1, 2], []]}],
)
def test_a_dataset_without_labels_of_its_own_is_read_once_with_a_warning(
    attributes: dict[str, object],
) -> None:
    with pytest.warns(UserWarning, match="reading all 3 items once"):
        images = Images.from_dataset(Numbered(**attributes))
    assert images.labels.tolist() == [0, 2, 4]


def test_a_label_that_differs_from_its_items_is_refused_when_it_is_read() -> None:
    images = Images.from_dataset(Numbered(), labels=[0, 1, 4], classes={0: "a", 1: "b", 4: "c"})
    assert images.load(2).size == (4, 4)
    with pytest.raises(InputError, match=r"item 1 .* label 2, and 1 was expected"):
        images.load(1)


class Single(Dataset):
    """One item, as given."""

    def __init__(self, item: object) -> None:
        self.item = item

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> object:
        return self.item


@pytest.mark.parametrize(
    "value",
    [
        noise(4, 5),
        Image.fromarray(noise(4, 5)),
        torch.from_numpy(noise(4, 5)).permute(2, 0, 1),
        torch.from_numpy(noise(4, 5)).permute(2, 0, 1) / 255,
        noise(4, 5) / 255,
    ],
)
def test_a_datasets_picture_may_be_of_any_kind(value: object) -> None:
    images = Images.from_dataset(Single((value, 0, "more")), labels=[0])
    assert np.array_equal(images.load(0), noise(4, 5))


@pytest.mark.parametrize(
    "value", [noise(4, 4)[..., 0], torch.from_numpy(noise(4, 4)[None, ..., 0])]
)
def test_a_grey_picture_is_read_as_rgb(value: object) -> None:
    images = Images.from_dataset(Single((value, 0)), labels=[0])
    assert np.array_equal(images.load(0), np.repeat(noise(4, 4)[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "item 0 of the dataset is int .3.; expected a picture and its label"),
        ((noise(4, 4), "cat"), "label str .'cat'.; expected an integer"),
        ((torch.randn(3, 4, 4), 0), r"float32 \(3, 4, 4\) from -.* leave out what normalises"),
        ((np.zeros((3, 4, 4), np.uint8), 0), r"uint8 \(3, 4, 4\); expected a PIL picture"),
        ((torch.zeros(2, 3, 4, 4), 0), r"float32 \(2, 3, 4, 4\); expected"),
    ],
)
def test_a_dataset_of_other_things_is_refused(item: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Images.from_dataset(Single(item), labels=[0]).load(0)
