"""Random numbers of each image's own, so that its tokens do not depend on its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_plugin.errors import InputError

BLOCK = 1024  # numbers drawn at once for an image; more than a released model has tokens


class Draws:
    """One stream of uniform random numbers an image, the same on every device."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        """Start each image's stream from its seed.

        Args:
            seeds: one an image.
            device: where tokens are chosen.
        """
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._uniform = torch.empty(len(self._streams), 0, dtype=torch.float64, device=device)

    def choose(
        self, probabilities: Float[Tensor, "image place vocab"]
    ) -> Int[Tensor, "image place"]:
        """Draw one token a place: the first whose cumulated probability exceeds the number.

        A token without probability is never drawn. Sums are float64.

        Raises:
            InputError: there are not as many images as seeds.
        """
        images, places, _ = probabilities.shape
        if images != len(self._streams):
            raise InputError(f"got {len(self._streams)} seeds for {images} images; give one each")
        cumulated = probabilities.cumsum(2, dtype=torch.float64)
        total = cumulated[..., -1:]
        below = torch.nextafter(total, torch.zeros_like(total))
        drawn = torch.minimum(self._next(places).unsqueeze(2) * total, below)
        found = torch.searchsorted(cumulated, drawn, right=True).squeeze(2)
        return found.clamp_(max=probabilities.shape[2] - 1)  # NaN is above all, as for argmax

    def _next(self, places: int) -> Float[Tensor, "image place"]:
        """Return the next numbers of each stream, in [0, 1)."""
        while self._uniform.shape[1] < places:
            self._uniform = torch.cat((self._uniform, self._block()), dim=1)
        numbers, self._uniform = self._uniform[:, :places], self._uniform[:, places:]
        return numbers

    def _block(self) -> Float[Tensor, "image number"]:
        rows = [torch.rand(BLOCK, generator=one, dtype=torch.float64) for one in self._streams]
        return torch.stack(rows).to(self._uniform.device)
