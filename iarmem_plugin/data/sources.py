"""Sources: a folder, a list, an .npz file, arrays or a dataset, as paths, labels and a reader."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int, Int32, Integer

from iarmem_plugin.data.labels import folder_labels, named, read_classes, refuse_labels
from iarmem_plugin.data.readers import (
    UNREADABLE,
    ArrayReader,
    DatasetReader,
    FileReader,
    Items,
    Reader,
    item_of,
)
from iarmem_plugin.errors import InputError

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
NPZ_ARRAYS = ("images", "labels", "names", "classes")
_LABEL = re.compile(r"\s*(\d{1,18}\s*)?")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a list of pictures is made from.

    Attributes:
        paths: relative, '/'-separated, unique.
        labels: class of each picture.
        classes: name of each class that has pictures, by label.
        reader: opens the picture of a position and path.
    """

    paths: tuple[str, ...]
    labels: Int32[np.ndarray, " image"]
    classes: Mapping[int, str]
    reader: Reader


def from_folder(root: Path, *, num_classes: int | None, classes: Path | str | None) -> Source:
    """List the pictures of a folder with one folder for each class; see `Images.from_folder`."""
    pictures = dict.fromkeys(pictures_in(root))
    return _from_files(root, pictures, num_classes=num_classes, classes=classes)


def from_list(
    file: Path, *, root: Path, num_classes: int | None, classes: Path | str | None
) -> Source:
    """List the pictures that a text file names, in its order; see `Images.from_list`."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the one that the list's paths are in")
    return _from_files(root, read_list(file, root), num_classes=num_classes, classes=classes)


def from_npz(path: Path | str, *, num_classes: int | None, classes: Path | str | None) -> Source:
    """Read pictures and labels from an .npz file; see `Images.from_npz`."""
    arrays = _read_npz(path)
    names = _names_in(arrays, "names", path)
    table = dict(enumerate(_names_in(arrays, "classes", path) or ()))
    if classes is not None:
        table = named(read_classes(Path(classes), num_classes=num_classes))
    source = from_arrays(arrays["images"], arrays["labels"], names=names, classes=table or None)
    refuse_labels(source.labels, None if num_classes is None else range(num_classes), source.paths)
    return source


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str] | None,
    classes: Mapping[int, str] | None,
) -> Source:
    """Wrap pictures in memory; see `Images.from_arrays`."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"images are {images.dtype} {images.shape}; expected uint8 (image, height, width, "
            "3), RGB"
        )
    paths, table = _named(len(images), labels, names, classes)
    return Source(paths, labels.astype(np.int32), table, ArrayReader(images))


def from_dataset(
    dataset: Items,
    *,
    labels: Sequence[int] | Int[np.ndarray, " image"] | None,
    names: Sequence[str] | None,
    classes: Mapping[int, str] | None,
) -> Source:
    """Take pictures from a torch dataset when they are needed; see `Images.from_dataset`."""
    found = _labels_of(dataset) if labels is None else np.asarray(labels)
    paths, table = _named(len(dataset), found, names, classes)
    return Source(paths, found.astype(np.int32), table, DatasetReader(dataset, found))


def pictures_in(root: Path) -> tuple[str, ...]:
    """Return the paths of a folder's pictures, sorted, '/'-separated and relative to it.

    Links are followed; files and folders whose name begins with a dot are left out.

    Args:
        root: folder with one folder for each class.

    Raises:
        InputError: if it is not a folder, holds no pictures, or holds some outside any class
            folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a folder with one folder a class")
    paths = sorted(path.relative_to(root).as_posix() for path in _pictures(root, frozenset()))
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise InputError(
            f"{root} holds pictures outside any class folder, such as {loose[0]!r}; "
            "put each picture into the folder of its class"
        )
    if not paths:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise InputError(f"{root} holds no pictures ({suffixes}) in class folders")
    return tuple(paths)


def read_list(file: Path, root: Path) -> dict[str, int | None]:
    """Read a text file that names a picture a line, with a label after a tab or without.

    Empty lines and lines that begin with ``#`` are left out.

    Args:
        file: list of the paths, in UTF-8.
        root: folder that the paths are in, and relative to.

    Returns:
        the label of each path, in the order of the file; paths are relative to the root.

    Raises:
        InputError: naming the line that cannot be used.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # with a byte order mark or not
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {file} cannot be read: {error}") from error
    found: dict[str, int | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        written, _, label = line.partition("\t")
        path = _relative(written.strip(), root)
        if path is None or path in found or not _LABEL.fullmatch(label):
            raise InputError(
                f"line {number} of the list {file} is {line!r}; expected a path inside {root}, "
                "named once, and after it nothing or a tab and a class index"
            )
        found[path] = int(label) if label.strip() else None
    if not found:
        raise InputError(f"the list {file} names no pictures; write one path a line")
    return found


def _from_files(
    root: Path,
    given: Mapping[str, int | None],
    *,
    num_classes: int | None,
    classes: Path | str | None,
) -> Source:
    """Label files by what is given with them, or else by their class folders."""
    paths = tuple(given)
    used = sorted({_folder(path) for path, label in given.items() if label is None})
    names = None if classes is None else read_classes(Path(classes), num_classes=num_classes)
    folders = _class_folders(root)
    table = folder_labels(used, folders=folders, num_classes=num_classes, given=names)
    labels = np.array(
        [table[_folder(path)] if label is None else label for path, label in given.items()]
    )
    refuse_labels(labels, None if num_classes is None else range(num_classes), paths)
    known = {label: name for name, label in table.items()}
    known = {**_class_numbers(labels), **known}
    return Source(paths, labels.astype(np.int32), known, FileReader(root))


def _class_folders(root: Path) -> list[str]:
    """Return the names of a folder's folders, sorted; hidden ones are left out."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _folder(path: str) -> str:
    folder, _, name = path.partition("/")
    if not name:
        raise InputError(
            f"picture {path!r} of the list is in no class folder; write its label after a tab"
        )
    return folder


def _relative(written: str, root: Path) -> str | None:
    path = os.path.normpath(root / written)
    relative = PurePosixPath(Path(os.path.relpath(path, os.path.normpath(root))).as_posix())
    return None if relative.parts[:1] in ((), ("..",)) else str(relative)


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


def _read_npz(path: Path | str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in NPZ_ARRAYS if name in file}
    except (*UNREADABLE, BadZipFile, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an .npz file of pictures: {error}") from error
    if missing := {"images", "labels"} - arrays.keys():
        raise InputError(f"{path} has no array {' or '.join(sorted(missing))!r}")
    return arrays


def _names_in(arrays: Mapping[str, np.ndarray], name: str, path: Path | str) -> list[str] | None:
    """Return an array of names, None where it is absent."""
    if name not in arrays:
        return None
    if arrays[name].ndim != 1:
        raise InputError(
            f"the array {name!r} of {path} has shape {arrays[name].shape}; expected a list of names"
        )
    return [str(one) for one in arrays[name]]


def _labels_of(dataset: Items) -> Integer[np.ndarray, " image"]:
    """Return a dataset's ``targets`` or ``labels``, or else those of its items, with a warning.

    The attributes are not taken where a ``target_transform`` may change them.
    """
    transformed = getattr(dataset, "target_transform", None) is not None
    for name in () if transformed else ("targets", "labels"):
        try:
            found = np.asarray(getattr(dataset, name, ()))
        except ValueError:  # lists of several lengths
            continue
        if found.shape == (len(dataset),) and found.dtype.kind in "iu":
            return found
    message = f"reading all {len(dataset)} items once for their labels; give labels=…"
    warnings.warn(message, stacklevel=4)  # where Images.from_dataset is called
    return np.array([item_of(dataset, index)[1] for index in range(len(dataset))], np.int64)


def _named(
    count: int,
    labels: np.ndarray,
    names: Sequence[str] | None,
    classes: Mapping[int, str] | None,
) -> tuple[tuple[str, ...], Mapping[int, str]]:
    """Return the names of pictures and of their classes: numbers where none are given."""
    numbers = (f"{number:06d}" for number in range(count))
    paths = tuple(numbers if names is None else names)
    _refuse_misfits(count, labels, paths)
    refuse_labels(labels, None if classes is None else set(classes), paths)
    return paths, dict(classes) if classes else _class_numbers(labels)


def _class_numbers(labels: Integer[np.ndarray, " image"]) -> dict[int, str]:
    return {int(label): str(label) for label in np.unique(labels)}


def _refuse_misfits(count: int, labels: np.ndarray, paths: tuple[str, ...]) -> None:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(f"labels are {labels.dtype} {labels.shape}; expected {count} integers")
    if count == 0 or len(paths) != count or len(set(paths)) != count:
        raise InputError(
            f"{count} pictures and {len(set(paths))} different names were given; "
            "give at least one picture, and a unique name for each"
        )
