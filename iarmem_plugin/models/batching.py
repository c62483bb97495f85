"""Batching: how many images go through a model at a time, fewer where memory does not suffice."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from iarmem_plugin.errors import BatchMemoryError, InputError
from iarmem_plugin.progress import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

_SIGNS = (  # how torch says it where the error has no class of its own
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class Batching:
    """A number of images that is halved when that many do not fit in memory, and stays halved.

    Share one among calls of the same work, and the later calls start from what fitted.

    Attributes:
        size: number of images at a time, 1 or more.

    Raises:
        InputError: the size is below 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise InputError(f"the batch size must be 1 or more, got {size}")
        self.size = size

    def __repr__(self) -> str:
        """Return the size."""
        return f"Batching({self.size})"

    @classmethod
    def of(cls, size: int | Batching) -> Batching:
        """Return the batching itself, or a new one of this size."""
        return size if isinstance(size, Batching) else cls(size)

    def over(
        self,
        count: int,
        work: Callable[[slice], T],
        *,
        progress: Progress | None = None,
        description: str = "",
    ) -> Iterator[T]:
        """Do some work on `count` images, batch by batch, and yield what it returns.

        A batch that does not fit in memory is halved and tried again; a warning says so once,
        when a size fits. So the work must give each image the same in any batch, and leave
        nothing behind when it fails.

        Args:
            count: number of images.
            work: function that takes the slice of the images that it is to do.
            progress: display to which a bar of the images is added.
            description: text beside the bar.

        Yields:
            what the work returns for each batch.

        Raises:
            InputError: there are no images.
            BatchMemoryError: not even one image fits.
        """
        if count == 0:
            raise InputError("there are no images; give at least one")
        advance = progress_bar(progress, description, count)
        start = 0
        while start < count:
            done, start, before = *self._fitting(count, start, work), start
            yield done
            advance(start - before)

    def _fitting(self, count: int, start: int, work: Callable[[slice], T]) -> tuple[T, int]:
        """Return what the work gives for the next images, and where the images after them start."""
        first = min(self.size, count - start)
        while True:
            rows = slice(start, min(start + self.size, count))
            done = _attempt(work, rows)
            if done:
                break
            self.size = _halved(rows.stop - start)
        if self.size < first:
            message = f"{first} images at once do not fit in memory; going on with {self.size}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)  # the loop that takes the batches
        return done[0], rows.stop


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on the CPU or on a GPU."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _attempt(work: Callable[[slice], T], rows: slice) -> list[T]:
    """Return the one result, or nothing where memory ran out; then what it held is let go."""
    try:
        return [work(rows)]
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, BatchMemoryError) or not is_out_of_memory(error):
            raise
    _release()
    return []


def _release() -> None:
    gc.collect()  # a failed trace is a cycle that holds tensors
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _halved(size: int) -> int:
    if size == 1:
        raise BatchMemoryError(
            "not even one image at a time fits in memory; use a smaller model, a narrower dtype "
            "such as bfloat16, or a device with more memory"
        )
    return size // 2
