"""Readers: what opens one picture of a list, given its global id and path."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from PIL import Image

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What PIL raises at files that are not pictures, or are damaged."""

_DAMAGED = (*UNREADABLE, ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError)
"""What the readers of its rarer formats raise, too."""


@contextmanager
def named_if_unreadable(
    path: str, said: tuple[type[Exception], ...] = (InputError,)
) -> Iterator[None]:
    """Name the picture that cannot be read.

    Args:
        path: name of the picture that is read inside.
        said: errors that say so already.

    Raises:
        InputError: it cannot be read.
    """
    try:
        yield
    except said:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"picture '{shown(path, 100)}' cannot be read: {shown(error, 180)}; remove it, or skip "
            "bad pictures"
        ) from error


def all_unreadable(paths: Sequence[str], first: InputError) -> InputError:
    """Return the error that names corrupt pictures: what the first one's says, and some more."""
    rest = list(paths[1:6])
    more = f" ({len(paths)} corrupt pictures, among them {rest})" if rest else ""
    return InputError(f"{first}{more}")


_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF


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


class Reader(ABC):
    """Opens the pictures of a list; worker processes get a copy of it."""

    @abstractmethod
    def __call__(self, image: int, path: str) -> Image.Image:
        """Return the picture of a global id and path, in RGB."""

    def check_header(self, image: int, path: str) -> None:  # noqa: B027  # nothing to check
        """Read as much of a picture as tells that it is one; by default nothing."""

    def content_sha256(self, images: Int64[np.ndarray, " image"]) -> str | None:
        """Return a hash over the pictures of these global ids; None where it is not known."""
        return None

    def picture_sha256(self, image: int, path: str) -> bytes:
        """Return the SHA-256 of a picture's content; by default of its size and values in RGB."""
        picture = self(image, path)
        return hashlib.sha256(str(picture.size).encode() + picture.tobytes()).digest()

    def place(self, image: int, path: str) -> Hashable:
        """Return where a picture is, equal for two lists of one picture; by default this reader."""
        return id(self), image


@dataclass(frozen=True, slots=True)
class FileReader(Reader):
    """Reads the files below a folder."""

    root: Path

    def __call__(self, image: int, path: str) -> Image.Image:
        """Read a file; a turn that its EXIF data asks for is not made."""
        with self._opened(path) as file:
            file.load()
            return in_rgb(file)

    def check_header(self, image: int, path: str) -> None:
        """Read a file's first bytes: format, size and mode."""
        with self._opened(path) as file:
            check_levels(file)

    def picture_sha256(self, image: int, path: str) -> bytes:
        """Return the SHA-256 of the file's bytes."""
        place = self.root / path
        _refuse_no_file(place)
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def place(self, image: int, path: str) -> Hashable:
        """Return the file, links followed."""
        return os.path.realpath(self.root / path)

    @contextmanager
    def _opened(self, path: str) -> Iterator[Image.Image]:
        place = self.root / path
        _refuse_no_file(place)
        try:
            with Image.open(place) as file:
                yield file
        except _DAMAGED as error:
            raise OSError(str(error) or type(error).__name__) from error


def _refuse_no_file(place: Path) -> None:
    if not stat.S_ISREG(place.stat().st_mode):  # a pipe would be waited for
        raise OSError("it is not a file")


@dataclass(frozen=True, slots=True, eq=False)
class ArrayReader(Reader):
    """Takes pictures from memory."""

    images: UInt8[np.ndarray, "image height width 3"]

    def __call__(self, image: int, path: str) -> Image.Image:
        """Take a picture."""
        return Image.fromarray(self.images[image])

    def place(self, image: int, path: str) -> Hashable:
        """Return what tells a picture by its values, wherever it was read from."""
        return self.content_sha256(np.array([image]))

    def content_sha256(self, images: Int64[np.ndarray, " image"]) -> str | None:
        """Return a hash over the sizes and values of pictures, in this order."""
        digest = hashlib.sha256(str(self.images.shape[1:]).encode())
        for image in images:
            digest.update(self.images[image].tobytes())
        return digest.hexdigest()


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

    def picture_sha256(self, image: int, path: str) -> bytes:
        """Return the SHA-256 of a picture of either list."""
        if image < self.shift:
            return self.first.picture_sha256(image, path)
        return self.second.picture_sha256(image - self.shift, path)

    def content_sha256(self, images: Int64[np.ndarray, " image"]) -> str | None:
        """Return a hash over the pictures of either list of which it is known."""
        first, second = images[images < self.shift], images[images >= self.shift] - self.shift
        parts = [self.first.content_sha256(first), self.second.content_sha256(second)]
        known = [one or "" for one in parts]
        return hashlib.sha256(" ".join(known).encode()).hexdigest() if any(known) else None

    def place(self, image: int, path: str) -> Hashable:
        """Return where a picture of either list is."""
        if image < self.shift:
            return self.first.place(image, path)
        return self.second.place(image - self.shift, path)


def in_rgb(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB, 8 bits a channel; transparency is dropped.

    Of 16 bits the upper 8 are kept, as Pillow does where there are three channels.

    Args:
        picture: picture in any mode.

    Raises:
        InputError: if its mode does not say which levels are black and white.
    """
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        check_levels(picture)
        return Image.fromarray(_upper_bits(picture)).convert("RGB")
    if "transparency" in picture.info:
        return picture.convert("RGBA").convert("RGB")
    return picture.convert("RGB")


def check_levels(picture: Image.Image) -> None:
    """Refuse a picture whose mode does not say which levels are black and white.

    Args:
        picture: picture, which need not be loaded.

    Raises:
        InputError: if it has signed, 32-bit or float levels.
    """
    mode, format = picture.mode, picture.format
    known = format in ("PNG", "PPM") if mode == "I" else mode != "F" and format != "FITS"
    if not known:
        raise InputError(
            f"its levels are of Pillow's mode {mode}, which does not say what is black and what is "
            "white; save it with 8 or 16 bits a channel"
        )


def _upper_bits(picture: Image.Image) -> UInt8[np.ndarray, "height width"]:
    levels = np.asarray(picture).astype(np.uint16)
    tags = getattr(picture, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS, (16,))[0]
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 2**bits - 1 - levels
    upper: UInt8[np.ndarray, "height width"] = (levels >> (bits - 8)).astype(np.uint8)
    return upper
