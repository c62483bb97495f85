"""A sheet of pictures with a line of text under each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.readers import FileReader
from iarmem_plugin.errors import InputError
from iarmem_plugin.report.backend import Figure
from iarmem_plugin.report.figures import new_figure

COLUMNS = 5


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], *, title: str
) -> Figure:
    """Draw pictures in rows of five, in their order."""
    rows = -(-len(pictures) // COLUMNS)
    figure = new_figure(2.2 * COLUMNS, 2.6 * rows + 0.5)
    figure.suptitle(title)
    for place in range(rows * COLUMNS):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.axis("off")
        if place < len(pictures):
            axes.imshow(pictures[place])
            axes.set_title(captions[place], fontsize=7, y=-0.14, parse_math=False)
    return figure


def find_pictures(source: Path, paths: Sequence[str]) -> list[Image.Image]:
    """Read pictures by their paths from a folder, or by their names from an .npz file.

    Raises:
        InputError: one is not there or cannot be read.
    """
    if source.is_dir():
        images, what = _files(source, paths), "folder"
    elif source.suffix == ".npz":
        images, what = Images.from_npz(source), "images"
    else:
        raise InputError(
            f"{source} is neither a folder nor an .npz file; give the folder that the captured "
            "pictures' paths are in"
        )
    places = {path: place for place, path in enumerate(images.paths)}
    if missing := [path for path in paths if path not in places]:
        raise InputError(f"{source} has no picture {missing[0]!r}; give the {what} of the capture")
    return [images.load(places[path]) for path in paths]


def _files(folder: Path, paths: Sequence[str]) -> Images:
    """Take the files among some paths, without listing the whole folder; labels do not matter."""
    found = tuple(path for path in paths if (folder / path).is_file())
    nothing = np.zeros(len(found), np.int32)
    return Images(found, nothing, {}, np.arange(len(found)), FileReader(folder))
