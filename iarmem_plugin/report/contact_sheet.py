"""A sheet of pictures with a line of text under each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.lists import read_list
from iarmem_plugin.data.readers import FileReader
from iarmem_plugin.errors import InputError
from iarmem_plugin.report.backend import Figure
from iarmem_plugin.report.figures import new_figure
from iarmem_plugin.text import shown

COLUMNS = 5


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], *, title: str
) -> Figure:
    """Draw pictures in rows of five, in their order, with their captions below them."""
    rows = -(-len(pictures) // COLUMNS)
    figure = new_figure(2.2 * COLUMNS, 2.6 * rows + 0.5)
    figure.suptitle(title, parse_math=False)
    for place in range(rows * COLUMNS):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.axis("off")
        if place < len(pictures):
            axes.imshow(pictures[place])
            below: dict[str, Any] = {"y": -0.03, "pad": 0, "verticalalignment": "top"}
            axes.set_title(captions[place], fontsize=7, parse_math=False, **below)
    return figure


def find_pictures(
    source: Path, paths: Sequence[str], *, root: Path | None = None
) -> list[Image.Image]:
    """Read pictures by their paths from a folder or a list, or by their names from an .npz file.

    Args:
        source: folder, .txt list or .npz file of the pictures.
        paths: paths of those to read, as a store says them; none is followed out of the folder.
        root: folder that a list's paths are in; by default that of the list.

    Raises:
        InputError: one is not there, lies elsewhere or cannot be read.
    """
    listed = source.suffix == ".txt" and source.is_file()
    if root is not None and not listed:
        raise InputError(f"a root is for a list of pictures (.txt), and {shown(source)} is not one")
    if source.is_dir() or listed:
        images, what = _files(source, root, paths), "list" if listed else "folder"
    elif source.suffix == ".npz":
        images, what = Images.from_npz(source), "images"
    else:
        raise InputError(
            f"{shown(source)} is neither a folder nor an .npz file nor a .txt list; give the "
            "folder that the captured pictures' paths are in"
        )
    places = {path: place for place, path in enumerate(images.paths)}
    if missing := [path for path in paths if path not in places]:
        raise InputError(
            f"{shown(source)} has no picture {shown(missing[0])!r}; give the {what} of the capture"
        )
    return [images.load(places[path]) for path in paths]


def _files(source: Path, root: Path | None, paths: Sequence[str]) -> Images:
    """Take the files among some paths, without listing the whole folder; labels do not matter."""
    folder, names = source, paths
    if not source.is_dir():
        folder = source.parent if root is None else root
        known = read_list(source, folder)
        names = [path for path in paths if path in known]
    found = tuple(path for path in names if _is_inside(folder, path))
    nothing = np.zeros(len(found), np.int32)
    return Images(found, nothing, {}, np.arange(len(found)), FileReader(folder))


def _is_inside(folder: Path, path: str) -> bool:
    """Tell whether there is a file of that path; one that leads out of the folder is refused."""
    try:
        file = (folder / path).resolve()
        outside = not file.is_relative_to(folder.resolve())
        there = file.is_file()
    except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, a ring of links
        return False
    if outside:
        raise InputError(
            f"the picture {shown(path)!r} of the store lies outside {shown(folder)}, and is not "
            "read; give the folder that all pictures lie in, with copies in place of links "
            "('cp -rL')"
        )
    return there
