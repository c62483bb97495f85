"""Descriptors of pictures by a network in TorchScript's file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.networks.pictures import BY_IMAGENET, imagenet_normalised
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    import torch


class TorchScriptNetwork:
    """RGB in [0, 1] in, descriptors [image, feature] out; it runs where the images are.

    Args:
        data: what is in the file.
        path: how messages call it.

    Attributes:
        kind: what runs it.
        normalisation: how colours are normalised.
        side: height and width that pictures must have; None for any.

    Raises:
        InputError: it is no TorchScript.
    """

    kind, normalisation, side = "TorchScript", BY_IMAGENET, None

    def __init__(self, data: bytes, path: Path) -> None:
        import torch

        self._path = path
        with self._refused():
            network: torch.jit.ScriptModule = torch.jit.load(BytesIO(data), map_location="cpu")
            self._network = network
            self._network.eval()

    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image feature"]:
        """Return the descriptors of images."""
        found: Tensor = self._network.to(images.device)(imagenet_normalised(images))
        return found

    def try_out(self, side: int) -> None:
        """Refuse a network that makes no descriptors of two black pictures."""
        import torch

        with self._refused(f" of {side} x {side} RGB images"), torch.no_grad():
            descriptors = self._network(torch.zeros(2, 3, side, side))
        if not isinstance(descriptors, torch.Tensor) or descriptors.shape[:-1] != (2,):
            raise InputError(
                f"{self._path} returns no descriptor [image, feature]; it is not an SSCD network"
            )

    @contextmanager
    def _refused(self, of: str = "") -> Iterator[None]:
        with warnings.catch_warnings():
            # SSCD is published as TorchScript; that torch would rather not read it helps no user.
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecat", DeprecationWarning)
            try:
                yield
            except (RuntimeError, ValueError) as error:
                first = str(error).strip().partition("\n")[0]
                raise InputError(
                    f"{self._path} is not a TorchScript network{of}: {first}; give the "
                    ".torchscript.pt file, not the one with bare weights"
                ) from error
