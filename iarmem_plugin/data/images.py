"""Image sources: labelled pictures with stable ids, read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Int, Int32, Int64
from PIL import Image

from iarmem_plugin.data import sources, subsets
from iarmem_plugin.data.datasets import Items
from iarmem_plugin.data.lists import list_text, refuse_odd_captions, refuse_unlistable
from iarmem_plugin.data.readers import JoinedReader, Reader, all_unreadable, named_if_unreadable
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import finish_writing, write_whole

if TYPE_CHECKING:
    import xarray as xr
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
        captions: caption of each picture, of one line; None where there are none.
        labelled: whether the pictures have classes; otherwise all labels are -1.
    """

    paths: tuple[str, ...]
    labels: Int32[np.ndarray, " image"]
    classes: Mapping[int, str]
    ids: Int64[np.ndarray, " image"]
    reader: Reader
    skipped: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None
    labelled: bool = True

    def __post_init__(self) -> None:
        """Refuse names and captions that a list of pictures, one a line, could not hold."""
        refuse_unlistable(self.paths)
        if self.captions is not None:
            refuse_odd_captions(self.captions, self.paths)

    @classmethod
    def from_folder(
        cls,
        path: Path | str,
        *,
        num_classes: int | None = None,
        classes: Path | str | None = None,
        labelled: bool = True,
    ) -> Images:
        """List the pictures of a folder with one folder for each class.

        Where there is a ``.txt`` beside each picture, of the same name, it holds its caption.

        Links are followed. Files and folders whose name begins with a dot are left out, and so is
        what systems leave behind, such as ``__MACOSX``. Other files that give no pictures, and
        class folders without any, are named in a warning.

        Args:
            path: folder with one folder of pictures for each class.
            num_classes: number of the model's classes; where it equals the number of folders,
                a folder's class is the rank of its name.
            classes: file that maps folder names to classes: a JSON object, or lines of a name
                and an index. Without it, and with folders missing, names must be class indices.
            labelled: False for pictures without classes, which may then lie in any folder.

        Raises:
            InputError: if there are no pictures, a class cannot be told, or some lack a caption.
        """
        told: Any = {"num_classes": num_classes, "classes": classes, "labelled": labelled}
        return cls._made_from(sources.from_folder(Path(path), **told))

    @classmethod
    def from_list(
        cls,
        path: Path | str,
        *,
        root: Path | str | None = None,
        num_classes: int | None = None,
        classes: Path | str | None = None,
        labelled: bool = True,
    ) -> Images:
        """List the pictures that a text file names, in its order.

        Args:
            path: file with a path a line, and after a tab the label where it has one; a picture
                without a label is of the class of its folder, which is the first in its path, told
                as in `from_folder`. After another tab may stand a caption; else captions may lie
                beside the pictures. Empty lines and lines that begin with ``#`` are left out.
            root: folder that the paths are relative to; by default that of the list.
            num_classes: number of the model's classes.
            classes: file that maps folder names to classes.
            labelled: False for pictures without classes; labels in the list are left out.

        Raises:
            InputError: if a line cannot be used, or a folder's class cannot be told.
        """
        finish_writing(Path(path).parent)  # where scores lie, too
        folder = Path(path).parent if root is None else Path(root)
        told: Any = {"num_classes": num_classes, "classes": classes, "labelled": labelled}
        return cls._made_from(sources.from_list(Path(path), root=folder, **told))

    @classmethod
    def from_npz(
        cls,
        path: Path | str,
        *,
        num_classes: int | None = None,
        classes: Path | str | None = None,
        labelled: bool = True,
    ) -> Images:
        """Read the arrays ``images`` and ``labels``, and any ``names``, ``classes``, ``captions``.

        Args:
            path: file with the arrays.
            num_classes: number of the model's classes.
            classes: file that maps names to classes, in place of the array ``classes``.
            labelled: False for pictures without classes; an array of labels is then left out.

        Raises:
            InputError: it is not an .npz file, lacks an array, or has labels outside the classes.
        """
        told: Any = {"num_classes": num_classes, "classes": classes, "labelled": labelled}
        return cls._made_from(sources.from_npz(path, **told))

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        names: Sequence[str] | None = None,
        classes: Mapping[int, str] | None = None,
        captions: Sequence[str] | None = None,
    ) -> Images:
        """Wrap pictures in memory.

        Args:
            images: RGB pictures, uint8, dims (image, height, width, 3).
            labels: class of each picture, integers, dims (image); None where there are none.
            names: unique name of each picture; numbers by default.
            classes: name of each class by label; labels outside it are refused.
            captions: caption of each picture.

        Raises:
            InputError: if the arrays do not fit each other.
        """
        found = sources.from_arrays(images, labels, names=names, classes=classes, captions=captions)
        return cls._made_from(found)

    @classmethod
    def from_dataset(
        cls,
        dataset: Items,
        *,
        labels: Sequence[int] | Int[np.ndarray, " image"] | None = None,
        names: Sequence[str] | None = None,
        classes: Mapping[int, str] | None = None,
        num_classes: int | None = None,
        captions: Sequence[str] | None = None,
        labelled: bool = True,
    ) -> Images:
        """Take pictures from a torch dataset, one at a time, when they are needed.

        An item is a picture, its label, and perhaps a caption. The picture is PIL's, uint8 (height,
        width, 3), a uint8 tensor (3, height, width) or floats in [0, 1], rounded to 8 bits. An
        index must give the same picture every time: no random transforms, no normalising.

        Args:
            dataset: dataset with a length and items; must be picklable for decoding in worker
                processes.
            labels: class of each item; by default the dataset's ``targets`` or ``labels``, and
                where it has neither, every item is read once.
            names: unique name of each picture; numbers by default.
            classes: name of each class by label; labels outside it are refused.
            num_classes: number of the model's classes. Where a dataset names its classes, as
                torchvision's ImageFolder does, they are told as in `from_folder`.
            captions: caption of each item; ``"items"`` reads each for it; else the dataset's.
            labelled: False for pictures without classes: items are pictures, or begin with one.

        Raises:
            InputError: if labels do not fit the items, or a name's class cannot be told.
        """
        found = sources.from_dataset(
            dataset,
            labels=labels,
            names=names,
            classes=classes,
            num_classes=num_classes,
            captions=captions,
            labelled=labelled,
        )
        return cls._made_from(found)

    @classmethod
    def _made_from(cls, source: sources.Source) -> Images:
        ids = np.arange(len(source.paths), dtype=np.int64)
        whole = cls(source.paths, source.labels, source.classes, ids, source.reader)
        return replace(whole, captions=source.captions, labelled=source.labelled)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __repr__(self) -> str:
        """Show the numbers, not the paths."""
        classes = f"{len(np.unique(self.labels))} classes" if self.labelled else "no classes"
        captions = "" if self.captions is None else ", captions"
        return f"Images({len(self)} pictures, {classes}{captions})"

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
        with named_if_unreadable(path):
            return self.reader(int(self.ids[index]), path)

    def subset(self, indices: Sequence[int] | Int[np.ndarray, " subset"]) -> Images:
        """Return the pictures at these positions, in this order, with their global ids.

        Args:
            indices: different positions in this list.

        Raises:
            InputError: if a position is no integer, outside the list, or given twice.
        """
        chosen = subsets.positions(indices)
        outside = (chosen < 0) | (chosen >= len(self))
        if outside.any() or len(np.unique(chosen)) != len(chosen):
            raise InputError(f"positions must be different and in 0..{len(self) - 1}")
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            labels=self.labels[chosen],
            ids=self.ids[chosen],
            captions=self.captions and tuple(self.captions[i] for i in chosen),
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
            InputError: if both or neither are given, or a class has too few, or there are none.
        """
        count = subsets.count_for(self.labels, per_class=per_class, fraction=fraction)
        chosen = subsets.draw_balanced(
            self.paths, self.labels, self.classes, per_class=count, seed=seed, part=part
        )
        return self.subset(chosen)

    def join(self, other: Images) -> Images:
        """Return these pictures and another list's; the other's ids are moved past these.

        Captions are kept where both have some.

        Raises:
            InputError: one of the two has classes, and the other has not.
        """
        if self.labelled != other.labelled:
            raise InputError("pictures with classes cannot be joined with pictures without")
        both = self.captions and other.captions and self.captions + other.captions
        shift = int(self.ids.max(initial=-1)) + 1
        return replace(
            self,
            paths=self.paths + other.paths,
            labels=np.concatenate((self.labels, other.labels)),
            classes={**other.classes, **self.classes},
            ids=np.concatenate((self.ids, other.ids + shift)),
            reader=JoinedReader(self.reader, other.reader, shift),
            skipped=self.skipped + other.skipped,
            captions=both,
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
            raise all_unreadable([self.paths[index] for index in bad], next(iter(bad.values())))
        good = self.subset([index for index in range(len(self)) if index not in bad])
        return replace(good, skipped=self.skipped + tuple(self.paths[index] for index in bad))

    def near_duplicates(
        self,
        threshold: float,
        *,
        side: int = 16,
        workers: int = 0,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """Find the pictures that resemble another one; see `iarmem_plugin.data.duplicates`.

        Args:
            threshold: Pearson correlation in (0, 1) above which two are near-duplicates.
            side: height and width of the small versions that are compared, in pixels.
            workers: number of processes that read; 0 reads in this one.
            progress: display to which progress bars are added.
        """
        from iarmem_plugin.data.duplicates import near_duplicates  # imports torch

        return near_duplicates(self, threshold, side=side, workers=workers, progress=progress)

    def check_headers(self) -> Images:
        """Return these images if the first bytes of each picture are those of a picture.

        That is quick, and finds missing files and files that are not pictures; one that is damaged
        further on is named when it is read.

        Raises:
            InputError: naming the first file that is not a picture.
        """
        for image, path in zip(self.ids.tolist(), self.paths, strict=True):
            with named_if_unreadable(path, said=()):
                self.reader.check_header(image, path)
        return self

    @property
    def digest(self) -> str:
        """Return the sha256 of the paths in order with their labels, and captions if any."""
        columns = [self.paths, self.labels, *([] if self.captions is None else [self.captions])]
        lines = ("\0".join(map(str, line)) + "\n" for line in zip(*columns, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def write_list(self, path: Path | str) -> None:
        """Write the paths, each with label and caption after tabs: a list that `from_list` reads.

        Args:
            path: file to write.

        Raises:
            InputError: if a path is there twice, as in joined lists.
        """
        write_whole(Path(path), self.as_list())

    def as_list(self) -> bytes:
        """Return what `write_list` writes."""
        labels = self.labels.tolist() if self.labelled else None
        return list_text(self.paths, labels, self.captions).encode()
