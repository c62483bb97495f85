"""Readers: what opens one picture of a list, given its global id and path."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt8
from PIL import Image

from iarmem_plugin.errors import InputError

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What PIL raises at files that are not pictures, or are damaged."""


@runtime_checkable
class Pictures(Protocol):
    """A list of labelled pictures that are read one at a time, such as `Images`.

    Attributes:
        paths: name of each picture.
        labels: class of each picture.
        ids: global id of each picture.
    """

    @property
    def paths(self) -> tuple[str, ...]: ...  # noqa: D102  # see the class

    @property
    def labels(self) -> Int32[np.ndarray, " image"]: ...  # noqa: D102  # see the class

    @property
    def ids(self) -> Int64[np.ndarray, " image"]: ...  # noqa: D102  # see the class

    def __len__(self) -> int:
        """Return the number of pictures."""

    def load(self, index: int) -> Image.Image:
        """Read the picture at a position of the list, in RGB."""


@runtime_checkable
class Items(Protocol):
    """A dataset as torch has them: a length, and an item for each index."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""


class Reader(ABC):
    """Opens the pictures of a list; worker processes get a copy of it."""

    @abstractmethod
    def __call__(self, image: int, path: str) -> Image.Image:
        """Return the picture of a global id and path, in RGB."""

    def check_header(self, image: int, path: str) -> None:  # noqa: B027  # nothing to check
        """Read as much of a picture as tells that it is one; by default nothing."""


@dataclass(frozen=True, slots=True)
class FileReader(Reader):
    """Reads the files below a folder."""

    root: Path

    def __call__(self, image: int, path: str) -> Image.Image:
        """Read a file."""
        with Image.open(self.root / path) as file:
            file.load()
            return in_rgb(file)

    def check_header(self, image: int, path: str) -> None:
        """Read a file's first bytes: format and size."""
        with Image.open(self.root / path):
            pass


@dataclass(frozen=True, slots=True, eq=False)
class ArrayReader(Reader):
    """Takes pictures from memory."""

    images: UInt8[np.ndarray, "image height width 3"]

    def __call__(self, image: int, path: str) -> Image.Image:
        """Take a picture."""
        return Image.fromarray(self.images[image])


@dataclass(frozen=True, slots=True, eq=False)
class DatasetReader(Reader):
    """Takes pictures from a torch dataset, and compares its labels with the expected ones."""

    dataset: Items
    labels: Integer[np.ndarray, " image"]

    def __call__(self, image: int, path: str) -> Image.Image:
        """Take a picture."""
        pixels, label = item_of(self.dataset, image)
        if label != self.labels[image]:
            raise InputError(
                f"item {image} of the dataset came with label {label}, and {self.labels[image]} "
                "was expected; give labels=…, and transforms that leave labels alone"
            )
        return pixels


@dataclass(frozen=True, slots=True)
class JoinedReader(Reader):
    """Reads from two lists; the second's ids begin at `shift`."""

    first: Reader
    second: Reader
    shift: int

    def __call__(self, image: int, path: str) -> Image.Image:
        """Read a picture of either list."""
        if image < self.shift:
            return self.first(image, path)
        return self.second(image - self.shift, path)

    def check_header(self, image: int, path: str) -> None:
        """Check a picture of either list."""
        if image < self.shift:
            return self.first.check_header(image, path)
        return self.second.check_header(image - self.shift, path)


def item_of(dataset: Items, index: int) -> tuple[Image.Image, int]:
    """Return picture and label of a dataset's item.

    Args:
        dataset: dataset to take the item from.
        index: number of the item.

    Raises:
        InputError: if the item is not a pair of a picture and a label.
    """
    item = dataset[index]
    if not isinstance(item, Sequence) or len(item) < 2:
        raise InputError(
            f"item {index} of the dataset is {_kind(item)}; expected a picture and its label"
        )
    try:
        label = int(item[1])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"item {index} of the dataset has the label {_kind(item[1])}; expected an integer"
        ) from error
    return _picture(item[0], index), label


def in_rgb(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB; transparency is dropped."""
    if "transparency" in picture.info:
        return picture.convert("RGBA").convert("RGB")
    return picture.convert("RGB")


def _picture(value: Any, index: int) -> Image.Image:
    if isinstance(value, Image.Image):
        return in_rgb(value)
    pixels = np.asarray(value)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and not isinstance(value, np.ndarray):
        pixels = np.moveaxis(pixels, 0, 2)  # a tensor's channels come first
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise InputError(f"the picture of item {index} is {_kind(value)}; expected {_EXPECTED}")
    if pixels.dtype.kind == "f" and 0 <= pixels.min() <= pixels.max() <= 1:
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        reach = f"from {pixels.min()} to {pixels.max()}"
        raise InputError(
            f"the picture of item {index} is {_kind(value)} {reach}; expected {_EXPECTED}; "
            "leave out what normalises the pictures"
        )
    return Image.fromarray(pixels).convert("RGB")


_EXPECTED = (
    "a PIL picture, uint8 (height, width, 3), a uint8 tensor (3, height, width), or floats in "
    "[0, 1]"
)


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return f"{type(value).__name__} ({value!r:.40})"
    return f"{value.dtype} {tuple(shape)}"
