"""An edit made in a checkpoint's own tensors, and the proof that nothing else changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from iarmem_plugin.errors import IarmemError, InputError, WeightsError
from iarmem_plugin.interfaces import Checkpoint, Intervention, NeuronFacts
from iarmem_plugin.neurons.editing import Change, EditableWeights, chosen_neurons
from iarmem_plugin.neurons.slices import Slice, slices
from iarmem_plugin.text import shown

CPU = torch.device("cpu")


@dataclass(slots=True)
class Undoing:
    """How far the inverse factor gives the original weights back.

    Attributes:
        factor: the inverse factor; None where there is none.
        numbers: weights that the edit could change.
        lost: those that do not come back to the last bit.
    """

    factor: float | None = None
    numbers: int = 0
    lost: int = 0


def make_edit(
    checkpoint: Checkpoint,
    neurons: xr.DataArray,
    intervention: Intervention,
    mean: xr.DataArray | None,
) -> Undoing:
    """Edit neurons in a checkpoint's tensors, each in the file's own dtype.

    Args:
        checkpoint: is changed, for good.
        neurons: which neurons, bool, dims (block, neuron).
        intervention: change to their weights.
        mean: mean activation of every neuron, where it is known.

    Raises:
        InputError: neurons of another model, none at all, or an intervention that refuses them.
        PluginError: the intervention returns something else than finite weights.
    """
    chosen = chosen_neurons(checkpoint.layout, neurons, CPU, mean)
    if not chosen:
        raise InputError("no neurons are selected, so there is nothing to export")
    weights = EditableWeights(checkpoint.network, checkpoint.layout)
    back = inverse(intervention)
    undoing = Undoing(None if back is None else float(back.parameters["factor"]))
    for facts in chosen:
        change = weights.change(facts, intervention)
        weights.place(facts.block).write(change.index, change.after)
        if back is not None:
            _try_undoing(undoing, weights, facts, change, back)
    return undoing


def inverse(intervention: Intervention) -> Intervention | None:
    """Return what multiplies by one over an intervention's factor; None where there is none."""
    said = dict(intervention.parameters)
    factor = said.get("factor")
    if not isinstance(factor, float) or factor == 0:
        return None
    try:
        return type(intervention)(**{**said, "factor": 1 / factor})
    except (IarmemError, TypeError, OverflowError):
        return None


def check_rest(checkpoint: Checkpoint, original: Checkpoint, neurons: xr.DataArray) -> None:
    """Compare all that an edited checkpoint holds with its file, bit for bit, but for the neurons.

    Args:
        checkpoint: the edited one.
        original: read from the same file again.
        neurons: those that were edited.

    Raises:
        WeightsError: another number changed, since the file changed meanwhile, or since weights
            share their memory with others.
    """
    chosen = chosen_neurons(checkpoint.layout, neurons, CPU)
    edited = {id(checkpoint.state[key]): rows for key, rows in _edited(checkpoint, chosen).items()}
    pairs = zip(_tensors(checkpoint.content), _tensors(original.content), strict=True)
    for (name, after), (_, before) in pairs:
        rows = edited.pop(id(after), [])  # the second time, it is another entry on its memory
        if not _alike(after, before, rows):
            raise WeightsError(
                f"{shown(name, 80)} of {shown(checkpoint.path)} would change beside the neurons, "
                "as if it shared its memory with them or the file had changed: save the "
                "transformer's state dict alone, each tensor cloned, and export from that"
            )


def _try_undoing(
    undoing: Undoing,
    weights: EditableWeights,
    facts: NeuronFacts,
    change: Change,
    back: Intervention,
) -> None:
    try:
        found = weights.change(facts, back).after
    except IarmemError:  # it overflows
        undoing.factor = None
        return
    for one in slices(weights.layout.mlp):
        before, again, after = (one.of(each) for each in (change.before, found, change.after))
        if before is None or again is None or after is None:
            continue
        touched = before.numel() if not torch.equal(before, after) else 0
        undoing.numbers += touched
        undoing.lost += int((again != before).sum())


Rows = list[tuple[Slice, Tensor]]


def _edited(checkpoint: Checkpoint, chosen: Sequence[NeuronFacts]) -> dict[str, Rows]:
    """Return the parts of each tensor that are the neurons', by the tensor's name."""
    found: dict[str, Rows] = {}
    for facts in chosen:
        for one in slices(checkpoint.layout.mlp):
            if (key := one.key(facts.block)) in checkpoint.state:
                found.setdefault(key, []).append((one, facts.index))
    return found


def _tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested dictionaries and lists, with its name."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _tensors(one, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _tensors(one, f"{name}.{number}".lstrip("."))


def _alike(after: Tensor, before: Tensor, rows: Rows) -> bool:
    if (after.shape, after.dtype) != (before.shape, before.dtype):
        return False
    if rows:
        after, before = after.detach().clone(), before.detach().clone()
        for one, index in rows:
            for tensor in (after, before):
                one.put(tensor, index, torch.zeros_like(one.taken(tensor, index)))
    return torch.equal(_bits(after), _bits(before))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
