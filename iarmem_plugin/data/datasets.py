"""Torch datasets as labelled pictures: their items, their labels, and what their classes mean."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Integer
from PIL import Image

from iarmem_plugin.data.folders import some
from iarmem_plugin.data.labels import LARGEST_CLASS, folder_labels
from iarmem_plugin.data.readers import UNREADABLE, Reader, in_rgb
from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown


@runtime_checkable
class Items(Protocol):
    """A dataset as torch has them: a length, and an item for each index."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""


@dataclass(frozen=True, slots=True, eq=False)
class DatasetReader(Reader):
    """Takes pictures from a torch dataset, and compares its labels with the expected ones.

    Attributes:
        dataset: dataset with a length and items.
        labels: class of each item; None where the pictures have no classes.
        own: label that each item comes with, where the dataset counts classes of its own.
    """

    dataset: Items
    labels: Integer[np.ndarray, " image"] | None = None
    own: Integer[np.ndarray, " image"] | None = None

    def __call__(self, image: int, path: str) -> Image.Image:
        """Take a picture."""
        if self.labels is None or self.own is None:
            return picture_of(self.dataset, image)
        pixels, label = item_of(self.dataset, image)
        if label not in (self.own[image], self.labels[image]):
            raise InputError(
                f"item {image} of the dataset came with label {label}, and {self.own[image]} "
                "was expected; give labels in the dataset's order, and transforms that leave "
                "labels alone"
            )
        return pixels


def length_of(dataset: Any) -> int:
    """Return the number of a dataset's items.

    Raises:
        InputError: it has no length, or its items cannot be taken by index.
    """
    kinds = {kind.__name__ for kind in type(dataset).__mro__}
    if "DataLoader" in kinds:
        raise InputError(
            "a DataLoader gives batches, and pictures are taken one by one; give its dataset: "
            "Images.from_dataset(loader.dataset)"
        )
    try:
        count = len(dataset)
    except (TypeError, NotImplementedError):
        count = -1
    if count < 0 or "IterableDataset" in kinds or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"a {type(dataset).__name__} has no length or no items by index, and pictures are "
            "taken by index; give list(dataset), or a dataset with both"
        )
    return count


def item_of(dataset: Items, index: int) -> tuple[Image.Image, int]:
    """Return picture and label of a dataset's item.

    Args:
        dataset: dataset to take the item from.
        index: number of the item.

    Raises:
        InputError: if the item cannot be read, or is not a pair of a picture and a label.
    """
    item = _item(dataset, index)
    if not isinstance(item, Sequence) or isinstance(item, str | bytes) or len(item) < 2:
        raise InputError(
            f"item {index} of the dataset is {_kind(item)}; expected a picture and its label"
        )
    return _picture(item[0], index), _label(item[1], index)


def picture_of(dataset: Items, index: int) -> Image.Image:
    """Return the picture of a dataset's item, which is the picture alone or begins with it.

    Raises:
        InputError: if the item cannot be read, or does not begin with a picture.
    """
    item = _item(dataset, index)
    return _picture(item[0] if isinstance(item, tuple | list) and item else item, index)


def captions_of(
    dataset: Items, given: Sequence[str] | None, *, labelled: bool
) -> Sequence[str] | None:
    """Return the caption of each item, None where there are none.

    Args:
        dataset: dataset with a length and items.
        given: captions that the user gives; ``"items"`` reads every item for its own: the first
            text after picture and label, or after the picture where there are no labels. None
            takes the dataset's ``captions``, where it has some.
        labelled: whether the items have labels.

    Raises:
        InputError: an item has no caption.
    """
    if isinstance(given, str):
        if given != "items":
            raise InputError(f"captions={shown(given, 40)!r} was given; give a list, or 'items'")
        return [_caption(dataset, index, labelled=labelled) for index in range(len(dataset))]
    if given is not None:
        return given
    own = getattr(dataset, "captions", None)
    if not isinstance(own, Sequence) or len(own) != len(dataset):
        return None
    return own if all(isinstance(one, str) for one in own) else None


def _caption(dataset: Items, index: int, *, labelled: bool) -> str:
    item = _item(dataset, index)
    rest = item[2 if labelled else 1 :] if isinstance(item, tuple | list) else ()
    for one in rest:
        if isinstance(one, str):
            return one
    raise InputError(f"item {index} of the dataset has no caption; give captions=[…]")


def _item(dataset: Items, index: int) -> Any:
    try:
        return dataset[index]
    except (*UNREADABLE, LookupError, NotImplementedError) as error:
        raise InputError(
            f"item {index} of the dataset cannot be read: {type(error).__name__}: "
            f"{shown(error, 150)}"
        ) from error


def labels_of(
    dataset: Items,
    given: Sequence[int] | np.ndarray | None,
    *,
    num_classes: int | None,
    classes: Mapping[int, str] | None,
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Return the class of each item, and the label that each comes with.

    Args:
        dataset: dataset with a length and items.
        given: class of each item, where the user says so.
        num_classes: number of the model's classes, where it is known.
        classes: name of each class by label, where the user says so.

    Returns:
        the classes, the labels of the items, and the names of the classes where they are known.

    Raises:
        InputError: the dataset counts classes of its own, and which they are cannot be told; or
            what is given for items of one class differs.
    """
    own = own_labels(dataset)
    if given is not None:
        labels = as_array(given, "the labels")
        return labels, _renamed(own, labels), {}
    if own is None:
        own = _read_labels(dataset)
    names = class_names(dataset)
    if names is None:
        return own, own, {}
    table = _meant(names, own, num_classes, classes)
    named = {label: names[number] for number, label in table.items()}
    return np.array([table[number] for number in own.tolist()], np.int64), own, named


def own_labels(dataset: Any) -> Integer[np.ndarray, " image"] | None:
    """Return a dataset's ``targets`` or ``labels``; of a part or a chain of datasets, theirs.

    They are not taken where a ``target_transform`` may change them.
    """
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        found = _integers(getattr(dataset, name, ()))
        if found is not None and found.shape == (len(dataset),):
            return found
    if (indices := _integers(getattr(dataset, "indices", None))) is not None:
        whole = own_labels(getattr(dataset, "dataset", ()))
        return None if whole is None else whole[indices]
    parts = [own_labels(one) for one in getattr(dataset, "datasets", ())]
    known = [one for one in parts if one is not None]
    return np.concatenate(known) if known and len(known) == len(parts) else None


def class_names(dataset: Any) -> dict[int, str] | None:
    """Return the names by which a dataset counts its own classes, or None.

    Raises:
        InputError: it is a chain of datasets that count differently.
    """
    for name in ("wnid_to_idx", "class_to_idx"):  # the first is that of torchvision's ImageNet
        if isinstance(table := getattr(dataset, name, None), Mapping):
            return {int(number): str(name) for name, number in table.items()}
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and all(isinstance(name, str) for name in names):
        return dict(enumerate(names))
    if hasattr(dataset, "indices"):
        return class_names(getattr(dataset, "dataset", None))
    parts = [class_names(one) for one in getattr(dataset, "datasets", ())]
    if any(one != parts[0] for one in parts):
        raise InputError(
            "the datasets that were put together count their classes differently; give labels=…"
        )
    return parts[0] if parts else None


def as_array(value: Any, name: str) -> np.ndarray:
    """Return an array or tensor as an array, wherever it lies and whatever its precision.

    Args:
        value: array, tensor, or lists of numbers.
        name: what it is, for messages.

    Raises:
        InputError: it is neither.
    """
    try:
        if not hasattr(value, "detach"):
            return np.asarray(value)
        tensor = value.detach().cpu()
        return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{name} cannot be made an array: {shown(error, 150)}") from error


def _read_labels(dataset: Items) -> Int64[np.ndarray, " image"]:
    """Return the labels of all items, which are read for them, with a warning."""
    message = f"reading all {len(dataset)} items once for their labels; give labels=…"
    warnings.warn(message, stacklevel=5)  # where Images.from_dataset is called
    return np.array([item_of(dataset, index)[1] for index in range(len(dataset))], np.int64)


def _renamed(own: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    """Return the labels that items come with, where the user gives their classes other numbers."""
    if own is None or labels.shape != own.shape or labels.dtype.kind not in "iu":
        return labels
    pairs = np.unique(np.stack((own, labels)).astype(np.int64), axis=1)
    twice = np.flatnonzero(np.diff(pairs[0]) == 0)
    if len(twice):
        one, other = pairs[:, twice[0]], pairs[:, twice[0] + 1]
        raise InputError(
            f"items of the dataset's class {one[0]} are given the classes {one[1]} and {other[1]}; "
            "give labels in the dataset's order, one class for each of its own"
        )
    return own


def _meant(
    names: Mapping[int, str],
    own: np.ndarray,
    num_classes: int | None,
    classes: Mapping[int, str] | None,
) -> dict[int, int]:
    """Return the model's class for each of a dataset's own that has items."""
    used = sorted(set(own.tolist()))
    if unnamed := [number for number in used if number not in names]:
        raise InputError(
            f"the dataset has items of its class {unnamed[0]}, which is not among the "
            f"{len(names)} that it names; give labels=…"
        )
    given = None if classes is None else {name: label for label, name in classes.items()}
    told = given is not None and not {names[number] for number in used} <= given.keys()
    if told or (len(names) == num_classes and not all(map(_is_index, names.values()))):
        return {number: number for number in used}  # the user names them, or they are complete
    try:
        table = folder_labels(
            [names[number] for number in used],
            folders=sorted(names.values()),
            num_classes=num_classes,
            given=given,
        )
    except InputError as error:
        raise InputError(
            f"the dataset counts {len(names)} classes of its own ({some(list(names.values()))}), "
            "and which of the model's they are cannot be told; give the number of the model's as "
            "num_classes=…, or the class of each item as labels=…"
        ) from error
    return {number: table[names[number]] for number in used}


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _integers(value: Any) -> np.ndarray | None:
    try:
        found = as_array(value, "labels")
    except InputError:  # lists of several lengths
        return None
    return found if found.dtype.kind in "iu" else None


def _label(value: Any, index: int) -> int:
    """Return an item's label, which must be an integer, not only be equal to one."""
    try:
        label = -1 if "bool" in str(getattr(value, "dtype", type(value))) else operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        label = -1
    if not 0 <= label <= LARGEST_CLASS:
        raise InputError(
            f"item {index} of the dataset has the label {_kind(value)}; expected an integer in "
            f"0..{LARGEST_CLASS}"
        )
    return label


def _picture(value: Any, index: int) -> Image.Image:
    if isinstance(value, Image.Image):
        return _in_rgb(value, index)
    pixels = as_array(value, f"the picture of item {index}, {_kind(value)},")
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and not isinstance(value, np.ndarray):
        pixels = np.moveaxis(pixels, 0, 2)  # a tensor's channels come first
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise InputError(f"the picture of item {index} is {_kind(value)}; expected {_EXPECTED}")
    if pixels.dtype.kind == "f" and 0 <= pixels.min() <= pixels.max() <= 1:
        pixels = (pixels.astype(np.promote_types(pixels.dtype, np.float32)) * 255).round()
        pixels = pixels.astype(np.uint8)
    if pixels.dtype != np.uint8:
        reach = shown(f"from {pixels.min()} to {pixels.max()}", 80)
        raise InputError(
            f"the picture of item {index} is {_kind(value)} {reach}; expected {_EXPECTED}; "
            "leave out what normalises the pictures"
        )
    return Image.fromarray(pixels).convert("RGB")


def _in_rgb(picture: Image.Image, index: int) -> Image.Image:
    try:
        return in_rgb(picture)
    except UNREADABLE as error:
        raise InputError(f"the picture of item {index} cannot be read: {error}") from error


_EXPECTED = (
    "a PIL picture, uint8 (height, width, 3), a uint8 tensor (3, height, width), or floats in "
    "[0, 1]"
)


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None or len(shape) == 0:
        return shown(f"{type(value).__name__} ({value!r:.40})", 80)
    return shown(f"{value.dtype} {tuple(shape)}", 80)
