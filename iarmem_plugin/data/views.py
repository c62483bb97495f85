"""The augmentations that VAR and RAR were trained with: random crops, and ten fixed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from iarmem_plugin.data.augmentation import Augmentation, check_draw
from iarmem_plugin.errors import InputError


@dataclass(frozen=True, slots=True)
class Views(Augmentation):
    """Random crops of the resized picture, as VAR was trained with.

    Attributes:
        crop: side of the square views in pixels.
        resize: the shorter side is resized to so many pixels (Lanczos); None leaves it.
        pad: width in pixels of the white border added after resizing.
        flip: mirror each view with probability 1/2; the published VAR models saw none.
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


def _center_square(picture: Image.Image, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Return the centre of a picture whose shorter side was resized, as ADM does."""
    picture = picture.convert("RGB")
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
