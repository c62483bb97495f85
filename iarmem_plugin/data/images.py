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

from iarmem_plugin.data import sources, subsets
from iarmem_plugin.data.datasets import Items
from iarmem_plugin.data.labels import refuse_labels
from iarmem_plugin.data.lists import list_text, refuse_unlistable
from iarmem_plugin.data.readers import UNREADABLE, JoinedReader, Reader
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import finish_writing, write_whole
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """A list of labelled pictures with stable ids; pictures are read one at a time.

    Attributes:
        paths: relative, '/'-separated, unique.
        labels: class of each picture.
        classes: name of each class that has pictures, by label.
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
        refuse_unlistable(self.paths)

    @classmethod
    def from_folder(
        cls, path: Path | str, *, num_classes: int | None = None, classes: Path | str | None = None
    ) -> Images:
        """List the pictures of a folder with one folder for each class.

        Links are followed. Files and folders whose name begins with a dot are left out, and so is
        what systems leave behind, such as ``__MACOSX``. Other files that give no pictures, and
        class folders without any, are named in a warning.

        Args:
            path: folder with one folder of pictures for each class.
            num_classes: number of the model's classes; where it equals the number of folders,
                a folder's class is the rank of its name.
            classes: file that maps folder names to classes: a JSON object, or lines of a name
                and an index. Without it, and with folders missing, names must be class indices.

        Raises:
            InputError: if there are no pictures, or a folder's class cannot be told.
        """
        found = sources.from_folder(Path(path), num_classes=num_classes, classes=classes)
        return cls._made_from(found)

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
            path: file with a path a line, and after a tab the label where it has one; a picture
                without a label is of the class of its folder, which is the first in its path, told
                as in `from_folder`. Empty lines and lines that begin with ``#`` are left out.
            root: folder that the paths are relative to; by default that of the list.
            num_classes: number of the model's classes.
            classes: file that maps folder names to classes.

        Raises:
            InputError: if a line cannot be used, or a folder's class cannot be told.
        """
        finish_writing(Path(path).parent)  # where scores lie, too
        folder = Path(path).parent if root is None else Path(root)
        found = sources.from_list(Path(path), root=folder, num_classes=num_classes, classes=classes)
        return cls._made_from(found)

    @classmethod
    def from_npz(
        cls, path: Path | str, *, num_classes: int | None = None, classes: Path | str | None = None
    ) -> Images:
        """Read the arrays ``images`` and ``labels``, and where present ``names``, ``classes``.

        Args:
            path: file with the arrays.
            num_classes: number of the model's classes.
            classes: file that maps names to classes, in place of the array ``classes``.

        Raises:
            InputError: if it is not an .npz file, lacks an array, or has labels outside the
                classes.
        """
        found = sources.from_npz(path, num_classes=num_classes, classes=classes)
        return cls._made_from(found)

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
            images: RGB pictures, uint8, dims (image, height, width, 3).
            labels: class of each picture, integers, dims (image).
            names: unique name of each picture; numbers by default.
            classes: name of each class by label; labels outside it are refused.

        Raises:
            InputError: if the arrays do not fit each other.
        """
        return cls._made_from(sources.from_arrays(images, labels, names=names, classes=classes))

    @classmethod
    def from_dataset(
        cls,
        dataset: Items,
        *,
        labels: Sequence[int] | Int[np.ndarray, " image"] | None = None,
        names: Sequence[str] | None = None,
        classes: Mapping[int, str] | None = None,
        num_classes: int | None = None,
    ) -> Images:
        """Take pictures from a torch dataset, one at a time, when they are needed.

        An item is a picture and its label. The picture is PIL's, uint8 (height, width, 3), a uint8
        tensor (3, height, width) or floats in [0, 1], which are rounded to 8 bits. An index must
        give the same picture every time: no random transforms, nothing that normalises.

        Args:
            dataset: dataset with a length and items; must be picklable for decoding in worker
                processes.
            labels: class of each item; by default the dataset's ``targets`` or ``labels``, and
                where it has neither, every item is read once.
            names: unique name of each picture; numbers by default.
            classes: name of each class by label; labels outside it are refused.
            num_classes: number of the model's classes. Where a dataset names its classes, as
                torchvision's ImageFolder does, they are told as in `from_folder`.

        Raises:
            InputError: if the labels do not fit the items, or which class a name stands for
                cannot be told.
        """
        found = sources.from_dataset(
            dataset, labels=labels, names=names, classes=classes, num_classes=num_classes
        )
        return cls._made_from(found)

    @classmethod
    def _made_from(cls, source: sources.Source) -> Images:
        ids = np.arange(len(source.paths), dtype=np.int64)
        return cls(source.paths, source.labels, source.classes, ids, source.reader)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __repr__(self) -> str:
        """Show the numbers, not the paths."""
        return f"Images({len(self)} pictures, {len(np.unique(self.labels))} classes)"

    def load(self, index: int) -> Image.Image:
        """Read one picture.

        Args:
            index: position of the picture in this list.

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

        Args:
            indices: different positions in this list.

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
            per_class: number of pictures of each class; give this or the fraction.
            fraction: share of all pictures, in (0, 1], rounded to a whole number a class.
            seed: seed for drawing the pictures.
            part: number of the subset: 0 for the first, 1 for the one beside it, and so on.

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
            workers: number of processes that read; 0 reads in this one.
            progress: display to which a progress bar is added.

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

        That is quick, and finds missing files and files that are not pictures; one that is damaged
        further on is named when it is read.

        Raises:
            InputError: naming the first file that is not a picture.
        """
        for image, path in zip(self.ids.tolist(), self.paths, strict=True):
            try:
                self.reader.check_header(image, path)
            except UNREADABLE as error:
                raise _unreadable(path, error) from error
        return self

    def check_labels(self, num_classes: int | None) -> Images:
        """Return these images if all labels are classes.

        Args:
            num_classes: number of classes, so that labels are 0 to num_classes - 1; None allows
                any label from 0.

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

    def write_list(self, path: Path | str) -> None:
        """Write the paths, each with its label after a tab: a list that `from_list` reads.

        Args:
            path: file to write.

        Raises:
            InputError: if a path is there twice, as in joined lists.
        """
        write_whole(Path(path), self.as_list())

    def as_list(self) -> bytes:
        """Return what `write_list` writes."""
        return list_text(self.paths, self.labels.tolist()).encode()


def open_images(
    path: Path | str,
    *,
    root: Path | str | None = None,
    num_classes: int | None = None,
    classes: Path | str | None = None,
) -> Images:
    """Open a folder, an .npz file or a .txt list of pictures.

    See `Images.from_folder`, `Images.from_npz`, `Images.from_list`.

    Args:
        path: folder or file of the pictures.
        root: folder that a list's paths are relative to; for a list alone.
        num_classes: number of the model's classes.
        classes: file that maps names to classes.

    Raises:
        InputError: if it is none of them, or cannot be used.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    if suffix == ".txt" and source.is_file():
        return Images.from_list(source, root=root, num_classes=num_classes, classes=classes)
    if root is not None:
        raise InputError(
            f"a root was given, and {shown(source)} is not a .txt list; leave the root out"
        )
    if source.is_dir():
        return Images.from_folder(source, num_classes=num_classes, classes=classes)
    if suffix == ".npz" and source.is_file():
        return Images.from_npz(source, num_classes=num_classes, classes=classes)
    problem = "is not a folder, .npz file or .txt list" if source.exists() else "does not exist"
    raise InputError(
        f"{shown(source)} {problem}; give a folder with one folder a class, an .npz file, or a "
        ".txt file with a path a line"
    )


def _unreadable(path: str, error: Exception) -> InputError:
    return InputError(
        f"picture '{shown(path, 100)}' cannot be read: {shown(error, 180)}; remove it, or skip "
        "bad pictures"
    )
