"""Near-duplicates: pictures that resemble another one of their list.

A control group of pictures that were never seen says something only where no near-duplicate of them
was seen, either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int64
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from iarmem_plugin.checks import check_integer, check_number
from iarmem_plugin.data.dataloader import each_batch, reads
from iarmem_plugin.data.readers import Pictures
from iarmem_plugin.errors import InputError
from iarmem_plugin.progress import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

BLOCK = 2048  # pictures that are compared with as many others at a time


def near_duplicates(
    images: Pictures,
    threshold: float,
    *,
    side: int = 16,
    workers: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Find the pictures that resemble another one: Pearson correlation of small versions.

    Every pair is compared, in blocks: 100 000 pictures need about 0.6 GB at the default side.
    A picture of one grey has no correlation, and resembles none.

    Args:
        images: list of the pictures.
        threshold: correlation in (0, 1) above which two are near-duplicates; 0.8 is strict, 0.95
            finds copies and slightly moved crops.
        side: height and width of the small versions, in pixels.
        workers: number of processes that read; 0 reads in this one.
        progress: display to which progress bars are added.

    Returns:
        dims (image): ``correlation`` with the nearest other picture, in [-1, 1], and its position
        ``neighbour``; ``near_duplicate``, whether it is above the threshold; ``cluster``, the
        position of the first picture that is reached over near-duplicates; ``representative``,
        whether it is in the set that is filled in the list's order with whatever no near-duplicate
        of is in it yet, so that no two of the set are alike.

    Raises:
        InputError: a picture cannot be read, there are fewer than two, or the threshold or side is
            out of range.
    """
    check_cut(threshold)
    check_integer("side", side, least=2)
    if len(images) < 2:
        raise InputError(f"got {len(images)} pictures, expected two or more to compare")
    small = small_versions(images, side, workers=workers, progress=progress)
    found = _Found.of_nothing(len(images))
    advance = progress_bar(progress, "comparing pictures", len(images))
    for rows in _blocks(len(images)):
        for columns in _blocks(rows.stop):
            found.see(small[rows] @ small[columns].T, rows, columns, threshold)
        advance(rows.stop - rows.start)
    return found.dataset(images.paths).assign_attrs(threshold=threshold, side=side)


def check_cut(threshold: float) -> None:
    """Refuse what is no correlation above which two are near-duplicates.

    Raises:
        InputError: it is not between 0 and 1.
    """
    check_number("threshold", threshold)
    if not 0 < threshold < 1:
        raise InputError(f"the threshold is {threshold}; expected a correlation between 0 and 1")


def small_versions(
    images: Pictures, side: int, *, workers: int = 0, progress: Progress | None = None
) -> Float[np.ndarray, "image value"]:
    """Return the pixels of small versions, such that products are Pearson correlations.

    Args:
        images: list of the pictures.
        side: pixels of a small version's height and width (Lanczos, the sides squeezed alike).
        workers: number of processes that read; 0 reads in this one.
        progress: display to which a progress bar is added.

    Returns:
        float32, of mean 0 and length 1 for each picture; all 0 for a picture of one grey.
    """
    small = np.empty((len(images), 3 * side**2), np.float32)
    advance = progress_bar(progress, "reading images", len(images))
    batches = reads(len(images))
    made = each_batch(_Shrinking(images, side), batches, workers)
    for positions, values in zip(batches, made, strict=True):
        small[positions.start : positions.stop] = values
        advance(len(positions))
    return small


@dataclass(frozen=True, slots=True, eq=False)
class _Shrinking:
    """Makes the small versions of a batch."""

    images: Pictures
    side: int

    def __call__(self, positions: Sequence[int]) -> Float[np.ndarray, "image value"]:
        return np.stack([self._small(position) for position in positions])

    def _small(self, position: int) -> Float[np.ndarray, " value"]:
        picture = self.images.load(position)
        picture = picture.resize((self.side, self.side), Image.Resampling.LANCZOS)
        values = np.asarray(picture, np.float32).ravel()
        values -= values.mean(dtype=np.float64)
        length = float(np.linalg.norm(values))
        return values / length if length > 0 else values


@dataclass(slots=True, eq=False)
class _Found:
    """What is known of each picture after some of the pairs."""

    correlation: Float[np.ndarray, " image"]
    neighbour: Int64[np.ndarray, " image"]
    cluster: Int64[np.ndarray, " image"]
    representative: Bool[np.ndarray, " image"]

    @classmethod
    def of_nothing(cls, count: int) -> _Found:
        alone = np.arange(count)
        return cls(np.full(count, -np.inf, np.float32), alone, alone.copy(), np.ones(count, bool))

    def see(
        self, product: Float[np.ndarray, "row column"], rows: slice, columns: slice, cut: float
    ) -> None:
        """Take in the correlations of a block of pictures with one that is not after it."""
        if rows == columns:
            np.fill_diagonal(product, -np.inf)
        self._nearest(product, rows, columns)
        self._nearest(product.T, columns, rows)
        alike = product > cut
        self._join(alike, rows, columns)
        if rows != columns:
            self.representative[rows] &= ~alike[:, self.representative[columns]].any(axis=1)
            return
        for row in np.flatnonzero(alike.any(axis=1)):  # of two that are alike, the first one stays
            earlier = self.representative[rows][:row]
            self.representative[rows.start + row] &= not (alike[row, :row] & earlier).any()

    def _nearest(
        self, product: Float[np.ndarray, "row column"], rows: slice, columns: slice
    ) -> None:
        best = product.argmax(axis=1)
        value = product[np.arange(len(best)), best]
        closer = value > self.correlation[rows]
        self.correlation[rows] = np.where(closer, value, self.correlation[rows])
        self.neighbour[rows] = np.where(closer, columns.start + best, self.neighbour[rows])

    def _join(self, alike: Bool[np.ndarray, "row column"], rows: slice, columns: slice) -> None:
        row, column = np.nonzero(alike)
        if not len(row):
            return
        count, first = len(self.cluster), self.cluster[rows][row]
        edges = (np.ones(len(row), bool), (first, self.cluster[columns][column]))
        _, label = connected_components(coo_array(edges, shape=(count, count)), directed=False)
        _, smallest = np.unique(label, return_index=True)  # the first picture names the cluster
        self.cluster = smallest[label][self.cluster]

    def dataset(self, paths: Sequence[str]) -> xr.Dataset:
        alone = np.bincount(self.cluster, minlength=len(self.cluster))[self.cluster] == 1
        columns = {
            "correlation": self.correlation.clip(-1, 1),
            "neighbour": self.neighbour,
            "near_duplicate": ~alone,
            "cluster": self.cluster,
            "representative": self.representative,
        }
        return xr.Dataset(
            {name: ("image", values) for name, values in columns.items()},
            coords={"path": ("image", np.asarray(paths, np.str_))},
        )


def _blocks(count: int) -> Iterator[slice]:
    return (slice(one, min(one + BLOCK, count)) for one in range(0, count, BLOCK))
