"""Edits that a trace makes: what each changes, whether it acted, and the weights it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import ModelLayout
from iarmem_plugin.neurons.editing import Change


@dataclass(frozen=True, slots=True)
class TraceEdit:
    """One edit.

    Attributes:
        changes: what is changed, by block.
        made: how often it was made in the last run that was watched, by block.
    """

    changes: Mapping[int, Change]
    made: Counter[int] = field(default_factory=Counter)

    def act(self, fc1: Any, fc2: Any, block: int) -> None:
        """Recompute the selected neurons of one visit, inside a trace.

        Args:
            fc1: nnsight's view of the block's first linear layer.
            fc2: and of its second one.
            block: number of the block.
        """
        change = self.changes[block]
        rows = F.linear(fc1.input, change.after.fc1_weight, change.after.fc1_bias)
        fc1.output = fc1.output.index_copy(-1, change.index, rows)
        self.made[block] += 1
        if change.added is not None:
            read = fc2.input.index_select(-1, change.index)
            fc2.output = fc2.output + F.linear(read, change.added)


class Watch:
    """Watches one run: every edit must act at every visit of its blocks.

    Args:
        edits: edits that the run makes.
        visits: returns how often a block's first linear layer was visited so far.
    """

    def __init__(self, edits: Sequence[TraceEdit], visits: Callable[[int], int]) -> None:
        self._edits, self._visits = edits, visits
        self._before = {block: visits(block) for edit in edits for block in edit.changes}
        for edit in edits:
            edit.made.clear()

    def missed(self, *, visited: bool) -> int | None:
        """Return the number of a block whose edit did not act; None if all did.

        Args:
            visited: whether the run must have visited every block.
        """
        visits = {block: self._visits(block) - before for block, before in self._before.items()}
        for edit in self._edits:
            for block in edit.changes:
                if edit.made[block] != visits[block] or visited > visits[block]:
                    return block
        return None


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
        InputError: the state dict has other names than the modules.
    """
    found: dict[str, Tensor] = {}

    def entries(block: int) -> list[Tensor]:
        for key in (keys := _keys(layout, block, prefix)):
            if key not in state:
                raise InputError(
                    f"the state dict has no {key!r}, so it cannot show this edit: make the edit "
                    "with backend='weights', and save inside its block"
                )
            found.setdefault(key, state[key].detach().clone())
        return [found[key] for key in keys]

    for block in copied:
        entries(block)
    for block, change in (one for edit in edits for one in edit.changes.items()):
        rows, biases, columns = entries(block)
        rows[change.index] = change.after.fc1_weight
        biases[change.index] = change.after.fc1_bias
        columns[:, change.index] = change.after.fc2_weight
    return found


def _keys(layout: ModelLayout, block: int, prefix: str) -> tuple[str, str, str]:
    fc1, fc2 = (f"{prefix}{path.format(block=block)}" for path in (layout.fc1, layout.fc2))
    return f"{fc1}.weight", f"{fc1}.bias", f"{fc2}.weight"


def refuse_without_edits(name: str) -> None:
    """Refuse what would leave out the edits that a trace makes.

    Args:
        name: name of what is asked of the network.

    Raises:
        InputError: it is one of those.
    """
    if name in _WITHOUT_EDITS:
        raise InputError(
            f"{name} of a model that the trace edits {_WITHOUT_EDITS[name]}: save its "
            "state_dict(), or edit with backend='weights'"
        )


_WITHOUT_EDITS = {  # what the network would do without the edits that a trace makes
    "load_state_dict": "would change the weights under its edit",
    "save_pretrained": "would save the weights without its edit",
    "push_to_hub": "would publish the weights without its edit",
}
