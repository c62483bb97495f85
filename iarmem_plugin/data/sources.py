"""Sources: a folder, a list, an .npz file, arrays or a dataset, as paths, labels and a reader."""

from __future__ import annotations

import os
import posixpath
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Integer

from iarmem_plugin.data.datasets import (
    DatasetReader,
    Items,
    as_array,
    captions_of,
    labels_of,
    length_of,
)
from iarmem_plugin.data.folders import class_folders, list_folder, text_beside, texts_beside
from iarmem_plugin.data.labels import folder_labels, named, read_classes, refuse_labels
from iarmem_plugin.data.lists import Line, read_list, refuse_odd_captions
from iarmem_plugin.data.npz import read_npz
from iarmem_plugin.data.readers import ArrayReader, FileReader, Reader
from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_text

NPZ_ARRAYS = ("images", "labels", "names", "classes", "captions")
NO_CLASS = -1
"""Label of a picture that has no class: nothing guesses one."""
LONGEST_CAPTION = 2**16  # bytes of its file


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a list of pictures is made from.

    Attributes:
        paths: relative, '/'-separated, unique.
        labels: class of each picture.
        classes: name of each class that has pictures, by label.
        reader: opens the picture of a position and path.
        captions: caption of each picture; None where there are none.
        labelled: whether the pictures have classes; otherwise all labels are -1.
    """

    paths: tuple[str, ...]
    labels: Int32[np.ndarray, " image"]
    classes: Mapping[int, str]
    reader: Reader
    captions: tuple[str, ...] | None = None
    labelled: bool = True


def from_folder(
    root: Path, *, num_classes: int | None, classes: Path | str | None, labelled: bool
) -> Source:
    """List the pictures of a folder with one folder for each class; see `Images.from_folder`."""
    listing = list_folder(root, labelled=labelled)
    for notice in listing.notices():
        warnings.warn(f"{shown(root)}: {notice}", stacklevel=3)  # the caller of Images.from_folder
    captions = _captions_beside(root, listing.pictures, listing.texts)
    if not labelled:
        return _unlabelled(listing.pictures, FileReader(root), captions)
    pictures: dict[str, int | None] = dict.fromkeys(listing.pictures)
    found = _from_files(root, pictures, listing.folders, num_classes=num_classes, classes=classes)
    return replace(found, captions=captions)


def from_list(
    file: Path,
    *,
    root: Path,
    num_classes: int | None,
    classes: Path | str | None,
    labelled: bool,
) -> Source:
    """List the pictures that a text file names, in its order; see `Images.from_list`."""
    if not root.is_dir():
        raise InputError(
            f"{shown(root)} is not a folder; give the one that the list's paths are in"
        )
    lines = read_list(file, root)
    captions = _captions_in(lines, file)
    if captions is None:
        texts = texts_beside(root, lines) - {os.path.relpath(file, root)}
        captions = _captions_beside(root, tuple(lines), texts)
    if not labelled:
        return _unlabelled(tuple(lines), FileReader(root), captions)
    given, folders = {path: line.label for path, line in lines.items()}, class_folders(root)
    found = _from_files(root, given, folders, num_classes=num_classes, classes=classes)
    return replace(found, captions=captions)


def from_npz(
    path: Path | str, *, num_classes: int | None, classes: Path | str | None, labelled: bool
) -> Source:
    """Read pictures and labels from an .npz file; see `Images.from_npz`."""
    arrays = read_npz(Path(path), NPZ_ARRAYS)
    if missing := ({"images", "labels"} if labelled else {"images"}) - arrays.keys():
        raise InputError(f"{shown(path)} has no array {' or '.join(sorted(missing))!r}")
    names, captions = (_names_in(arrays, name, path) for name in ("names", "captions"))
    if not labelled:
        return from_arrays(arrays["images"], None, names=names, classes=None, captions=captions)
    table = dict(enumerate(_names_in(arrays, "classes", path) or ()))
    if classes is not None:
        table = named(read_classes(Path(classes), num_classes=num_classes))
    source = from_arrays(
        arrays["images"], arrays["labels"], names=names, classes=table or None, captions=captions
    )
    refuse_labels(source.labels, None if num_classes is None else range(num_classes), source.paths)
    return source


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    names: Sequence[str] | None,
    classes: Mapping[int, str] | None,
    captions: Sequence[str] | None,
) -> Source:
    """Wrap pictures in memory; see `Images.from_arrays`."""
    images = as_array(images, "the pictures")
    sides = images.shape[1:]
    if images.dtype != np.uint8 or len(sides) != 3 or sides[2] != 3 or not all(sides):
        raise InputError(
            f"images are {images.dtype} {images.shape}; expected uint8 (image, height, width, "
            "3), RGB"
        )
    text = _clean(captions)
    if labels is None:
        return _unlabelled(_names(len(images), names), ArrayReader(images), text)
    labels = as_array(labels, "the labels")
    paths, table = _named(len(images), labels, names, classes)
    return Source(paths, labels.astype(np.int32), table, ArrayReader(images), text)


def from_dataset(
    dataset: Items,
    *,
    labels: Sequence[int] | Int[np.ndarray, " image"] | None,
    names: Sequence[str] | None,
    classes: Mapping[int, str] | None,
    num_classes: int | None,
    captions: Sequence[str] | None,
    labelled: bool,
) -> Source:
    """Take pictures from a torch dataset when they are needed; see `Images.from_dataset`."""
    count = length_of(dataset)
    if not labelled:
        text = _clean(captions_of(dataset, captions, labelled=False))
        return _unlabelled(_names(count, names), DatasetReader(dataset), text)
    found, own, known = labels_of(dataset, labels, num_classes=num_classes, classes=classes)
    paths, table = _named(count, found, names, classes)
    refuse_labels(found, None if num_classes is None else range(num_classes), paths)
    found = found.astype(np.int32)
    text = _clean(captions_of(dataset, captions, labelled=True))
    return Source(paths, found, {**table, **known}, DatasetReader(dataset, found, own), text)


def _unlabelled(paths: tuple[str, ...], reader: Reader, captions: tuple[str, ...] | None) -> Source:
    labels = np.full(len(paths), NO_CLASS, np.int32)
    return Source(paths, labels, {}, reader, captions, labelled=False)


def _captions_in(lines: Mapping[str, Line], file: Path) -> tuple[str, ...] | None:
    """Return the captions of a list's third column, None where it has none."""
    missing = [path for path, line in lines.items() if line.caption is None]
    if len(missing) == len(lines):
        return None
    if missing:
        raise InputError(
            f"the list {shown(file, 100)} gives captions, and none for picture "
            f"'{shown(missing[0], 100)}'; write one after a second tab, or take all away"
        )
    return tuple(line.caption or "" for line in lines.values())


def _captions_beside(
    root: Path, paths: Sequence[str], texts: Collection[str]
) -> tuple[str, ...] | None:
    """Return the captions of text files beside pictures, None where these are none.

    Other tools leave files of the same names, such as boxes, so what is no caption is no error.
    """
    own = [text_beside(path) for path in paths]
    missing = [path for path, text in zip(paths, own, strict=True) if text not in texts]
    if len(missing) == len(paths):
        return None
    try:
        if missing:
            raise InputError(
                f"picture '{shown(missing[0], 100)}' has no caption beside it (a .txt of its "
                f"name), and {len(paths) - len(missing)} others have; write one for each"
            )
        captions = tuple(
            read_text(root / text, "the caption", limit=LONGEST_CAPTION).strip() for text in own
        )
        refuse_odd_captions(captions, paths)
    except InputError as error:
        warnings.warn(f"the .txt beside the pictures are not used: {error}", stacklevel=5)
        return None
    return captions


def _clean(captions: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return captions without blanks at their ends."""
    if captions is None:
        return None
    return tuple(one.strip() if isinstance(one, str) else one for one in captions)


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
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(f"labels are {labels.dtype} {labels.shape}; expected {count} integers")
    paths = _names(count, names)
    refuse_labels(labels, None if classes is None else set(classes), paths)
    return paths, dict(classes) if classes else _class_numbers(labels)


def _class_numbers(labels: Integer[np.ndarray, " image"]) -> dict[int, str]:
    return {int(label): str(label) for label in np.unique(labels)}


def _names(count: int, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of pictures: numbers where none are given."""
    paths = tuple(names or (f"{number:06d}" for number in range(count)))
    if count == 0 or len(paths) != count or len(set(paths)) != count:
        raise InputError(
            f"{count} pictures and {len(set(paths))} different names were given; "
            "give at least one picture, and a unique name for each"
        )
    _refuse_odd_names(paths)
    return paths


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
