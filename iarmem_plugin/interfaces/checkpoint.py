"""A transformer's weights as their file holds them, to be edited and written anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a weight file holds, and the transformer that it is of, on the same tensors.

    A change of the network's weights in place changes the content, and nothing else in it; the
    file itself stays as it is. Nothing is cast: each tensor has the file's own dtype.

    Attributes:
        network: the transformer, on the CPU.
        layout: where its neurons are.
        content: all that the file holds, as ``torch.save`` is to write it again.
        state: the transformer's tensors by their official names, in the official order.
        path: place of the file.
        facts: what identifies it: ``name`` without folder, ``sha256``, ``bytes``, and ``place``
            where the weights lie deeper in it.
    """

    network: nn.Module
    layout: ModelLayout
    content: object
    state: Mapping[str, Tensor]
    path: Path
    facts: Mapping[str, str | int]
