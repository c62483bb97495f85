"""A sheet of pictures with a line of text under each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError

COLUMNS = 5


def sheet(pictures: Sequence[Image.Image], captions: Sequence[str], *, title: str) -> Figure:
    """Draw pictures in rows of five, in their order."""
    rows = -(-len(pictures) // COLUMNS)
    figure = Figure(figsize=(2.2 * COLUMNS, 2.6 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
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
        InputError: if one is not there or cannot be read.
    """
    if source.is_dir():
        return [_read(source, path) for path in paths]
    if source.suffix != ".npz":
        raise InputError(
            f"{source} is neither a folder nor an .npz file; give the folder that the captured "
            "pictures' paths are in"
        )
    images = Images.from_npz(source)
    places = {path: place for place, path in enumerate(images.paths)}
    if missing := [path for path in paths if path not in places]:
        raise InputError(f"{source} has no picture {missing[0]!r}; give the images of the capture")
    return [images.load(places[path]) for path in paths]


def _read(folder: Path, path: str) -> Image.Image:
    try:
        with Image.open(folder / path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} has no picture {path!r}; give the folder of the capture"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"picture {path!r} cannot be read: {error}") from error
