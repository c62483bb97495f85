"""The weights of selected neurons before and after an edit, and edits of them in place."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast
from weakref import WeakValueDictionary

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_plugin.borrowing import uninterrupted
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Intervention, ModelLayout, NeuronWeights
from iarmem_plugin.neurons.selectors import by_number
from iarmem_plugin.plugins.blame import author, blamed


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


class Place(NamedTuple):
    """The parameters that hold one block's neurons."""

    fc1_weight: nn.Parameter
    fc1_bias: nn.Parameter
    fc2_weight: nn.Parameter

    @torch.no_grad()
    def write(self, index: Int[Tensor, " neuron"], weights: NeuronWeights) -> None:
        """Replace the weights of some neurons in place, wherever the parameters lie by now."""
        index = index.to(self.fc1_weight.device)
        self.fc1_weight[index] = weights.fc1_weight.to(self.fc1_weight)
        self.fc1_bias[index] = weights.fc1_bias.to(self.fc1_bias)
        self.fc2_weight[:, index] = weights.fc2_weight.to(self.fc2_weight)
        torch.clear_autocast_cache()  # which holds casts of the weights as they were


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

    def place(self, block: int) -> Place:
        """Return the parameters that hold a block's neurons.

        Raises:
            InputError: a weight is computed anew at every pass, so writing it would change nothing.
        """
        fc1, fc2 = self.layout.fc1, self.layout.fc2
        entries = ((fc1, "weight"), (fc1, "bias"), (fc2, "weight"))
        return Place(*(self._parameter(block, *entry) for entry in entries))

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

        Raises:
            InputError: the intervention returned other shapes, or values that are not finite.
        """
        before = self.read(block, index)
        for changes in earlier:
            if block in changes:
                before = _overlaid(before, index, changes[block], self.layout.neurons_per_block)
        with blamed(intervention):
            edited: object = intervention.edit(before)
        after = _checked(intervention, before, edited)
        added = after.fc2_weight - before.fc2_weight
        return Change(index, before, after, added if bool(added.any()) else None)

    def _parameter(self, block: int, path: str, name: str) -> nn.Parameter:
        parameter = self._linear(path, block)._parameters.get(name)
        if parameter is None:
            raise InputError(
                f"'{path.format(block=block)}.{name}' is no parameter of its own (a "
                "parametrization, or none at all), so an edit of it would have no effect: edit "
                "with backend='trace', or remove the parametrization"
            )
        return parameter

    def _linear(self, path: str, block: int) -> nn.Linear:
        return cast(nn.Linear, self.network.get_submodule(path.format(block=block)))


@dataclass(eq=False, slots=True)
class _Edit:
    """One edit in place, as it was asked for and as far as it was made.

    Attributes:
        chosen: numbers of the selected neurons, by block.
        intervention: change to their weights.
        changes: what it may have written, and where; known before anything is written.
        made: whether all of it is written.
        left: whether its time is over.
    """

    chosen: Mapping[int, Tensor]
    intervention: Intervention
    changes: list[tuple[Place, Change]] = field(default_factory=list)
    made: bool = False
    left: bool = False


_OF_NETWORKS: WeakValueDictionary[int, WeightEdits] = WeakValueDictionary()


class WeightEdits:
    """The edits that a network's weights bear at the moment, in the order they were made.

    Whatever interrupts the writing of weights, what is left to do is known, and `settle` does it:
    at once, at the next use of the model, and when Python ends.

    Args:
        weights: access to the network's weights.
    """

    def __init__(self, weights: EditableWeights) -> None:
        self._weights = weights
        self._edits: list[_Edit] = []
        weakref.finalize(self, _put_back, self._edits)

    @classmethod
    def of(cls, weights: EditableWeights) -> WeightEdits:
        """Return the edits of a network, the same for everyone who wraps it."""
        known = _OF_NETWORKS.get(id(weights.network))
        if known is None:
            known = _OF_NETWORKS[id(weights.network)] = cls(weights)
        return known

    @property
    def blocks(self) -> set[int]:
        """Return the numbers of the blocks that are edited."""
        return {block for edit in self._edits for block in edit.chosen}

    @contextmanager
    def made(self, chosen: Mapping[int, Tensor], intervention: Intervention) -> Iterator[None]:
        """Change the weights, and put them back exactly, in whatever order edits are left.

        Args:
            chosen: numbers of the selected neurons of each block that has any.
            intervention: change to their weights.

        Raises:
            InputError: a weight is computed anew at every pass.
        """
        edit = _Edit(chosen, intervention)
        try:
            self._edits.append(edit)
            self.settle()
            yield
        finally:
            edit.left = True
            try:
                self.settle()
            except BaseException:
                self.settle()  # an interruption is passed on when nothing is left half done
                raise

    def settle(self) -> None:
        """Put back the edits that were left, and make those that are not made, in their order."""
        pending = (n for n, edit in enumerate(self._edits) if edit.left or not edit.made)
        first = next(pending, None)
        if first is None:
            return
        with uninterrupted():
            _put_back(self._edits, first)
            self._edits[:] = [edit for edit in self._edits if not edit.left]
            for edit in self._edits[first:]:
                self._make(edit)

    def _make(self, edit: _Edit) -> None:
        edit.changes = [
            (self._weights.place(block), self._weights.change(block, index, edit.intervention))
            for block, index in edit.chosen.items()
        ]
        for place, change in edit.changes:
            place.write(change.index, change.after)
        edit.made = True


def _put_back(edits: list[_Edit], first: int = 0) -> None:
    """Write what was there before some edits; begun again, it comes to the same."""
    for edit in reversed(edits[first:]):
        edit.made = False
        for place, change in reversed(edit.changes):
            place.write(change.index, change.before)
        edit.changes = []


def _checked(intervention: Intervention, before: NeuronWeights, after: object) -> NeuronWeights:
    if not isinstance(after, NeuronWeights):
        raise PluginError(
            f"{author(intervention)} returned a {type(after).__name__}; expected NeuronWeights"
        )
    for name in ("fc1_weight", "fc1_bias", "fc2_weight"):
        given, edited = getattr(before, name), getattr(after, name)
        if edited.shape != given.shape:
            found = f"{name} of shape {tuple(edited.shape)}, expected {tuple(given.shape)}"
        elif not edited.isfinite().all():
            found = f"{name} with values that are not finite"
        else:
            continue
        raise InputError(f"the intervention {intervention.name!r} returned {found}")
    return after


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
