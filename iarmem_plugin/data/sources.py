"""Sources: a folder, a list, an .npz file, arrays or a dataset, as paths, labels and a reader."""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Integer

from iarmem_plugin.data.datasets import DatasetReader, Items, as_array, labels_of, length_of
from iarmem_plugin.data.folders import class_folders, list_folder
from iarmem_plugin.data.labels import folder_labels, named, read_classes, refuse_labels
from iarmem_plugin.data.lists import read_list
from iarmem_plugin.data.npz import read_npz
from iarmem_plugin.data.readers import ArrayReader, FileReader, Reader
from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

NPZ_ARRAYS = ("images", "labels", "names", "classes")


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
    listing = list_folder(root)
    for notice in listing.notices():
        warnings.warn(f"{shown(root)}: {notice}", stacklevel=3)  # the caller of Images.from_folder
    pictures = dict.fromkeys(listing.pictures)
    return _from_files(root, pictures, listing.folders, num_classes=num_classes, classes=classes)


def from_list(
    file: Path, *, root: Path, num_classes: int | None, classes: Path | str | None
) -> Source:
    """List the pictures that a text file names, in its order; see `Images.from_list`."""
    if not root.is_dir():
        raise InputError(
            f"{shown(root)} is not a folder; give the one that the list's paths are in"
        )
    pictures, folders = read_list(file, root), class_folders(root)
    return _from_files(root, pictures, folders, num_classes=num_classes, classes=classes)


def from_npz(path: Path | str, *, num_classes: int | None, classes: Path | str | None) -> Source:
    """Read pictures and labels from an .npz file; see `Images.from_npz`."""
    arrays = read_npz(Path(path), NPZ_ARRAYS)
    if missing := {"images", "labels"} - arrays.keys():
        raise InputError(f"{shown(path)} has no array {' or '.join(sorted(missing))!r}")
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
    images, labels = as_array(images, "the pictures"), as_array(labels, "the labels")
    sides = images.shape[1:]
    if images.dtype != np.uint8 or len(sides) != 3 or sides[2] != 3 or not all(sides):
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
    num_classes: int | None,
) -> Source:
    """Take pictures from a torch dataset when they are needed; see `Images.from_dataset`."""
    count = length_of(dataset)
    found, own, known = labels_of(dataset, labels, num_classes=num_classes, classes=classes)
    paths, table = _named(count, found, names, classes)
    refuse_labels(found, None if num_classes is None else range(num_classes), paths)
    found = found.astype(np.int32)
    return Source(paths, found, {**table, **known}, DatasetReader(dataset, found, own))


def _from_files(
    root: Path,
    given: Mapping[str, int | None],
    folders: Sequence[str],
    *,
    num_classes: int | None,
    classes: Path | str | None,
) -> Source:
    """Label files by what is given with them, or else by their class folders."""
    paths = tuple(given)
    used = sorted({_folder(path) for path, label in given.items() if label is None})
    names = None if classes is None else read_classes(Path(classes), num_classes=num_classes)
    table = folder_labels(used, folders=folders, num_classes=num_classes, given=names)
    labels = np.array(
        [table[_folder(path)] if label is None else label for path, label in given.items()]
    )
    refuse_labels(labels, None if num_classes is None else range(num_classes), paths)
    known = {label: name for name, label in table.items()}
    known = {**_class_numbers(labels), **known}
    return Source(paths, labels.astype(np.int32), known, FileReader(root))


def _folder(path: str) -> str:
    folder, _, name = path.partition("/")
    if not name:
        raise InputError(
            f"picture '{shown(path, 100)}' of the list is in no class folder; write its label "
            "after a tab"
        )
    return folder


def _names_in(arrays: Mapping[str, np.ndarray], name: str, path: Path | str) -> list[str] | None:
    """Return an array of names, None where it is absent."""
    if name not in arrays:
        return None
    if arrays[name].ndim != 1:
        raise InputError(
            f"the array {name!r} of {shown(path)} has shape {arrays[name].shape}; expected a list "
            "of names"
        )
    return [_text(one) for one in arrays[name]]


def _text(one: Any) -> str:
    return one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else str(one)


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
    _refuse_odd_names(paths)
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


def _refuse_odd_names(paths: tuple[str, ...]) -> None:
    """Refuse names that would not be the same once a list of them is read."""
    for path in paths:
        if not isinstance(path, str) or path[:1] in ("", "/") or _normal(path) != path:
            raise InputError(
                f"the name of a picture is '{shown(path, 100)}'; expected a relative path, such as "
                "cat/1.png, without empty parts, '.' and '..'"
            )


def _normal(path: str) -> str:
    return posixpath.normpath(f"/{path}")[1:]
