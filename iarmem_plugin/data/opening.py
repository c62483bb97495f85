"""Pictures as a command is given them: whatever a path names, and all that a model must be told."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from pathlib import Path
from typing import Any

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.labels import refuse_labels
from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown


def open_images(
    path: Path | str,
    *,
    root: Path | str | None = None,
    num_classes: int | None = None,
    classes: Path | str | None = None,
    labelled: bool = True,
) -> Images:
    """Open a folder, an .npz file or a .txt list of pictures.

    See `Images.from_folder`, `Images.from_npz`, `Images.from_list`.

    Args:
        path: folder or file of the pictures.
        root: folder that a list's paths are relative to; for a list alone.
        num_classes: number of the model's classes.
        classes: file that maps names to classes.
        labelled: False for pictures without classes.

    Raises:
        InputError: if it is none of them, or cannot be used.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    told: Any = {"num_classes": num_classes, "classes": classes, "labelled": labelled}
    if suffix == ".txt" and source.is_file():
        return Images.from_list(source, root=root, **told)
    if root is not None:
        raise InputError(
            f"a root was given, and {shown(source)} is not a .txt list; leave the root out"
        )
    if source.is_dir():
        return Images.from_folder(source, **told)
    if suffix == ".npz" and source.is_file():
        return Images.from_npz(source, **told)
    problem = "is not a folder, .npz file or .txt list" if source.exists() else "does not exist"
    raise InputError(
        f"{shown(source)} {problem}; give a folder with one folder a class, an .npz file, or a "
        ".txt file with a path a line"
    )


def check_conditions(images: Images, conditions: Collection[str], num_classes: int | None) -> None:
    """Refuse pictures that lack something that a model must be told of each.

    Args:
        images: list of the pictures.
        conditions: what the model must be told: ``"label"``, ``"text"``; see `Adapter`.
        num_classes: number of its classes; None allows any label from 0.

    Raises:
        InputError: they have no classes or captions, or a label outside the classes.
    """
    if "label" in conditions and not images.labelled:
        raise InputError(
            "the model is told the class of each picture, and these have none; give pictures "
            "with classes, such as a folder with one folder a class"
        )
    if "text" in conditions and images.captions is None:
        raise InputError(
            "the model is told a caption of each picture, and these have none; write a .txt "
            "beside each, of its name, or a third column in a list"
        )
    if "label" in conditions:
        known = None if num_classes is None else range(num_classes)
        refuse_labels(images.labels, known, images.paths)


def same_pictures(images: Images, others: Iterable[Images]) -> list[str]:
    """Return the paths of those images that are among others: the same file, or the same values.

    Args:
        images: images that are looked for.
        others: lists of images.
    """
    known = {place for one in others for place in _places(one)}
    return [
        path for path, place in zip(images.paths, _places(images), strict=True) if place in known
    ]


def _places(images: Images) -> list[Hashable]:
    ids = images.ids.tolist()
    return [images.reader.place(*one) for one in zip(ids, images.paths, strict=True)]
