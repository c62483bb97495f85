"""How the depth of every arm is measured: the same pictures, put into the same original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int8, Int64, Shaped
from torch import Tensor

from iarmem_plugin.evaluation.candidates import Candidates, Completes
from iarmem_plugin.evaluation.depth.patching import (
    GIVEN,
    BlockOutputs,
    block_outputs,
    patched_losses,
)
from iarmem_plugin.models.batching import Batching


@dataclass(frozen=True, slots=True, repr=False)
class DepthProtocol:
    """What is put into which model.

    Attributes:
        model: the unmodified model.
        weights_sha256: hash of its weights.
        candidates: pictures that are to be forgotten, and pictures never seen beside them.
        tokens: their tokens, from the unmodified model.
        given: first tokens of each, whose loss does not count.
        batching: pictures at a time.
        places: place of each of the candidates among those of the attack.
    """

    model: Completes
    weights_sha256: str
    candidates: Candidates
    tokens: Shaped[Tensor, "candidate token *rest"]
    given: int
    batching: Batching
    places: Int64[np.ndarray, " candidate"]

    def read(self, model: Completes) -> BlockOutputs:
        """Read what the blocks of a model hand on, edited or not; see `block_outputs`."""
        return block_outputs(model, self.candidates, self.tokens, batch_size=self.batching)

    def put(self, outputs: BlockOutputs) -> xr.Dataset:
        """Put them into the unmodified model, a block at a time; see `patched_losses`."""
        how: dict[str, Any] = {"given": self.given, "batch_size": self.batching}
        return patched_losses(self.model, outputs, self.candidates, self.tokens, **how)

    def on(self, half: Int8[np.ndarray, " candidate"], number: int) -> DepthProtocol:
        """Return the same for one half of the candidates.

        Args:
            half: half of each candidate of the attack.
            number: the half that is meant.
        """
        return self.subset(np.flatnonzero(half[self.places] == number))

    def whole(
        self, parts: Sequence[xr.Dataset], half: Int8[np.ndarray, " candidate"]
    ) -> xr.Dataset:
        """Join what came out of the two halves, in the order of the candidates."""
        order = np.concatenate([np.flatnonzero(half[self.places] == one) for one in range(2)])
        return xr.concat(parts, "candidate").isel(candidate=np.argsort(order))

    def subset(self, positions: np.ndarray) -> DepthProtocol:
        """Return the same for some of the candidates."""
        return replace(
            self,
            candidates=self.candidates.subset(positions),
            tokens=self.tokens[positions],
            places=self.places[positions],
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """Return what the losses depend on beside the arm's model; JSON values."""
        return {
            "put into": self.weights_sha256,
            "ids": self.candidates.images.ids.tolist(),
            GIVEN: self.given,
        }
