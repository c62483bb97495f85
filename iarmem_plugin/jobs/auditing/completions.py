"""What came back of the audited pictures, small, for the page."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from iarmem_plugin.data.images import Images
from iarmem_plugin.report.auditing.findings import EXTRACTED, RECOGNISABLE, Verdict

SMALL = 64  # pixels of a picture on the page


class Completions:
    """Keeps the best attempt on each of the first pictures: by similarity, and by agreement.

    Args:
        images: the audited pictures, which are the first of those that triggers are tried on.
        targets: what attempts are compared with; RGB in [0, 1].
    """

    def __init__(self, images: Images, targets: Float[Tensor, "candidate 3 height width"]) -> None:
        self._images, self._targets = images, targets
        self._best: dict[tuple[Verdict, int], tuple[float, np.ndarray]] = {}

    def keep(
        self,
        rows: slice,
        made: Float[Tensor, "image 3 height width"],
        alike: np.ndarray,
        agreeing: np.ndarray,
    ) -> None:
        """Take attempts on some pictures, with their similarity and their agreement."""
        places = range(rows.start, min(rows.stop, len(self._images)))
        for image, place in enumerate(places):
            for verdict, values in ((EXTRACTED, alike), (RECOGNISABLE, agreeing)):
                value, key = float(values[image]), (verdict, place)
                if key not in self._best or value > self._best[key][0]:
                    self._best[key] = (value, _small(_picture(made[image])))

    def of(self, place: int, verdict: Verdict) -> dict[str, Any]:
        """Return the picture, and what came back of it where it was brought back."""
        if place >= len(self._images):
            return {}
        if (verdict, place) not in self._best:
            return {"pixels": _small(self._images.load(place))}
        pixels = _small(_picture(self._targets[place]))
        return {"pixels": pixels, "completion": self._best[verdict, place][1]}


def _picture(pixels: Float[Tensor, "3 height width"]) -> Image.Image:
    whole = (pixels.detach().float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(whole.permute(1, 2, 0).cpu().numpy())


def _small(picture: Image.Image) -> np.ndarray:
    made = picture.convert("RGB")
    made.thumbnail((SMALL, SMALL))
    pixels: np.ndarray = np.asarray(made, np.uint8)
    return pixels
