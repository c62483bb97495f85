"""Augmentation: what makes the views of a picture that a model is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped, UInt8
from PIL import Image

from iarmem_plugin.data.readers import in_rgb
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
        """Draw the first `count` views of one picture, in RGB; see `draw`."""

    @abstractmethod
    def center_pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the centre view, RGB; see `center`."""

    def draw(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> Float[Tensor, "view 3 height width"]:
        """Draw views of one picture.

        Args:
            picture: picture in RGB.
            image: global id of the picture.
            count: number of views.
            seed: seed for drawing the views, the same for all pictures of a run.

        Returns:
            RGB in [0, 1], float32.

        Raises:
            InputError: if the picture is too small, or does not have so many different views.
        """
        return _tensor(self.draw_pixels(picture, image=image, count=count, seed=seed))

    def center(self, picture: Image.Image) -> Float[Tensor, "3 height width"]:
        """Return the one deterministic view, RGB in [0, 1], float32."""
        return _tensor(self.center_pixels(picture)[None])[0]

    def still(self, picture: Image.Image, *, image: int) -> Float[Tensor, "3 height width"]:
        """Return the one view that is completed and predicted: the centre, unless it is another.

        Args:
            picture: picture in RGB.
            image: global id of the picture.
        """
        return self.center(picture)


@dataclass(frozen=True, slots=True)
class OneView(Augmentation):
    """Completes and predicts one of the views of a training in place of the centre view.

    Attributes:
        views: the augmentation of the training.
        number: which of its views, from 0.
        seed: seed for drawing the views.
    """

    views: Augmentation
    number: int
    seed: int = 0

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return the augmentation's, and which view is taken."""
        return {**self.views.provenance, "taken": self.number, "seed": self.seed}

    def draw_pixels(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> UInt8[np.ndarray, "view height width 3"]:
        """Draw the first `count` views of the training."""
        return self.views.draw_pixels(picture, image=image, count=count, seed=seed)

    def center_pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the centre view."""
        return self.views.center_pixels(picture)

    def still(self, picture: Image.Image, *, image: int) -> Float[Tensor, "3 height width"]:
        """Return the view that is taken.

        Raises:
            InputError: there are not so many views.
        """
        return self.draw(picture, image=image, count=self.number + 1, seed=self.seed)[-1]


@dataclass(frozen=True, slots=True)
class Views(Augmentation):
    """Random crops of the resized picture, as VAR was trained with.

    Attributes:
        crop: side of the square views in pixels.
        resize: length in pixels that the shorter side is resized to (Lanczos); None leaves it.
        pad: width in pixels of the white border added after resizing.
        flip: whether each view is mirrored with probability 1/2; the published VAR models saw no
            mirrored views.
    """

    crop: int
    resize: int | None = None
    pad: int = 0
    flip: bool = False

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return the name and the settings."""
        return {"name": "random crops"} | asdict(self)

    def draw_pixels(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> UInt8[np.ndarray, "view height width 3"]:
        """Draw random crops.

        Raises:
            InputError: if the picture is smaller than the crop, or several views are asked for
                and there is only one place to crop.
        """
        pixels = self._pixels(picture)
        room = np.subtract(pixels.shape[:2], self.crop)
        if count > 1 and not (room.any() or self.flip):
            raise InputError(
                f"{count} identical views: a {self.crop}-pixel crop fits in only one place of the "
                f"prepared picture {image}; use views=1, or views with a larger resize or a pad"
            )
        check_draw(image, count, seed)
        return np.stack([self._view(pixels, room, (seed, image, view)) for view in range(count)])

    def center_pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the centre of the prepared picture."""
        return _center(self._pixels(picture), self.crop)

    def _view(
        self,
        pixels: UInt8[np.ndarray, "height width 3"],
        room: Integer[np.ndarray, " 2"],
        entropy: tuple[int, int, int],
    ) -> UInt8[np.ndarray, "crop crop 3"]:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        top, left = generator.integers(0, room, endpoint=True)
        mirrored = self.flip and generator.integers(2) == 1
        return _crop(pixels[:, ::-1] if mirrored else pixels, int(top), int(left), self.crop)

    def _pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        pixels = np.asarray(self._resized(in_rgb(picture)))
        if self.pad:
            border = ((self.pad, self.pad), (self.pad, self.pad), (0, 0))
            pixels = np.pad(pixels, border, constant_values=255)
        if min(pixels.shape[:2]) < self.crop:
            raise InputError(
                f"a picture of {picture.width} x {picture.height} pixels is too small for "
                f"{self.crop}-pixel views; give larger pictures, or views with a resize"
            )
        return pixels

    def _resized(self, picture: Image.Image) -> Image.Image:
        short = min(picture.size)
        if self.resize is None or short == self.resize:
            return picture
        width, height = (self.resize * side // short for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)


@dataclass(frozen=True, slots=True)
class TenCrops(Augmentation):
    """The ten fixed crops that RAR's training tokens were made from.

    The picture is cropped to a square of 1.1 crops, then to its top left, top right, bottom
    left, bottom right and centre; then the same five are taken of the mirrored square. Nothing is
    random, so the seed changes nothing, and fewer views are the first of the ten. The centre view
    is that of the training without ten crops: the picture cropped to a square of one crop.

    Attributes:
        crop: side of the square views in pixels.

    Reference:
        The centre crop is that of ADM (Dhariwal and Nichol 2021, arXiv 2105.05233).
    """

    crop: int

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return the name and the settings."""
        return {"name": "ten crops"} | asdict(self)

    def draw_pixels(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> UInt8[np.ndarray, "view height width 3"]:
        """Return the first `count` of the ten crops.

        Raises:
            InputError: if more than ten are asked for.
        """
        check_draw(image, count, seed)
        if count > 10:
            raise InputError(
                f"{count} views were asked for, and there are ten crops: use views=10, or another "
                "augmentation, such as iarmem_plugin.Views"
            )
        square = _center_square(picture, int(self.crop * 1.1))
        end = len(square) - self.crop
        corners = [(0, 0), (0, end), (end, 0), (end, end), (round(end / 2), round(end / 2))]
        sides = (square, square[:, ::-1])
        crops = [_crop(side, top, left, self.crop) for side in sides for top, left in corners]
        return np.stack(crops[:count])

    def center_pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the picture, cropped to a square and resized."""
        return _center_square(picture, self.crop)


@dataclass(frozen=True, slots=True)
class CustomViews(Augmentation):
    """Views drawn by your own function.

    Attributes:
        function: function called as ``function(picture, image=…, view=…, seed=…)`` for each view,
            which returns a picture or uint8 (height, width, 3). It must depend on its arguments
            alone, and be defined in a module if pictures are decoded in worker processes.
        center_of: augmentation whose centre view is taken where a single view is asked for.
        name: text that tells the function from others, such as its parameters; needed unless it is
            a function of a module, whose own name does.
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
            InputError: if it returns anything but pictures of one size.
        """
        check_draw(image, count, seed)
        drawn = [self.function(picture, image=image, view=v, seed=seed) for v in range(count)]
        views = [np.asarray(in_rgb(v) if isinstance(v, Image.Image) else v) for v in drawn]
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

    Args:
        views: views of each picture of the batch.

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
    """Refuse numbers that no views can be drawn with.

    Args:
        image: global id of the picture.
        count: number of views.
        seed: seed for drawing the views.

    Raises:
        InputError: if the count is below 1, or another number below 0.
    """
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


def _center_square(picture: Image.Image, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Return the centre of a picture whose shorter side was resized, as ADM does."""
    picture = in_rgb(picture)
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    short = min(picture.size)
    width, height = (round(length * side / short) for length in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return _crop(pixels, (height - side) // 2, (width - side) // 2, side)


def _center(
    pixels: UInt8[np.ndarray, "height width 3"], side: int
) -> UInt8[np.ndarray, "side side 3"]:
    top, left = (round((length - side) / 2) for length in pixels.shape[:2])
    return _crop(pixels, top, left, side)


def _crop(
    pixels: UInt8[np.ndarray, "height width 3"], top: int, left: int, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    return pixels[top : top + side, left : left + side]
