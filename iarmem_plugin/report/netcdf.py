"""The report's ``.nc`` files: datasets that come back as they were, and a gallery as a dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from iarmem_plugin.report.document import plain
from iarmem_plugin.report.results import GalleryRow

IN_JSON = "attributes_in_json"


class _Picture(NamedTuple):
    """One picture of a gallery; the arm is empty where it shows no completion."""

    row: int
    shows: str
    arm: str
    similarity: float
    extracted: bool
    pixels: np.ndarray


def netcdf(dataset: xr.Dataset) -> bytes:
    """Return the content of a file that holds a dataset, compressed."""
    stored = storable(dataset)
    packed = {name: {"zlib": True} for name in stored.data_vars}
    return bytes(stored.to_netcdf(engine="h5netcdf", encoding=packed))


def read_netcdf(path: Path) -> xr.Dataset:
    """Read a file with the content that `netcdf` gives."""
    return restored(xr.load_dataset(path, engine="h5netcdf"))


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset that netCDF can hold.

    netCDF attributes hold no null, truth value or mapping: those become JSON, and are named in one
    more attribute.
    """
    # coordinates first, so that the order in the file is that of a dataset read from it
    stored = dataset.coords.to_dataset().assign(dataset.data_vars).drop_encoding()
    attributes = {name: plain(value) for name, value in dataset.attrs.items()}
    in_json = [str(name) for name, value in attributes.items() if not _is_attribute(value)]
    stored.attrs = {
        name: json.dumps(value) if name in in_json else value for name, value in attributes.items()
    }
    if in_json:
        stored.attrs[IN_JSON] = json.dumps(in_json)
    return stored


def restored(stored: xr.Dataset) -> xr.Dataset:
    """Return the dataset of which `storable` made one for a file."""
    found = stored.drop_encoding()
    in_json = json.loads(found.attrs.pop(IN_JSON, "[]"))
    found.attrs = {
        name: json.loads(value) if name in in_json else np.asarray(value).item()
        for name, value in found.attrs.items()
    }
    for name, variable in found.variables.items():
        if variable.dtype == object:  # text, as netCDF has it
            found[name] = found[name].astype(np.str_)
    return found


def gallery_dataset(rows: Sequence[GalleryRow]) -> xr.Dataset:
    """Return all pictures of a gallery in one array, each beginning at its upper left corner.

    Returns:
        ``pixels`` with dims (picture, y, x, channel), and what each picture is.
    """
    pictures = list(_pictures(rows))
    sizes = np.array([picture.pixels.shape[:2] for picture in pictures])
    pixels = np.zeros((len(pictures), *sizes.max(axis=0), 3), np.uint8)
    for place, picture in zip(pixels, pictures, strict=True):
        height, width, _ = picture.pixels.shape
        place[:height, :width] = picture.pixels
    row, shows, arm, similarity, extracted, _ = zip(*pictures, strict=True)
    return xr.Dataset(
        {
            "pixels": (("picture", "y", "x", "channel"), pixels),
            "height": ("picture", sizes[:, 0]),
            "width": ("picture", sizes[:, 1]),
            "row": ("picture", list(row)),
            "shows": ("picture", list(shows)),
            "arm": ("picture", list(arm)),
            "similarity": ("picture", list(similarity)),
            "extracted": ("picture", list(extracted)),
            "path": ("candidate", [one.path for one in rows]),
            "group": ("candidate", [one.group for one in rows]),
        }
    )


def gallery_rows(pictures: xr.Dataset) -> tuple[GalleryRow, ...]:
    """Return the gallery of which `gallery_dataset` made a dataset."""
    names = zip(pictures["path"].values, pictures["group"].values, strict=True)
    return tuple(
        _row(str(path), str(group), pictures.isel(picture=pictures["row"].values == number))
        for number, (path, group) in enumerate(names)
    )


def _is_attribute(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _pictures(rows: Sequence[GalleryRow]) -> Iterator[_Picture]:
    for number, row in enumerate(rows):
        yield _Picture(number, "target", "", np.nan, False, row.target)
        if row.original is not None:
            yield _Picture(number, "original", "", np.nan, False, row.original)
        for arm, (pixels, similarity, extracted) in row.completions.items():
            yield _Picture(number, "completion", arm, similarity, extracted, pixels)


def _row(path: str, group: str, pictures: xr.Dataset) -> GalleryRow:
    target, original, completions = None, None, {}
    for place in range(pictures.sizes["picture"]):
        one = pictures.isel(picture=place)
        pixels = one["pixels"].values[: int(one["height"]), : int(one["width"])]
        match one["shows"].item():
            case "target":
                target = pixels
            case "original":
                original = pixels
            case _:
                arm = str(one["arm"].item())
                completions[arm] = (pixels, float(one["similarity"]), bool(one["extracted"]))
    if target is None:
        raise ValueError(f"the gallery has no target of {path!r}")
    return GalleryRow(path, group, target, original, completions)
