"""The augmented views a model was trained with: random crops that depend on a seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from iarmem_plugin.arrays import Tensor
from iarmem_plugin.errors import InputError


@dataclass(frozen=True, slots=True)
class Views:
    """The augmentation a model was trained with: a random crop of the resized picture.

    Attributes:
        crop: side of the square views in pixels.
        resize: the shorter side is resized to so many pixels (Lanczos); None leaves it.
        pad: width in pixels of the white border added after resizing.
    """

    crop: int
    resize: int | None = None
    pad: int = 0

    def draw(
        self, picture: Image.Image, *, image: int, count: int, seed: int
    ) -> Float[Tensor, "view 3 height width"]:
        """Draw random views of one picture.

        Each view depends on (seed, image, its number) alone: not on how many views are drawn,
        on the order or batch of the images, or on the process that draws them.

        Args:
            picture: RGB.
            image: global id of the picture.
            count: number of views.
            seed: of the whole run.

        Returns:
            RGB in [0, 1], float32.

        Raises:
            InputError: if the picture is smaller than the crop, or several views are asked for
                and there is only one place to crop.
        """
        pixels = self._pixels(picture)
        room = np.subtract(pixels.shape[:2], self.crop)
        if count > 1 and not room.any():
            raise InputError(
                f"{count} identical views: a {self.crop}-pixel crop fits in only one place of the "
                f"prepared picture {image}; use views=1, or views with a larger resize or a pad"
            )
        if count < 1 or seed < 0 or image < 0:
            raise InputError(
                f"count {count}, seed {seed} and image {image} were given; "
                "count must be 1 or more, seed and image 0 or more"
            )
        places = [_place(room, (seed, image, view)) for view in range(count)]
        return _tensor(np.stack([self._crop(pixels, top, left) for top, left in places]))

    def center(self, picture: Image.Image) -> Float[Tensor, "3 height width"]:
        """Return the deterministic centre view, RGB in [0, 1], float32."""
        pixels = self._pixels(picture)
        top, left = (round((side - self.crop) / 2) for side in pixels.shape[:2])
        return _tensor(self._crop(pixels, top, left)[None])[0]

    def _pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        pixels = np.asarray(self._resized(picture.convert("RGB")))
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

    def _crop(
        self, pixels: UInt8[np.ndarray, "height width 3"], top: int, left: int
    ) -> UInt8[np.ndarray, "crop crop 3"]:
        return pixels[top : top + self.crop, left : left + self.crop]


def refuse_identical_views(views: Float[Tensor, "image view 3 height width"]) -> None:
    """Refuse a batch in which no picture's views differ: averaging them would be pointless.

    Pictures of one colour are left out of account, since their views cannot differ.

    Raises:
        InputError: if the views of every picture are identical pixel by pixel.
    """
    if views.shape[1] < 2:
        return
    flat = views.flatten(2)
    colourful = (flat != flat[:, :1, :1]).flatten(1).any(1)
    if bool(colourful.any()) and not bool((flat != flat[:, :1]).any()):
        raise InputError(
            f"the {views.shape[1]} views of each of {len(views)} pictures are identical; "
            "use views=1, or the augmentation the model was trained with"
        )


def _place(room: np.ndarray, entropy: tuple[int, int, int]) -> tuple[int, int]:
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    top, left = generator.integers(0, room, endpoint=True)
    return int(top), int(left)


def _tensor(
    views: UInt8[np.ndarray, "view height width 3"],
) -> Float[Tensor, "view 3 height width"]:
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(views, 3, 1)))
    return planes.to(torch.float32).div_(255)
