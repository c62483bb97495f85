"""Image sources: labelled pictures with stable ids, read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int, Int32, Int64
from PIL import Image

from iarmem_plugin.data import subsets
from iarmem_plugin.data.augmentation import refuse_identical_views
from iarmem_plugin.data.labels import folder_labels, named, read_classes, refuse_labels
from iarmem_plugin.data.npz_pictures import names_in, read_npz
from iarmem_plugin.data.readers import (
    UNREADABLE,
    ArrayReader,
    DatasetReader,
    FileReader,
    Items,
    JoinedReader,
    Reader,
    class_names,
    labels_of,
    named_by_number,
)
from iarmem_plugin.data.sources import class_folders, pictures_in, read_list
from iarmem_plugin.data.views import Views
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import write_whole

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Images", "Views", "open_images", "refuse_identical_views"]


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """A list of labelled pictures with stable ids; pictures are read one at a time.

    Attributes:
        paths: relative, '/'-separated, unique.
        labels: the class of each picture.
        classes: the name of each class that has pictures, by label.
        ids: global id of each picture: its position in the list it was first part of.
        reader: opens the picture of a global id and path.
        skipped: paths of corrupt pictures left out by `verify`.
    """

    paths: tuple[str, ...]
    labels: Int32[np.ndarray, " image"]
    classes: Mapping[int, str]
    ids: Int64[np.ndarray, " image"]
    reader: Reader
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that a list of pictures, one a line, could not hold."""
        for path in self.paths:
            if not path.isprintable() and (set(path) & set("\t\r\n") or not _is_text(path)):
                raise InputError(
                    f"the name of picture {path!r} has a tab, a new line, or bytes that are no "
                    "UTF-8; rename it"
                )

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
        return cls._from_files(
            root,
            dict.fromkeys(pictures_in(root)),
            class_folders(root),
            num_classes=num_classes,
            classes=classes,
        )

    @classmethod
    def from_list(
        cls,
        path: Path | str,
        *,
        root: Path | str | None = None,
        num_classes: int | None = None,
        classes: Path | str | None = None,
    ) -> Images:
        """List the pictures that a text file names, in its order.

        Args:
            path: a path a line, and after a tab the label where it has one; a picture without is
                of the class of its folder, which is the first in its path, told as in
                `from_folder`. Empty lines and lines that begin with ``#`` are left out.
            root: the folder that the paths are relative to; by default that of the list.
            num_classes: number of the model's classes.
            classes: file that maps folder names to classes.

        Raises:
            InputError: if a line cannot be used, or a folder's class cannot be told.
        """
        folder = Path(path).parent if root is None else Path(root)
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; give the one that the list's paths are in")
        given = read_list(Path(path), folder)
        return cls._from_files(
            folder, given, class_folders(folder), num_classes=num_classes, classes=classes
        )

    @classmethod
    def from_npz(
        cls, path: Path | str, *, num_classes: int | None = None, classes: Path | str | None = None
    ) -> Images:
        """Read the arrays ``images`` and ``labels``, and where present ``names``, ``classes``.

        Raises:
            InputError: if the file is none, lacks an array, or its labels are outside the classes.
        """
        arrays = read_npz(path)
        names = names_in(arrays, "names", path)
        table = dict(enumerate(names_in(arrays, "classes", path) or ()))
        if classes is not None:
            table = named(read_classes(Path(classes), num_classes=num_classes))
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
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(
                f"images are {images.dtype} {images.shape}; expected uint8 (image, height, width, "
                "3), RGB"
            )
        paths = named_by_number(len(images)) if names is None else tuple(names)
        _refuse_misfits(len(images), labels, paths)
        known = None if classes is None else dict(classes)
        refuse_labels(labels, set(known) if known is not None else None, paths)
        table = known or class_names(labels)
        return cls(paths, labels.astype(np.int32), table, _count(paths), ArrayReader(images))

    @classmethod
    def from_dataset(
        cls,
        dataset: Items,
        *,
        labels: Sequence[int] | Int[np.ndarray, " image"] | None = None,
        names: Sequence[str] | None = None,
        classes: Mapping[int, str] | None = None,
    ) -> Images:
        """Take pictures from a torch dataset, one at a time, when they are needed.

        An item is a picture and its label. The picture is PIL's, uint8 (height, width, 3), a uint8
        tensor (3, height, width) or floats in [0, 1], which are rounded to 8 bits. An index must
        give the same picture every time: no random transforms, nothing that normalises.

        Args:
            dataset: has a length and items; must be picklable for decoding in worker processes.
            labels: of all items; by default the dataset's ``targets`` or ``labels``, and where it
                has neither, every item is read once.
            names: one unique name a picture; numbers by default.
            classes: name of each class by label; labels outside it are refused.

        Raises:
            InputError: if the labels do not fit the items.
        """
        found = labels_of(dataset) if labels is None else np.asarray(labels)
        paths = named_by_number(len(dataset)) if names is None else tuple(names)
        _refuse_misfits(len(dataset), found, paths)
        known = None if classes is None else dict(classes)
        refuse_labels(found, None if known is None else set(known), paths)
        table = known or class_names(found)
        reader = DatasetReader(dataset, found)
        return cls(paths, found.astype(np.int32), table, _count(paths), reader)

    @classmethod
    def _from_files(
        cls,
        root: Path,
        given: Mapping[str, int | None],
        folders: Sequence[str],
        *,
        num_classes: int | None,
        classes: Path | str | None,
    ) -> Images:
        paths = tuple(given)
        used = sorted({_folder(path) for path, label in given.items() if label is None})
        names = None if classes is None else read_classes(Path(classes), num_classes=num_classes)
        table = folder_labels(used, folders=folders, num_classes=num_classes, given=names)
        labels = np.array(
            [table[_folder(path)] if label is None else label for path, label in given.items()]
        )
        refuse_labels(labels, None if num_classes is None else range(num_classes), paths)
        known = {label: name for name, label in table.items()}
        return cls(
            paths,
            labels.astype(np.int32),
            {**class_names(labels), **known},
            _count(paths),
            FileReader(root),
        )

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
        except InputError:
            raise
        except UNREADABLE as error:
            raise _unreadable(path, error) from error

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

    def balanced(
        self,
        per_class: int | None = None,
        *,
        fraction: float | None = None,
        seed: int = 0,
        part: int = 0,
    ) -> Images:
        """Draw the same number of pictures of every class.

        With one seed, a larger subset contains a smaller one, and different parts of one size
        have no picture in common. Pictures keep their order and their global ids, so their views
        are those of the whole list.

        Args:
            per_class: pictures of each class; or else
            fraction: share of all pictures, in (0, 1], rounded to a whole number a class.
            seed: of the draw.
            part: 0 for the first subset, 1 for the one beside it, and so on.

        Raises:
            InputError: if both or neither are given, or a class has too few pictures.
        """
        count = subsets.count_for(self.labels, per_class=per_class, fraction=fraction)
        chosen = subsets.draw_balanced(
            self.paths, self.labels, self.classes, per_class=count, seed=seed, part=part
        )
        return self.subset(chosen)

    def join(self, other: Images) -> Images:
        """Return these pictures and another list's; the other's ids are moved past these."""
        shift = int(self.ids.max(initial=-1)) + 1
        return replace(
            self,
            paths=self.paths + other.paths,
            labels=np.concatenate((self.labels, other.labels)),
            classes={**other.classes, **self.classes},
            ids=np.concatenate((self.ids, other.ids + shift)),
            reader=JoinedReader(self.reader, other.reader, shift),
            skipped=self.skipped + other.skipped,
        )

    def verify(
        self,
        on_bad: Literal["error", "skip"] = "error",
        *,
        workers: int = 0,
        progress: Progress | None = None,
    ) -> Images:
        """Read every picture once, before anything expensive is started.

        Args:
            on_bad: ``"error"`` refuses corrupt pictures; ``"skip"`` leaves them out.
            workers: processes that read; 0 reads in this one.
            progress: where a progress bar may be shown.

        Returns:
            the readable pictures; the others are listed in `skipped`.

        Raises:
            InputError: naming the corrupt pictures, or if none is readable.
        """
        from iarmem_plugin.data.dataloader import unreadable  # imports torch

        bad = unreadable(self, workers=workers, progress=progress)
        if bad and (on_bad == "error" or len(bad) == len(self)):
            first = next(iter(bad.values()))
            rest = [self.paths[index] for index in bad][1:6]
            more = f" ({len(bad)} corrupt pictures, among them {rest})" if rest else ""
            raise InputError(f"{first}{more}")
        good = self.subset([index for index in range(len(self)) if index not in bad])
        return replace(good, skipped=self.skipped + tuple(self.paths[index] for index in bad))

    def check_headers(self) -> Images:
        """Return these images if the first bytes of each picture are those of a picture.

        That is quick, and finds missing files and files that are no pictures; one that is damaged
        further on is named when it is read.

        Raises:
            InputError: naming the first that is none.
        """
        for image, path in zip(self.ids.tolist(), self.paths, strict=True):
            try:
                self.reader.check_header(image, path)
            except UNREADABLE as error:
                raise _unreadable(path, error) from error
        return self

    def check_labels(self, num_classes: int | None) -> Images:
        """Return these images if all labels are in 0..num_classes-1 (None: any label from 0).

        Raises:
            InputError: naming the first picture with another label.
        """
        refuse_labels(self.labels, None if num_classes is None else range(num_classes), self.paths)
        return self

    @property
    def digest(self) -> str:
        """Return the sha256 of the paths in order with their labels."""
        lines = (f"{path}\0{label}\n" for path, label in zip(self.paths, self.labels, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def write_list(self, path: Path) -> None:
        """Write the paths, each with its label after a tab: a list that `from_list` reads."""
        lines = zip(self.paths, self.labels.tolist(), strict=True)
        write_whole(path, "".join(f"{name}\t{label}\n" for name, label in lines).encode())


def open_images(
    path: Path | str,
    *,
    root: Path | str | None = None,
    num_classes: int | None = None,
    classes: Path | str | None = None,
) -> Images:
    """Open a folder, an .npz file or a .txt list of pictures.

    See `Images.from_folder`, `Images.from_npz`, `Images.from_list`.

    Raises:
        InputError: if it is none of them, or cannot be used.
    """
    source = Path(path)
    if source.suffix == ".txt" and source.is_file():
        return Images.from_list(source, root=root, num_classes=num_classes, classes=classes)
    if root is not None:
        raise InputError(f"a root was given, and {source} is no .txt list; leave the root out")
    if source.is_dir():
        return Images.from_folder(source, num_classes=num_classes, classes=classes)
    if source.suffix == ".npz" and source.is_file():
        return Images.from_npz(source, num_classes=num_classes, classes=classes)
    problem = "is no folder, .npz file or .txt list" if source.exists() else "does not exist"
    raise InputError(
        f"{source} {problem}; give a folder with one folder a class, an .npz file, or a .txt file "
        "with a path a line"
    )


def _folder(path: str) -> str:
    folder, _, name = path.partition("/")
    if not name:
        raise InputError(
            f"picture {path!r} of the list is in no class folder; write its label after a tab"
        )
    return folder


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(path: str, error: Exception) -> InputError:
    return InputError(f"picture {path!r} cannot be read: {error}; remove it, or skip bad pictures")


def _refuse_misfits(count: int, labels: np.ndarray, paths: tuple[str, ...]) -> None:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(f"labels are {labels.dtype} {labels.shape}; expected {count} integers")
    if count == 0 or len(paths) != count or len(set(paths)) != count:
        raise InputError(
            f"{count} pictures and {len(set(paths))} different names were given; "
            "give at least one picture, and a unique name for each"
        )


def _count(paths: tuple[str, ...]) -> Int64[np.ndarray, " image"]:
    return np.arange(len(paths), dtype=np.int64)
