"""Augmentation: what makes the views of a picture that a model is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from iarmem_plugin.errors import InputError
from iarmem_plugin.typing import Tensor


class Augmentation(ABC):
    """Makes square views of a picture.

    A view depends on the picture, its global id, the view's number and the seed alone: not on how
    many views are drawn, on the order or batch of the images, or on the process that draws them.
    """

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """Return the name and the settings, for the report."""

    @abstractmethod
    def draw_pixels(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> UInt8[np.ndarray, "view height width 3"]:
        """Draw the first `count` views of one picture, RGB; see `draw`."""

    @abstractmethod
    def center_pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the centre view, RGB; see `center`."""

    def draw(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> Float[Tensor, "view 3 height width"]:
        """Draw views of one picture.

        Args:
            picture: RGB.
            image: global id of the picture.
            count: number of views.
            seed: of the whole run.

        Returns:
            RGB in [0, 1], float32.

        Raises:
            InputError: if the picture is too small, or has not so many different views.
        """
        return _tensor(self.draw_pixels(picture, image=image, count=count, seed=seed))

    def center(self, picture: Image.Image) -> Float[Tensor, "3 height width"]:
        """Return the one deterministic view, RGB in [0, 1], float32."""
        return _tensor(self.center_pixels(picture)[None])[0]


@dataclass(frozen=True, slots=True)
class CustomViews(Augmentation):
    """Views drawn by your own function.

    Attributes:
        function: called as ``function(picture, image=…, view=…, seed=…)`` for each view; returns a
            picture or uint8 (height, width, 3). It must depend on its arguments alone, and be
            defined in a module if pictures are decoded in worker processes.
        center_of: its centre view is the one taken where a single view is asked for.
        name: what tells it from others, such as its parameters; needed unless it is a function of
            a module, whose own name does.
    """

    function: Callable[..., Image.Image | np.ndarray]
    center_of: Augmentation
    name: str = ""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return the function's name and what makes the centre view.

        Raises:
            InputError: if the function's own name does not tell it from others, and no name was
                given: a run with other views would be taken for the same.
        """
        own = getattr(self.function, "__qualname__", "<no function>")
        if not self.name and "<" in own:
            raise InputError(
                f"views drawn by {self.function!r} cannot be told from others of its kind; use a "
                "function of a module, or say what it does: CustomViews(…, name='rotated by 20')"
            )
        function = self.name or f"{self.function.__module__}.{own}"
        center = dict(self.center_of.provenance)
        return {"name": "custom", "function": function, "center_of": center}

    def draw_pixels(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> UInt8[np.ndarray, "view height width 3"]:
        """Call the function for each view.

        Raises:
            InputError: if it returns something else than pictures of one size.
        """
        check_draw(image, count, seed)
        drawn = [self.function(picture, image=image, view=v, seed=seed) for v in range(count)]
        views = [np.asarray(v.convert("RGB") if isinstance(v, Image.Image) else v) for v in drawn]
        kinds = {f"{view.dtype} {view.shape}" for view in views}
        if len(kinds) != 1 or views[0].dtype != np.uint8 or views[0].shape[2:] != (3,):
            raise InputError(
                f"the views of picture {image} are {', '.join(sorted(kinds))}; your function must "
                "return RGB pictures, or uint8 (height, width, 3), all of one size"
            )
        return np.stack(views)

    def center_pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the other augmentation's centre view."""
        return self.center_of.center_pixels(picture)


def refuse_identical_views(views: Shaped[Tensor, "image view 3 height width"]) -> None:
    """Refuse a batch in which no picture's views differ: averaging them would be pointless.

    Pictures of one colour are left out of account, since their views cannot differ.

    Raises:
        InputError: if the views of every picture are identical pixel by pixel.
    """
    if views.shape[1] < 2 or any(bool((one[1:] != one[:1]).any()) for one in views):
        return
    if bool((views != views[:, :1, :, :1, :1]).any()):
        raise InputError(
            f"the {views.shape[1]} views of each of {len(views)} pictures are identical; "
            "use views=1, or the augmentation the model was trained with"
        )


def check_draw(image: int, count: int, seed: int) -> None:
    """Refuse numbers that no views can be drawn with."""
    if count < 1 or seed < 0 or image < 0:
        raise InputError(
            f"count {count}, seed {seed} and image {image} were given; "
            "count must be 1 or more, seed and image 0 or more"
        )


def _tensor(
    views: UInt8[np.ndarray, "view height width 3"],
) -> Float[Tensor, "view 3 height width"]:
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(views, 3, 1)))
    return planes.to(torch.float32).div_(255)
