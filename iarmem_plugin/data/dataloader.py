"""Pictures decoded batch by batch, in worker processes, ahead of the model."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iarmem_plugin.data.augmentation import Augmentation, refuse_identical_views
from iarmem_plugin.data.readers import Pictures
from iarmem_plugin.errors import InputError, WorkerError
from iarmem_plugin.progress import progress_bar
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress

Result = TypeVar("Result")
PICTURES_PER_READ = 64
MIN_PICTURES = 8  # whose views are all alike by more than chance
_END = object()
_GUARD = "put the script's calls under 'if __name__ == \"__main__\":'"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Decoded views of some pictures.

    Attributes:
        positions: position of each picture in its list.
        pixels: RGB in 0..255; a quarter of the bytes of float32, so convert it on the device.
        labels: class of each picture.
    """

    positions: Int64[np.ndarray, " image"]
    pixels: UInt8[Tensor, "image view 3 height width"]
    labels: Int64[Tensor, " image"]


def load_batches(
    images: Pictures,
    batches: Sequence[Sequence[int]],
    augmentation: Augmentation,
    *,
    views: int,
    seed: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """Decode pictures and draw their views.

    What is yielded does not depend on the number of workers, and a batch's views not on the
    batches before it. Workers are started anew (spawn), so a script that uses them needs the
    usual ``if __name__ == "__main__":``; each holds up to two batches ready.

    Args:
        images: list of the pictures.
        batches: positions in the list, batch by batch.
        augmentation: augmentation that draws the views.
        views: number of views of each picture; 1 takes the centre view.
        seed: seed for drawing the views.
        workers: number of processes that decode; 0 decodes in this one.

    Yields:
        the batches, in their order.

    Raises:
        InputError: naming a picture that cannot be read, when its batch is reached; or if a
            batch's views are all identical.
    """
    drawing = _Drawing(images, augmentation, views, seed)
    alike, pictures = True, 0
    enough = min(MIN_PICTURES, sum(map(len, batches)))  # two views of one are equal by chance
    for positions, pixels in zip(batches, each_batch(drawing, batches, workers), strict=True):
        pictures += len(positions)
        alike = alike and views > 1 and not _differ(pixels)
        if alike and pictures >= enough:
            refuse_identical_views(pixels)
        chosen = np.asarray(positions, np.int64)
        yield Batch(chosen, pixels, torch.from_numpy(images.labels[chosen].astype(np.int64)))


def _differ(pixels: UInt8[Tensor, "image view 3 height width"]) -> bool:
    return bool((pixels[:, 1:] != pixels[:, :1]).any())


def unreadable(
    images: Pictures, *, workers: int = 0, progress: Progress | None = None
) -> dict[int, InputError]:
    """Read all pictures, and return what is wrong with the bad ones, by position.

    Args:
        images: list of the pictures.
        workers: number of processes that read; 0 reads in this one.
        progress: display to which a progress bar is added.
    """
    advance = progress_bar(progress, "reading images", len(images))
    bad: dict[int, InputError] = {}
    places = reads(len(images))
    for rows, found in zip(places, each_batch(_Reading(images), places, workers), strict=True):
        bad |= found
        advance(len(rows))
    return bad


def reads(count: int) -> list[range]:
    """Return the positions of so many pictures, in the batches in which they are read."""
    starts = range(0, count, PICTURES_PER_READ)
    return [range(one, min(one + PICTURES_PER_READ, count)) for one in starts]


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    """Draws the views of a batch."""

    images: Pictures
    augmentation: Augmentation
    views: int
    seed: int

    def __call__(self, positions: Sequence[int]) -> UInt8[Tensor, "image view 3 height width"]:
        planes = [np.moveaxis(self._views(position), 3, 1) for position in positions]
        return torch.from_numpy(np.stack([np.ascontiguousarray(views) for views in planes]))

    def _views(self, position: int) -> UInt8[np.ndarray, "view height width 3"]:
        picture = self.images.load(position)
        try:
            return self._drawn(picture, int(self.images.ids[position]))
        except InputError as error:
            raise InputError(f"picture {self.images.paths[position]!r}: {error}") from error

    def _drawn(self, picture: Image.Image, image: int) -> UInt8[np.ndarray, "view height width 3"]:
        if self.views == 1:
            return self.augmentation.center_pixels(picture)[None]
        return self.augmentation.draw_pixels(picture, image=image, count=self.views, seed=self.seed)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """Reads the pictures of a batch, and keeps the errors alone."""

    images: Pictures

    def __call__(self, positions: Sequence[int]) -> dict[int, InputError]:
        errors = {position: self._error(position) for position in positions}
        return {position: error for position, error in errors.items() if error is not None}

    def _error(self, position: int) -> InputError | None:
        try:
            self.images.load(position)
        except InputError as error:
            return error
        return None


class _Work(Dataset[Any], Generic[Result]):
    """A batch's result for its positions; errors are returned, since torch would reword them."""

    def __init__(self, function: Callable[[Sequence[int]], Result]) -> None:
        self.function = function

    def __getitems__(self, positions: Sequence[int]) -> Result | InputError:
        try:
            return self.function(positions)
        except InputError as error:
            return error


def each_batch(
    function: Callable[[Sequence[int]], Result], batches: Sequence[Sequence[int]], workers: int
) -> Iterator[Result]:
    """Yield a function's result for each batch of positions, made here or in worker processes.

    Args:
        function: what is done with a batch; it is sent to the workers.
        batches: positions, batch by batch.
        workers: number of processes; 0 for none but this one.

    Raises:
        InputError: the function raised it, or it cannot be sent.
        WorkerError: a worker has ended.
    """
    if workers < 0:
        raise InputError(f"{workers} workers were given; expected 0 or more")
    if not batches:
        return
    if workers:
        _refuse_unguarded()
    iterator = _begun(function, batches, workers)
    try:
        while (result := _next(iterator, workers)) is not _END:
            if isinstance(result, InputError):
                raise result
            yield cast("Result", result)
    finally:
        del iterator  # ends the workers


def _next(iterator: Iterator[Any], workers: int) -> Any:
    try:
        return next(iterator, _END)
    except RuntimeError as error:
        if not workers or "DataLoader worker" not in str(error):
            raise
        reason = shown(error.__cause__ or error, 120)
        cure = "give the same command again, with fewer --workers if memory ran out"
        if "exit code" in reason:  # it was not killed
            cure = f"mend the error that it printed, or {_GUARD}; then give the same command again"
        raise WorkerError(
            f"a worker process that decodes pictures has ended ({reason}); what was finished is "
            f"kept: {cure}"
        ) from error


def _refuse_unguarded() -> None:
    """Refuse workers in a script that each of them, which imports it, would run from the start."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if file is None or (spec is not None and spec.name.endswith("__main__")) or not _runs(main):
        return
    try:
        guarded = "__name__" in Path(file).read_text(errors="replace")
    except OSError:
        return
    if not guarded:
        raise InputError(
            f"workers are processes that import {shown(file, 120)} again, and would do all that it "
            f"does; {_GUARD}, or use workers=0"
        )


def _runs(main: ModuleType) -> bool:
    """Tell whether a script's own lines called this, and not a user at a prompt."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals is vars(main) and frame.f_code.co_name == "<module>":
            return True
        frame = frame.f_back
    return False


def _begun(
    function: Callable[[Sequence[int]], Any], batches: Sequence[Sequence[int]], workers: int
) -> Iterator[Any]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error")  # torch's
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more than cores
            return iter(_loader(function, batches, workers))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"the source of the pictures or the augmentation cannot be sent to worker processes "
            f"({error}); define it in a module, or use workers=0"
        ) from error


def _loader(
    function: Callable[[Sequence[int]], Any], batches: Sequence[Sequence[int]], workers: int
) -> DataLoader[Any]:
    return DataLoader(
        _Work(function),
        batch_sampler=[list(positions) for positions in batches],
        collate_fn=_as_it_is,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # or the global one is drawn from
    )


def _as_it_is(result: Any) -> Any:
    return result
