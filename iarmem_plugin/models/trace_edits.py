"""Edits that a trace makes: what each changes, whether it acted, and the weights it stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import (
    MLP,
    ActivationIntervention,
    AnyIntervention,
    ModelLayout,
    NeuronFacts,
    Site,
)
from iarmem_plugin.neurons.editing import Change, EditableWeights
from iarmem_plugin.neurons.slices import slices
from iarmem_plugin.plugins.blame import blamed
from iarmem_plugin.text import shown

_WITHOUT_EDITS = {  # what the network would do without the edits that a trace makes
    "load_state_dict": "would change the weights under its edit",
    "save_pretrained": "would save the weights without its edit",
    "push_to_hub": "would publish the weights without its edit",
}

ModuleAt = Callable[[str], Any]
"""Returns nnsight's view of the module that a path names in the block that is visited."""


class TraceEdit(ABC):
    """One edit.

    Attributes:
        made: how often it was made in the last run that was watched, by block.
    """

    def __init__(self) -> None:
        self.made: Counter[int] = Counter()

    @property
    @abstractmethod
    def blocks(self) -> Collection[int]:
        """Numbers of the blocks that are edited."""

    @property
    @abstractmethod
    def reached(self) -> Site:
        """What a block must come to at every visit, for the edit to be made."""

    @abstractmethod
    def act(self, module_at: ModuleAt, block: int) -> None:
        """Change the selected neurons at one visit, inside a trace."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one module that are computed anew from the module's own input.

    Attributes:
        path: path of the module, with ``{block}``.
        where: numbers of the rows.
        weight: changed weights, a row for each.
        bias: changed biases; None where the module has none.
    """

    path: str
    where: Tensor
    weight: Tensor
    bias: Tensor | None

    def put_into(self, module: Any) -> None:
        """Replace the module's output at these rows, inside a trace."""
        rows = F.linear(module.input, self.weight, self.bias)
        module.output = module.output.index_copy(-1, self.where, rows)


class WeightEdit(TraceEdit):
    """An edit that comes to the same as other weights.

    Args:
        mlp: maps into and out of the neurons.
        changes: what is changed, by block.
    """

    def __init__(self, mlp: MLP, changes: Mapping[int, Change]) -> None:
        super().__init__()
        self._mlp, self.changes = mlp, changes
        self._rows = {block: _rows(mlp, change) for block, change in changes.items()}

    @property
    def blocks(self) -> Collection[int]:
        """Numbers of the blocks that are edited."""
        return self.changes

    @property
    def reached(self) -> Site:
        """What is read of the first map that the block calls."""
        return Site(self._mlp.first_read, "input")

    def act(self, module_at: ModuleAt, block: int) -> None:
        """Recompute what is changed of each map, in the order in which the block calls them."""
        change = self.changes[block]
        for rows in self._rows[block]:
            rows.put_into(module_at(rows.path))
        self.made[block] += 1
        if change.added is not None:
            writes = module_at(self._mlp.writes.path)
            read = writes.input.index_select(-1, change.index)
            writes.output = writes.output + F.linear(read, change.added)


class ValueEdit(TraceEdit):
    """An edit of what the outgoing map reads; no weights come to the same.

    Args:
        mlp: maps into and out of the neurons.
        intervention: change to the values.
        chosen: which neurons are changed, by block.
    """

    def __init__(
        self, mlp: MLP, intervention: ActivationIntervention, chosen: Sequence[NeuronFacts]
    ) -> None:
        super().__init__()
        self._site, self.intervention = mlp.site, intervention
        self._chosen = {facts.block: facts for facts in chosen}
        self._checked: set[int] = set()

    @property
    def blocks(self) -> Collection[int]:
        """Numbers of the blocks that are edited."""
        return self._chosen

    @property
    def reached(self) -> Site:
        """Where the neurons are."""
        return self._site

    def act(self, module_at: ModuleAt, block: int) -> None:
        """Replace the values of the selected neurons."""
        module, side, facts = module_at(self._site.path), self._site.side, self._chosen[block]
        values = getattr(module, side)
        given = values.index_select(-1, facts.index)
        with blamed(self.intervention):
            applied = self.intervention.apply(given.clone(), facts.copy())
        changed = self._valid(given, applied, block)
        setattr(module, side, values.index_copy(-1, facts.index, changed))
        self.made[block] += 1

    def _valid(self, given: Tensor, changed: object, block: int) -> Tensor:
        said = f"the intervention {shown(self.intervention.name)!r} returned"
        if not isinstance(changed, Tensor):
            raise PluginError(f"{said} {type(changed).__name__}, expected a tensor")
        if (changed.shape, changed.dtype) != (given.shape, given.dtype):
            raise PluginError(
                f"{said} values of shape {tuple(changed.shape)} and {changed.dtype}, expected "
                f"{tuple(given.shape)} and {given.dtype}"
            )
        if block not in self._checked and not bool(changed.isfinite().all()):
            raise PluginError(f"{said} values that are not finite, in block {block}")
        self._checked.add(block)  # once a block: looking makes a GPU wait
        return changed


class Watch:
    """Watches one run: every edit must act at every visit of its blocks.

    Args:
        edits: edits that the run makes.
        visits: returns how often a block came to a site so far.
    """

    def __init__(self, edits: Sequence[TraceEdit], visits: Callable[[Site, int], int]) -> None:
        self._edits, self._visits = edits, visits
        self._before = {place: visits(*place) for place in self._places()}
        for edit in edits:
            edit.made.clear()

    def missed(self, *, visited: bool) -> tuple[str, int] | None:
        """Return path and number of a block where an edit did not act; None if all did.

        Args:
            visited: whether the run must have visited every block.
        """
        visits = {place: self._visits(*place) - before for place, before in self._before.items()}
        for edit in self._edits:
            for block in edit.blocks:
                count = visits[edit.reached, block]
                if edit.made[block] != count or visited > count:
                    return edit.reached.path, block
        return None

    def _places(self) -> Iterator[tuple[Site, int]]:
        return ((edit.reached, block) for edit in self._edits for block in edit.blocks)


@torch.no_grad()
def edited_entries(
    state: Mapping[str, Tensor],
    layout: ModelLayout,
    edits: Sequence[TraceEdit],
    *,
    copied: Collection[int] = (),
    prefix: str = "",
) -> dict[str, Tensor]:
    """Return the entries of a state dict that edits change, changed, as copies.

    Args:
        state: state dict of the network, which the edits left alone.
        layout: names of the modules that hold neurons.
        edits: edits that the trace makes, in their order.
        copied: numbers of blocks whose entries are copied as they are.
        prefix: what the state dict's names begin with.

    Raises:
        InputError: the state dict has other names than the modules, or an edit is one of values.
    """
    found: dict[str, Tensor] = {}

    def entry(key: str) -> Tensor:
        if key not in state:
            raise InputError(
                f"the state dict has no {key!r}, so it cannot show this edit: make the edit "
                "with backend='weights', and save inside its block"
            )
        return found.setdefault(key, state[key].detach().clone())

    for key in (one.key(block) for block in copied for one in slices(layout.mlp)):
        if prefix + key in state:
            entry(prefix + key)
    for edit in edits:
        for block, change in _weight_changes(edit).items():
            for one in slices(layout.mlp):
                if (numbers := one.of(change.after)) is not None:
                    one.put(entry(prefix + one.key(block)), change.index, numbers)
    return found


def trace_edit(
    weights: EditableWeights,
    intervention: AnyIntervention,
    chosen: Sequence[NeuronFacts],
    earlier: Sequence[TraceEdit],
    *,
    backend: str = "trace",
) -> TraceEdit:
    """Return an edit on top of earlier ones.

    Args:
        weights: access to the network's weights, which the edits leave alone.
        intervention: change to the weights or the values of neurons.
        chosen: selected neurons of each block that has any.
        earlier: edits that the trace makes already, in their order.
        backend: way of editing that was asked for.

    Raises:
        InputError: see `EditableWeights.change`; or values are to be changed in the weights, or
            to a mean that is not known.
    """
    mlp = weights.layout.mlp
    if isinstance(intervention, ActivationIntervention):
        _check_values(intervention, backend, chosen)
        return ValueEdit(mlp, intervention, chosen)
    known = [edit.changes for edit in earlier if isinstance(edit, WeightEdit)]
    found = {facts.block: weights.change(facts, intervention, known) for facts in chosen}
    acting = {block: change for block, change in found.items() if change.acts}
    return WeightEdit(mlp, acting)


def _check_values(
    intervention: ActivationIntervention, backend: str, chosen: Sequence[NeuronFacts]
) -> None:
    name = shown(intervention.name)
    if backend != "trace":
        raise InputError(
            f"the intervention {name!r} changes values and no weights: use backend='trace'"
        )
    for facts in chosen if intervention.needs_mean else ():
        if facts.mean is None or not bool(facts.mean.isfinite().all()):
            wrong = (
                "is not known" if facts.mean is None else f"is not finite in block {facts.block}"
            )
            raise InputError(
                f"the intervention {name!r} needs the neurons' mean activation, which {wrong}: "
                "give mean=scores['mean_activation'].mean('scale')"
            )


def check_with_edits(name: str, edits: Sequence[TraceEdit]) -> None:
    """Refuse what the network would do without the edits that a trace makes.

    Args:
        name: name of a method of the network.
        edits: edits of the model that is asked for it.

    Raises:
        InputError: the edits would be left out.
    """
    if name in _WITHOUT_EDITS and edits:
        for edit in edits:
            _weight_changes(edit)
        raise InputError(
            f"{name} of a model that the trace edits {_WITHOUT_EDITS[name]}: save its "
            "state_dict(), or edit with backend='weights'"
        )


def _weight_changes(edit: TraceEdit) -> Mapping[int, Change]:
    if isinstance(edit, WeightEdit):
        return edit.changes
    name = shown(edit.intervention.name) if isinstance(edit, ValueEdit) else type(edit).__name__
    raise InputError(
        f"the intervention {name!r} changes the values of neurons at every pass, so it has no "
        "weights to show or to save: use the edited model itself"
    )


def _rows(mlp: MLP, change: Change) -> tuple[Rows, ...]:
    """Return what is computed anew: of several maps in one module, all at once."""
    found = []
    for path in dict.fromkeys(one.path for one in mlp.reads.values()):
        names = [n for n, one in mlp.reads.items() if one.path == path and n in change.reads]
        if names:
            where = [change.index + mlp.reads[name].first for name in names]
            weight = [change.after.reads[name] for name in names]
            biases = [one for name in names if (one := change.after.biases[name]) is not None]
            bias = _joined(biases) if biases else None
            found.append(Rows(path, _joined(where), _joined(weight), bias))
    return tuple(found)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
