"""The weights of selected neurons before and after an edit, and edits of them in place."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_plugin.borrowing import uninterrupted
from iarmem_plugin.checks import check_kind
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import MLP, Intervention, ModelLayout, NeuronFacts, NeuronWeights
from iarmem_plugin.neurons.selectors import by_number
from iarmem_plugin.neurons.slices import Slice, gathered, slices
from iarmem_plugin.plugins.blame import author, blamed
from iarmem_plugin.text import shown

READS = ("reads", "weight")


@dataclass(frozen=True, slots=True)
class Change:
    """The selected neurons of one block, before and after an edit.

    Attributes:
        before: weights before the edit.
        after: weights after the edit.
        reads: names of the maps into the neurons whose weights or biases are changed.
        added: change of the outgoing weights; None where the edit leaves these alone.
    """

    before: NeuronWeights
    after: NeuronWeights
    reads: frozenset[str]
    added: Float[Tensor, "output neuron"] | None

    @classmethod
    def between(cls, before: NeuronWeights, after: NeuronWeights) -> Change:
        """Return what an edit changed."""
        changed = [
            name
            for name in before.reads
            if not (
                torch.equal(before.reads[name], after.reads[name])
                and _equal(before.biases[name], after.biases[name])
            )
        ]
        added = after.writes - before.writes
        return cls(before, after, frozenset(changed), added if bool(added.any()) else None)

    @property
    def acts(self) -> bool:
        """Whether anything is changed."""
        return bool(self.reads) or self.added is not None

    @property
    def index(self) -> Int[Tensor, " neuron"]:
        """Numbers of the neurons, ascending."""
        return self.before.index


def chosen_neurons(
    layout: ModelLayout,
    neurons: xr.DataArray,
    device: torch.device,
    mean: xr.DataArray | None = None,
) -> list[NeuronFacts]:
    """Return the selected neurons of each block that has any, in the order of blocks.

    Args:
        layout: layout of the model.
        neurons: which neurons are selected, bool, dims (block, neuron).
        device: device of the model.
        mean: mean activation of every neuron, dims (block, neuron); None where it is not known.

    Raises:
        InputError: the neurons or the means are of another model, or one of them comes twice.
    """
    selected = _by_block(layout, neurons, "neurons")
    if selected.dtype.kind not in "biu" or not np.isin(selected, (0, 1)).all():
        raise InputError(
            f"the neurons are {selected.dtype}; expected an array of truth values that says which "
            "are selected, as from select"
        )
    selected = selected.astype(bool)
    means = None if mean is None else _by_block(layout, mean, "means").astype(np.float32)
    found = []
    for block in np.flatnonzero(selected.any(axis=1)).tolist():
        index = np.flatnonzero(selected[block])
        own = None if means is None else torch.from_numpy(means[block][index]).to(device)
        found.append(NeuronFacts(block, torch.from_numpy(index).to(device), own))
    return found


def _by_block(layout: ModelLayout, values: xr.DataArray, what: str) -> np.ndarray:
    check_kind(what, values, xr.DataArray, "an xarray.DataArray with dims block and neuron")
    expected = {"block": layout.num_blocks, "neuron": layout.neurons_per_block}
    if dict(values.sizes) != expected:
        raise InputError(f"got {what} of sizes {dict(values.sizes)}, the model has {expected}")
    return np.asarray(by_number(values).transpose("block", "neuron").values)


class Place(tuple[tuple[Slice, nn.Parameter], ...]):
    """The parameters that hold one block's neurons, each with the part of it that is theirs."""

    __slots__ = ()

    @torch.no_grad()
    def write(self, index: Int[Tensor, " neuron"], weights: NeuronWeights) -> None:
        """Replace the weights of some neurons in place, wherever the parameters lie by now."""
        for one, parameter in self:
            if (numbers := one.of(weights)) is not None:
                one.put(parameter, index, numbers)
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

    def read(self, facts: NeuronFacts) -> NeuronWeights:
        """Return copies of the weights."""

        def part(one: Slice) -> Tensor | None:
            tensor = one.held_by(self.network, facts.block)
            return None if tensor is None else one.taken(tensor, facts.index)

        return gathered(self.layout.mlp, facts, part)

    def place(self, block: int) -> Place:
        """Return the parameters that hold a block's neurons.

        Raises:
            InputError: a weight is computed anew at every pass, so writing it would change nothing.
        """
        held = slices(self.layout.mlp)
        return Place(
            (one, self._parameter(block, one))
            for one in held
            if one.held_by(self.network, block) is not None
        )

    def reads(self, block: int) -> list[tuple[Slice, nn.Parameter]]:
        """Return the weights of a block's maps into its neurons, with the part that is theirs.

        Raises:
            InputError: a weight is computed anew at every pass, and so is no parameter.
        """
        kinds = [one for one in slices(self.layout.mlp) if (one.kind, one.tensor) == READS]
        return [(one, self._parameter(block, one)) for one in kinds]

    def incoming(self, block: int) -> Float[Tensor, "neuron input"]:
        """Return copies of the weights into each neuron of a block, of all maps in a row."""
        every = torch.arange(self.layout.neurons_per_block, device=self.reads(block)[0][1].device)
        return torch.cat([one.taken(held, every) for one, held in self.reads(block)], dim=1)

    def change(
        self,
        facts: NeuronFacts,
        intervention: Intervention,
        earlier: Sequence[Mapping[int, Change]] = (),
    ) -> Change:
        """Work out an edit on top of the weights and of earlier edits that left them alone.

        Args:
            facts: which neurons are edited.
            intervention: change to their weights; it is given copies.
            earlier: edits that the trace makes, by block, in their order.

        Raises:
            InputError: the intervention refuses these neurons, or returned something else than
                weights of the same shapes and dtypes, or values that are not finite.
        """
        mlp, before = self.layout.mlp, self.read(facts)
        for changes in earlier:
            if facts.block in changes:
                known = changes[facts.block].after
                before = _overlaid(mlp, before, known, self.layout.neurons_per_block)
        given = gathered(mlp, facts.copy(), lambda one: _copy(one.of(before)))
        try:
            with blamed(intervention):
                after: object = intervention.edit(given)
        except InputError as error:
            raise InputError(
                f"the intervention {shown(intervention.name)!r} cannot be made: {error}"
            ) from error
        return Change.between(before, _checked(mlp, intervention, before, after))

    def _parameter(self, block: int, one: Slice) -> nn.Parameter:
        module = self.network.get_submodule(one.path.format(block=block))
        parameter = module._parameters.get(one.tensor)
        if parameter is None:
            raise InputError(
                f"{one.key(block)!r} is no parameter of its own (a parametrization, or none at "
                "all), so an edit of it would have no effect: edit with backend='trace', or remove "
                "the parametrization"
            )
        return parameter


@dataclass(eq=False, slots=True)
class _Edit:
    """One edit in place, as it was asked for and as far as it was made.

    Attributes:
        chosen: selected neurons of each block that has any.
        intervention: change to their weights.
        changes: what it may have written, and where; known before anything is written.
        made: whether all of it is written.
        left: whether its time is over.
    """

    chosen: Sequence[NeuronFacts]
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
        return {facts.block for edit in self._edits for facts in edit.chosen}

    @contextmanager
    def made(self, chosen: Sequence[NeuronFacts], intervention: Intervention) -> Iterator[None]:
        """Change the weights, and put them back exactly, in whatever order edits are left.

        Args:
            chosen: selected neurons of each block that has any.
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
            (self._weights.place(facts.block), self._weights.change(facts, edit.intervention))
            for facts in edit.chosen
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


def _checked(
    mlp: MLP, intervention: Intervention, before: NeuronWeights, after: object
) -> NeuronWeights:
    said = f"{author(intervention)} returned"
    if not isinstance(after, NeuronWeights):
        raise PluginError(f"{said} {shown(repr(after), 80)}, expected NeuronWeights")
    for kind in ("reads", "biases"):
        names, wanted = list(getattr(after, kind)), list(getattr(before, kind))
        if sorted(map(str, names)) != sorted(wanted):
            raise PluginError(f"{said} the {kind} {names}, expected {wanted}")
    for one in slices(mlp):
        if found := _wrong(one.of(before), one.of(after)):
            what = f"{one.kind} {one.read!r}" if one.read else one.kind
            raise PluginError(f"{said} {what} {found}")
    return gathered(mlp, _facts(before), lambda one: _copy(one.of(after)))


def _wrong(given: Tensor | None, edited: object) -> str:
    """Say what is wrong with edited numbers; nothing if they fit where the given ones were."""
    if given is None or edited is None:
        both = given is None and edited is None
        return "" if both else "where there are none" if given is None else "as None"
    if not isinstance(edited, Tensor):
        return f"of type {type(edited).__name__}, expected a tensor"
    if (edited.shape, edited.dtype) != (given.shape, given.dtype):
        return (
            f"of shape {tuple(edited.shape)} and {edited.dtype}, expected {tuple(given.shape)} "
            f"and {given.dtype}"
        )
    return "" if bool(edited.isfinite().all()) else "with values that are not finite"


def _overlaid(
    mlp: MLP, weights: NeuronWeights, known: NeuronWeights, neurons: int
) -> NeuronWeights:
    """Put an earlier edit's weights in the place of those of the neurons that it edits, too."""
    index = weights.index
    row = torch.full((neurons,), -1, device=index.device)
    row[known.index] = torch.arange(len(known.index), device=index.device)
    both = row[index] >= 0
    source = row[index][both]

    def part(one: Slice) -> Tensor | None:
        numbers, others = _copy(one.of(weights)), one.of(known)
        if numbers is None or others is None:
            return None
        if one.kind == "writes":
            numbers[:, both] = others[:, source]
        else:
            numbers[both] = others[source]
        return numbers

    return gathered(mlp, _facts(weights), part)


def _facts(weights: NeuronWeights) -> NeuronFacts:
    return NeuronFacts(weights.block, weights.index, weights.mean)


def _copy(numbers: Tensor | None) -> Tensor | None:
    return None if numbers is None else numbers.clone()


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)
