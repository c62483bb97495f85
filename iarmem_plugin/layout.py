"""Frozen facts about one model: its blocks, scales and module paths."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float

from iarmem_plugin.arrays import Tensor
from iarmem_plugin.errors import InputError


@dataclass(frozen=True, slots=True)
class Scale:
    """One scored part of the generation.

    Attributes:
        name: ``"0"`` to ``"9"`` for VAR, ``"last token"`` for RAR.
        tokens: this scale's positions in the token dimension of a block's teacher-forced pass.
    """

    name: str
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a scale without tokens: it has no mean."""
        if not self.tokens:
            raise InputError(f"scale {self.name!r} has no tokens; give at least one position")


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """Where the neurons of one model are.

    Attributes:
        family: ``"var"`` or ``"rar"``.
        num_blocks: number of transformer blocks.
        neurons_per_block: output features of ``fc1``.
        scales: the scored scales in order.
        fc1: path of the linear layer whose weight rows an intervention edits, with ``{block}``.
        activation: path of the module whose output is captured (after GELU), with ``{block}``.
        fc2: path of the linear layer that reads the neurons, with ``{block}``.
    """

    family: str
    num_blocks: int
    neurons_per_block: int
    scales: tuple[Scale, ...]
    fc1: str
    activation: str
    fc2: str


@dataclass(frozen=True, slots=True)
class NeuronWeights:
    """The weights of the selected neurons of one block, and nothing else.

    Attributes:
        fc1_weight: incoming weights, one row a neuron.
        fc1_bias: one bias a neuron.
        fc2_weight: outgoing weights, one column a neuron.
    """

    fc1_weight: Float[Tensor, "neuron input"]
    fc1_bias: Float[Tensor, " neuron"]
    fc2_weight: Float[Tensor, "output neuron"]
