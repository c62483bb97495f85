"""The weights of selected neurons before and after an edit, and edits of them in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Intervention, ModelLayout, NeuronWeights
from iarmem_plugin.neurons.selectors import by_number


@dataclass(frozen=True, slots=True)
class Change:
    """The selected neurons of one block, before and after an edit.

    Attributes:
        index: numbers of the neurons, ascending.
        before: weights before the edit.
        after: weights after the edit.
        added: change of the outgoing weights; None where the edit leaves these alone.
    """

    index: Int[Tensor, " neuron"]
    before: NeuronWeights
    after: NeuronWeights
    added: Float[Tensor, "output neuron"] | None


def chosen_neurons(
    layout: ModelLayout, neurons: xr.DataArray, device: torch.device
) -> dict[int, Int[Tensor, " neuron"]]:
    """Return the numbers of the selected neurons of each block that has any.

    Args:
        layout: layout of the model.
        neurons: which neurons are selected, bool, dims (block, neuron).
        device: device of the model.

    Raises:
        InputError: the neurons are of another model, or one of them comes twice.
    """
    expected = {"block": layout.num_blocks, "neuron": layout.neurons_per_block}
    if dict(neurons.sizes) != expected:
        raise InputError(f"got neurons of sizes {dict(neurons.sizes)}, the model has {expected}")
    selected = by_number(neurons).transpose("block", "neuron").values.astype(bool)
    blocks = np.flatnonzero(selected.any(axis=1)).tolist()
    found = {block: torch.from_numpy(np.flatnonzero(selected[block])) for block in blocks}
    return {block: index.to(device) for block, index in found.items()}


@dataclass(frozen=True, slots=True)
class EditableWeights:
    """Reads and writes the weights of selected neurons of a network.

    Attributes:
        network: transformer that the neurons are in.
        layout: facts about where they are.
    """

    network: nn.Module
    layout: ModelLayout

    def read(self, block: int, index: Int[Tensor, " neuron"]) -> NeuronWeights:
        """Return copies of the weights."""
        fc1, fc2 = self._linear(self.layout.fc1, block), self._linear(self.layout.fc2, block)
        return NeuronWeights(
            fc1_weight=fc1.weight.detach()[index],
            fc1_bias=fc1.bias.detach()[index],
            fc2_weight=fc2.weight.detach()[:, index],
        )

    @torch.no_grad()
    def write(self, block: int, index: Int[Tensor, " neuron"], weights: NeuronWeights) -> None:
        """Replace the weights in place."""
        fc1 = self._linear(self.layout.fc1, block)
        fc1.weight[index] = weights.fc1_weight
        fc1.bias[index] = weights.fc1_bias
        self._linear(self.layout.fc2, block).weight[:, index] = weights.fc2_weight

    def change(
        self,
        block: int,
        index: Int[Tensor, " neuron"],
        intervention: Intervention,
        earlier: Sequence[Mapping[int, Change]] = (),
    ) -> Change:
        """Work out an edit on top of the weights and of earlier edits that left them alone.

        Args:
            block: number of the block.
            index: numbers of the selected neurons, ascending.
            intervention: change to their weights.
            earlier: edits that the trace makes, by block, in their order.
        """
        before = self.read(block, index)
        for changes in earlier:
            if block in changes:
                before = _overlaid(before, index, changes[block], self.layout.neurons_per_block)
        after = intervention.edit(before)
        added = after.fc2_weight - before.fc2_weight
        return Change(index, before, after, added if bool(added.any()) else None)

    def _linear(self, path: str, block: int) -> nn.Linear:
        return cast(nn.Linear, self.network.get_submodule(path.format(block=block)))


@dataclass(eq=False, slots=True)
class _Edit:
    """One edit in place, as it was asked for and as it was made."""

    chosen: Mapping[int, Tensor]
    intervention: Intervention
    changes: dict[int, Change] = field(default_factory=dict)


class WeightEdits:
    """The edits that a network's weights bear at the moment, in the order they were made.

    Args:
        weights: access to the network's weights.
    """

    def __init__(self, weights: EditableWeights) -> None:
        self._weights = weights
        self._edits: list[_Edit] = []

    @contextmanager
    def made(self, chosen: Mapping[int, Tensor], intervention: Intervention) -> Iterator[None]:
        """Change the weights, and put them back exactly, in whatever order edits are left.

        Args:
            chosen: numbers of the selected neurons of each block that has any.
            intervention: change to their weights.
        """
        edit = _Edit(chosen, intervention)
        try:
            self._apply(edit)
            yield
        finally:
            later = self._edits[self._edits.index(edit) + 1 :]
            for one in (*reversed(later), edit):
                self._take_back(one)
            for one in later:
                self._apply(one)

    def _apply(self, edit: _Edit) -> None:
        self._edits.append(edit)
        for block, index in edit.chosen.items():
            change = self._weights.change(block, index, edit.intervention)
            edit.changes[block] = change
            self._weights.write(block, index, change.after)

    def _take_back(self, edit: _Edit) -> None:
        self._edits.remove(edit)
        for block, change in edit.changes.items():
            self._weights.write(block, change.index, change.before)


def _overlaid(weights: NeuronWeights, index: Tensor, change: Change, neurons: int) -> NeuronWeights:
    """Put an earlier edit's weights in the place of those of the neurons that it edits, too."""
    row = torch.full((neurons,), -1, device=index.device)
    row[change.index] = torch.arange(len(change.index), device=index.device)
    both = row[index] >= 0
    source = row[index][both]
    parts = (weights.fc1_weight, weights.fc1_bias, weights.fc2_weight)
    rows, biases, columns = (part.clone() for part in parts)
    rows[both] = change.after.fc1_weight[source]
    biases[both] = change.after.fc1_bias[source]
    columns[:, both] = change.after.fc2_weight[:, source]
    return NeuronWeights(rows, biases, columns)
