"""Image sources: labelled pictures with stable ids, read one at a time."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8
from PIL import Image

from iarmem_plugin.augmentation import refuse_identical_views
from iarmem_plugin.class_labels import LARGEST_CLASS, folder_labels, named, read_classes
from iarmem_plugin.errors import InputError
from iarmem_plugin.views import Views

__all__ = ["Images", "Views", "open_images", "refuse_identical_views"]

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """A list of labelled pictures with stable ids; pictures are read one at a time.

    Attributes:
        paths: relative, '/'-separated, unique.
        labels: the class of each picture.
        classes: the name of each class that has pictures, by label.
        ids: global id of each picture: its position in the list it was first part of.
        reader: returns the picture of a global id and path.
        skipped: paths of corrupt pictures left out by `verify`.
    """

    paths: tuple[str, ...]
    labels: Int32[np.ndarray, " image"]
    classes: Mapping[int, str]
    ids: Int64[np.ndarray, " image"]
    reader: Callable[[int, str], Image.Image]
    skipped: tuple[str, ...] = ()

    @classmethod
    def from_folder(
        cls, path: Path | str, *, num_classes: int | None = None, classes: Path | str | None = None
    ) -> Images:
        """List the pictures of a folder with one folder for each class.

        Links are followed; files and folders whose name begins with a dot are left out.

        Args:
            path: holds folders, which hold pictures.
            num_classes: number of the model's classes; where it equals the number of folders,
                a folder's class is the rank of its name.
            classes: file that maps folder names to classes: a JSON object, or lines of a name
                and an index. Without it, and with folders missing, names must be class indices.

        Raises:
            InputError: if there are no pictures, or a folder's class cannot be told.
        """
        root = Path(path)
        if not root.is_dir():
            raise InputError(f"{root} is not a folder; give a folder with one folder a class")
        paths = _picture_paths(root)
        folders = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
        used = sorted({name.split("/", 1)[0] for name in paths})
        given = None if classes is None else read_classes(Path(classes))
        table = folder_labels(used, folders=folders, num_classes=num_classes, given=given)
        labels = np.array([table[name.split("/", 1)[0]] for name in paths], np.int32)
        images = cls(
            paths, labels, {table[name]: name for name in used}, _count(paths), _FromFolder(root)
        )
        return images.check_labels(num_classes)

    @classmethod
    def from_npz(
        cls, path: Path | str, *, num_classes: int | None = None, classes: Path | str | None = None
    ) -> Images:
        """Read the arrays ``images`` and ``labels``, and where present ``names``, ``classes``.

        Raises:
            InputError: if the file is none, lacks an array, or its labels are outside the classes.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {k: file[k] for k in ("images", "labels", "names", "classes") if k in file}
        except (*_UNREADABLE, BadZipFile, AttributeError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read as an .npz file of pictures: {error}"
            ) from error
        if missing := {"images", "labels"} - arrays.keys():
            raise InputError(f"{path} has no array {' or '.join(sorted(missing))!r}")
        names = _listed(arrays, "names", path)
        table = dict(enumerate(_listed(arrays, "classes", path) or ()))
        if classes is not None:
            table = named(read_classes(Path(classes)))
        images = cls.from_arrays(
            arrays["images"], arrays["labels"], names=names, classes=table or None
        )
        return images.check_labels(num_classes)

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        names: Sequence[str] | None = None,
        classes: Mapping[int, str] | None = None,
    ) -> Images:
        """Wrap pictures in memory.

        Args:
            images: uint8, dims (image, height, width, 3), RGB.
            labels: integers, dims (image).
            names: one unique name a picture; numbers by default.
            classes: name of each class by label; labels outside it are refused.

        Raises:
            InputError: if the arrays do not fit each other.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(
                f"images are {images.dtype} {images.shape}; expected uint8 (image, height, width, "
                "3), RGB"
            )
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise InputError(
                f"labels are {labels.dtype} {labels.shape}; expected {len(images)} integers"
            )
        paths = tuple(f"{i:06d}" for i in range(len(images))) if names is None else tuple(names)
        if len(images) == 0 or len(paths) != len(images) or len(set(paths)) != len(paths):
            raise InputError(
                f"{len(images)} pictures and {len(set(paths))} different names were given; "
                "give at least one picture, and a unique name for each"
            )
        known = None if classes is None else dict(classes)
        _refuse_labels(labels, set(known) if known is not None else None, paths)
        table = known or {int(label): str(label) for label in np.unique(labels)}
        return cls(paths, labels.astype(np.int32), table, _count(paths), _FromArray(images))

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __repr__(self) -> str:
        """Show the numbers, not the paths."""
        return f"Images({len(self)} pictures, {len(np.unique(self.labels))} classes)"

    def load(self, index: int) -> Image.Image:
        """Read one picture, by its position in this list.

        Returns:
            the picture in RGB.

        Raises:
            InputError: if it is corrupt; the message names it.
        """
        path = self.paths[index]
        try:
            return self.reader(int(self.ids[index]), path)
        except _UNREADABLE as error:
            raise InputError(
                f"picture {path!r} cannot be read: {error}; remove it, or skip bad pictures"
            ) from error

    def subset(self, indices: Sequence[int] | Int[np.ndarray, " subset"]) -> Images:
        """Return the pictures at these positions, in this order, with their global ids.

        Raises:
            InputError: if a position is outside the list or given twice.
        """
        chosen = np.asarray(indices, np.int64)
        outside = (chosen < 0) | (chosen >= len(self))
        if outside.any() or len(np.unique(chosen)) != len(chosen):
            raise InputError(f"positions must be different and in 0..{len(self) - 1}")
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            labels=self.labels[chosen],
            ids=self.ids[chosen],
        )

    def join(self, other: Images) -> Images:
        """Return these pictures and another list's; the other's ids are moved past these."""
        shift = int(self.ids.max(initial=-1)) + 1
        return replace(
            self,
            paths=self.paths + other.paths,
            labels=np.concatenate((self.labels, other.labels)),
            classes={**other.classes, **self.classes},
            ids=np.concatenate((self.ids, other.ids + shift)),
            reader=_FromEither(self.reader, other.reader, shift),
            skipped=self.skipped + other.skipped,
        )

    def verify(self, on_bad: Literal["error", "skip"] = "error") -> Images:
        """Read every picture once, before anything expensive is started.

        Args:
            on_bad: ``"error"`` refuses corrupt pictures; ``"skip"`` leaves them out.

        Returns:
            the readable pictures; the others are listed in `skipped`.

        Raises:
            InputError: naming the corrupt pictures, or if none is readable.
        """
        bad = {index: error for index in range(len(self)) if (error := self._error(index))}
        if bad and (on_bad == "error" or len(bad) == len(self)):
            first = next(iter(bad.values()))
            rest = [self.paths[index] for index in bad][1:6]
            more = f" ({len(bad)} corrupt pictures, among them {rest})" if rest else ""
            raise InputError(f"{first}{more}")
        good = self.subset([index for index in range(len(self)) if index not in bad])
        return replace(good, skipped=self.skipped + tuple(self.paths[index] for index in bad))

    def check_labels(self, num_classes: int | None) -> Images:
        """Return these images if all labels are in 0..num_classes-1 (None: any label from 0).

        Raises:
            InputError: naming the first picture with another label.
        """
        _refuse_labels(
            self.labels, None if num_classes is None else set(range(num_classes)), self.paths
        )
        return self

    @property
    def digest(self) -> str:
        """Return the sha256 of the paths in order with their labels."""
        lines = (f"{path}\0{label}\n" for path, label in zip(self.paths, self.labels, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _error(self, index: int) -> InputError | None:
        try:
            self.load(index)
        except InputError as error:
            return error
        return None


def open_images(
    path: Path | str, *, num_classes: int | None = None, classes: Path | str | None = None
) -> Images:
    """Open a folder or an .npz file of pictures; see `Images.from_folder`, `Images.from_npz`.

    Raises:
        InputError: if it is neither, or cannot be used.
    """
    source = Path(path)
    if source.is_dir():
        return Images.from_folder(source, num_classes=num_classes, classes=classes)
    if source.suffix == ".npz" and source.is_file():
        return Images.from_npz(source, num_classes=num_classes, classes=classes)
    problem = "is neither a folder nor an .npz file" if source.exists() else "does not exist"
    raise InputError(f"{source} {problem}; give a folder with one folder a class, or an .npz file")


@dataclass(frozen=True, slots=True)
class _FromFolder:
    root: Path

    def __call__(self, image: int, path: str) -> Image.Image:
        with Image.open(self.root / path) as file:
            file.load()
            if "transparency" in file.info:
                return file.convert("RGBA").convert("RGB")
            return file.convert("RGB")


@dataclass(frozen=True, slots=True, eq=False)
class _FromArray:
    images: UInt8[np.ndarray, "image height width 3"]

    def __call__(self, image: int, path: str) -> Image.Image:
        return Image.fromarray(self.images[image])


@dataclass(frozen=True, slots=True)
class _FromEither:
    first: Callable[[int, str], Image.Image]
    second: Callable[[int, str], Image.Image]
    shift: int

    def __call__(self, image: int, path: str) -> Image.Image:
        if image < self.shift:
            return self.first(image, path)
        return self.second(image - self.shift, path)


def _picture_paths(root: Path) -> tuple[str, ...]:
    paths = sorted(path.relative_to(root).as_posix() for path in _pictures(root, frozenset()))
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise InputError(
            f"{root} holds pictures outside any class folder, such as {loose[0]!r}; "
            "put each picture into the folder of its class"
        )
    if not paths:
        kinds = ", ".join(sorted(PICTURE_SUFFIXES))
        raise InputError(f"{root} holds no pictures ({kinds}) in class folders")
    return tuple(paths)


def _pictures(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:  # a link that leads back
        return
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"folder {folder} cannot be listed: {error}") from error
    for entry in entries:
        if entry.is_dir():
            yield from _pictures(entry, above | {here})
        elif entry.suffix.lower() in PICTURE_SUFFIXES and (entry.is_file() or entry.is_symlink()):
            yield entry  # a link to nothing is listed, and refused like a corrupt picture


def _listed(arrays: Mapping[str, np.ndarray], name: str, path: Path | str) -> list[str] | None:
    if name not in arrays:
        return None
    if arrays[name].ndim != 1:
        raise InputError(
            f"the array {name!r} of {path} has shape {arrays[name].shape}; expected a list of names"
        )
    return [str(one) for one in arrays[name]]


def _refuse_labels(labels: np.ndarray, known: set[int] | None, paths: tuple[str, ...]) -> None:
    for label, path in zip(labels.tolist(), paths, strict=True):
        if not 0 <= label <= LARGEST_CLASS or (known is not None and label not in known):
            expected = f"0..{LARGEST_CLASS}" if known is None else f"one of {len(known)} classes"
            raise InputError(
                f"picture {path!r} has label {label}, which is outside the classes; "
                f"expected {expected}"
            )


def _count(paths: tuple[str, ...]) -> Int64[np.ndarray, " image"]:
    return np.arange(len(paths), dtype=np.int64)
