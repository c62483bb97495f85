"""Torch datasets: what their labels and class names mean, and which items are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from iarmem_plugin.data.datasets import as_array, length_of
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError

from .conftest import noise

IMAGENETTE = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}


class Folders(Dataset):
    """As torchvision's ImageFolder: classes are counted by the rank of their name."""

    def __init__(self, names: list[str], per_class: int = 1) -> None:
        self.classes = names
        self.class_to_idx = {name: number for number, name in enumerate(names)}
        self.targets = [number for number in range(len(names)) for _ in range(per_class)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(noise(4, 4, index)), self.targets[index]


def test_a_datasets_class_names_go_through_the_rules_of_folders() -> None:
    images = Images.from_dataset(Folders(list(IMAGENETTE), 2), num_classes=1000)
    assert images.labels.tolist() == [label for label in IMAGENETTE.values() for _ in range(2)]
    assert images.classes == {label: name for name, label in IMAGENETTE.items()}
    assert np.array_equal(images.load(7), noise(4, 4, 7))


def test_a_part_and_a_chain_of_datasets_keep_their_class_names() -> None:
    whole = Folders(list(IMAGENETTE))
    chain = ConcatDataset([Subset(whole, [9, 3]), Subset(Subset(whole, [1, 2]), [1])])
    images = Images.from_dataset(chain, num_classes=1000)
    assert images.labels.tolist() == [701, 491, 482]
    assert [images.load(place).size for place in range(3)] == [(4, 4)] * 3
    other = ConcatDataset([whole, Folders(["cat", "dog"])])
    with pytest.raises(InputError, match="count their classes differently; give labels"):
        Images.from_dataset(other, num_classes=1000)


@pytest.mark.parametrize(
    ("names", "num_classes", "labels"),
    [
        (["0", "1", "10", "2"], None, [0, 1, 10, 2]),
        (["0", "1", "10", "2"], 1000, [0, 1, 10, 2]),
        (["ant", "cat"], 2, [0, 1]),
        (["T-shirt", "Trouser", "Coat"], 3, [0, 1, 2]),  # complete, in an order of its own
    ],
)
def test_class_names_that_tell_the_class(
    names: list[str], num_classes: int | None, labels: list[int]
) -> None:
    assert Images.from_dataset(Folders(names), num_classes=num_classes).labels.tolist() == labels


@pytest.mark.parametrize("num_classes", [None, 1000])
def test_class_names_that_tell_nothing_are_refused_with_the_cure(num_classes: int | None) -> None:
    dataset = Folders(["cat", "dog"])
    with pytest.raises(
        InputError, match=r"2 classes of its own \('cat', 'dog'\).*labels=…$"
    ) as said:
        Images.from_dataset(dataset, num_classes=num_classes)
    assert len(str(said.value)) <= 400
    images = Images.from_dataset(dataset, labels=[281, 207], num_classes=num_classes)
    assert images.labels.tolist() == [281, 207]
    assert [images.load(place).size for place in range(2)] == [(4, 4)] * 2
    named = Images.from_dataset(dataset, classes={207: "dog", 281: "cat"})
    assert named.labels.tolist() == [281, 207]


def test_labels_that_part_a_datasets_own_classes_are_refused() -> None:
    with pytest.raises(InputError, match="class 1 are given the classes 4 and 5; give labels in"):
        Images.from_dataset(Folders(["cat", "dog"], 2), labels=[3, 3, 4, 5])


def test_a_label_outside_the_models_classes_is_refused() -> None:
    with pytest.raises(InputError, match="label 2, which is outside the classes"):
        Images.from_dataset(Items([(noise(4, 4), 2)], targets=[2]), num_classes=2)


class Items(Dataset):
    """The items given."""

    def __init__(self, items: Any, **attributes: object) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


@pytest.mark.filterwarnings("ignore:reading all")
@pytest.mark.parametrize(
    "label", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), torch.tensor([3])]
)
def test_an_integer_of_any_kind_is_a_label(label: object) -> None:
    assert Images.from_dataset(Items([(noise(4, 4), label)])).labels.tolist() == [3]


@pytest.mark.filterwarnings("ignore:reading all")
@pytest.mark.parametrize(
    "label",
    [
        *(0.7, 1.0, float("nan"), float("inf"), True, "3", None, -1, 2**31, 2**70, 3 + 0j, [3]),
        *(np.float32(3), np.bool_(True), np.array([3, 4]), np.array(True), np.datetime64("now")),
        *(
            torch.tensor(3.0),
            torch.tensor(True),
            torch.tensor([1, 2]),
            torch.tensor(1.5).bfloat16(),
        ),
    ],
)
def test_a_label_that_is_no_integer_is_refused(label: object) -> None:
    with pytest.raises(
        InputError, match=r"^item 0 of the dataset has the label .*integer in 0\.\."
    ):
        Images.from_dataset(Items([(noise(4, 4), label)]))


@pytest.mark.parametrize("labels", [[0.5], [True], ["1"], [[0]], None])
def test_labels_that_are_no_integers_are_refused(labels: Any) -> None:
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=r"labels are .*; expected 1 integers"):
        Images.from_arrays(pixels, np.array(labels))


def test_lists_of_several_lengths_are_no_array() -> None:
    with pytest.raises(InputError, match="the labels cannot be made an array: "):
        as_array([[1], [1, 2]], "the labels")


PLANES = torch.from_numpy(noise(4, 5)).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    "picture",
    [
        PLANES.clone().requires_grad_(),
        PLANES.half(),
        PLANES.double(),
        (PLANES * 255).round().to(torch.uint8).requires_grad_(False),
        np.float16(noise(4, 5) / 255),
    ],
)
def test_a_picture_in_any_precision_is_taken(picture: object) -> None:
    images = Images.from_dataset(Items([(picture, 0)], targets=[0]))
    assert np.array_equal(images.load(0), noise(4, 5))


def test_bfloat16_pictures_are_taken_as_near_as_they_are() -> None:
    dataset = TensorDataset(PLANES[None].bfloat16(), torch.tensor([2]))
    images = Images.from_dataset(dataset, labels=[2])
    expected = (PLANES.bfloat16().double() * 255).round().permute(1, 2, 0)
    assert np.array_equal(images.load(0), expected.numpy())


class Stream(IterableDataset):
    """Items one after the other."""

    def __iter__(self) -> Iterator[object]:
        return iter(())


class SizedStream(Stream):
    """A stream that knows its length."""

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), r"a Stream has no length or no items by index.*give list\(dataset\)"),
        (SizedStream(), "a SizedStream has no length or no items"),
        (iter([]), "a list_iterator has no length"),
        ({1, 2}, "a set has no length or no items by index"),
        (DataLoader(Items([(noise(4, 4), 0)])), r"a DataLoader gives batches.*loader\.dataset"),
        (None, "a NoneType has no length"),
    ],
)
def test_what_is_not_taken_by_index_is_refused(dataset: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        length_of(dataset)


@pytest.mark.filterwarnings("ignore:reading all")
@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({1: (noise(4, 4), 0)}, "item 0 of the dataset cannot be read: KeyError: 0"),
        (["ab"], r"item 0 of the dataset is str \('ab'\); expected a picture and its label"),
        ([{"image": 1, "label": 2}], "item 0 of the dataset is dict"),
        ([(np.zeros((0, 4, 3), np.uint8), 0)], r"uint8 \(0, 4, 3\); expected a PIL picture"),
        ([(np.full((4, 4, 3), np.nan), 0)], "from nan to nan; expected a PIL picture"),
        ([(noise(4, 4) * 257.0, 0)], "leave out what normalises"),
        ([([[1], [1, 2]], 0)], "the picture of item 0, list .* cannot be made an array"),
        ([(torch.eye(3).to_sparse(), 0)], "cannot be made an array"),
        ([(noise(4, 4) * 1j, 0)], "leave out what normalises"),
        ([(Image.new("F", (2, 2)), 0)], "the picture of item 0 cannot be read: its levels"),
    ],
)
def test_items_that_are_no_labelled_pictures_are_refused_while_labels_are_read(
    items: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as said:
        Images.from_dataset(Items(items))
    assert "\n" not in str(said.value)
    assert len(str(said.value)) <= 400


def test_a_picture_that_a_dataset_cannot_read_is_named_while_labels_are_read() -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> object:
            raise OSError(f"image file {index} is truncated")

    with pytest.warns(UserWarning, match="reading all 1 items once"):
        with pytest.raises(InputError, match=r"item 0 .* OSError: image file 0 is truncated"):
            Images.from_dataset(Broken([0]))


@pytest.mark.parametrize(
    "names", [["/a.png"], [""], ["."], [".."], ["../a"], ["a//b"], ["a/./b"], ["a/"]]
)
def test_a_name_that_is_no_relative_path_is_refused(names: Any) -> None:
    classes: Mapping[int, str] = {0: "a"}
    with pytest.raises(InputError, match="expected a relative path, such as"):
        Images.from_dataset(Items([0]), labels=[0], names=names, classes=classes)
