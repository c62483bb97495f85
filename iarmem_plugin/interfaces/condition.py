"""What a model is told of each image beside its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from iarmem_plugin.errors import InputError
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    import torch

    from iarmem_plugin.data.images import Images


NO_CLASS = -1  # the label of an image of which no class is told


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What a model is told of some images; it can be sliced and moved.

    Attributes:
        label: class of each image; -1 where the pictures have no classes, or none is told.
        image: global id of each image.
        text: caption of each image; None where there are none.

    Raises:
        InputError: the parts are of different lengths.
    """

    label: Int[Tensor, " image"]
    image: Int[Tensor, " image"]
    text: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Compare the lengths."""
        _refuse_misfits(self.label, self.image, self.text)

    @classmethod
    def of(
        cls,
        label: Iterable[int] | np.ndarray | Tensor,
        *,
        image: Iterable[int] | np.ndarray | Tensor | None = None,
        text: Sequence[str] | None = None,
    ) -> Condition:
        """Make a condition from lists, arrays or tensors.

        Args:
            label: class of each image, integers.
            image: global id of each image; 0, 1, … by default.
            text: caption of each image.

        Raises:
            InputError: the parts are of different lengths, or no integers.

        Example:
            >>> len(Condition.of([3, 5, 5]))
            3
        """
        import torch

        labels = _integers(label, "labels")
        ids = torch.arange(len(labels)) if image is None else _integers(image, "ids")
        _refuse_misfits(labels, ids, text)
        return cls(labels, ids.to(labels.device), None if text is None else tuple(text))

    @classmethod
    def of_images(cls, images: Images, rows: slice | np.ndarray = slice(None)) -> Condition:
        """Return what a model is told of some pictures: their labels, ids and captions.

        Args:
            images: list of the pictures.
            rows: positions of the pictures in it; all by default.
        """
        some = images.subset(np.arange(len(images))[rows])
        return cls.of(some.labels, image=some.ids, text=some.captions)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.label)

    def __getitem__(self, rows: slice) -> Condition:
        """Return the condition of some of the images."""
        text = None if self.text is None else self.text[rows]
        return Condition(self.label[rows], self.image[rows], text)

    def without_class(self) -> Condition:
        """Return the same, but that no class is told: what guidance calls unconditional.

        Models whose adapter says `without_class` predict tokens under it.

        Example:
            >>> Condition.of([3, 5]).without_class().label.tolist()
            [-1, -1]
        """
        label = self.label.new_full(self.label.shape, NO_CLASS)
        return Condition(label, self.image, self.text)

    def to(self, device: torch.device | str) -> Condition:
        """Return the same condition on a device."""
        return Condition(self.label.to(device), self.image.to(device), self.text)

    def copy(self, device: torch.device | str) -> Condition:
        """Return the same on a device, with memory of its own."""
        label, image = (one.to(device, copy=True) for one in (self.label, self.image))
        return Condition(label, image, self.text)


def _refuse_misfits(*parts: Sequence[str] | Tensor | None) -> None:
    sizes = [len(one) for one in parts if one is not None]
    if len(set(sizes)) > 1:
        named = zip(sizes, ("labels", "ids", "captions"), strict=False)
        given = ", ".join(f"{size} {name}" for size, name in named)
        raise InputError(f"a condition was given {given}; give one of each for every image")


def _integers(values: Any, what: str) -> Tensor:
    import torch

    given = values if isinstance(values, torch.Tensor | np.ndarray) else list(values)
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the {what} of a condition cannot be made a tensor: {error}") from error
    counted = not (found.dtype == torch.bool or found.is_floating_point() or found.is_complex())
    if found.ndim != 1 or not (counted or found.numel() == 0):
        kind = f"{found.dtype} {tuple(found.shape)}".removeprefix("torch.")
        raise InputError(f"the {what} of a condition are {kind}; give one integer for each image")
    return found.to(torch.int64)
