"""An arm of a plan as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iarmem_plugin.errors import InputError

Role = Literal["treatment", "control"]


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """One arm of a plan, with plugins as they are written.

    Attributes:
        name: short, and unlike all others of the plan.
        selector: which neurons are edited; None for an edit of the model.
        scorer: what scores the neurons for it, by contrast; None takes scores of the plan.
        scores: name of the scores that it is given, of those of the plan; None where a scorer
            makes them, or the plan has none.
        intervention: what is done to the neurons; None for an edit.
        edit: edit of the model that chooses no neurons; None else.
        fraction: share of all neurons, in (0, 1]; None for an edit.
        seed: seed of what is drawn.
        role: ``"treatment"``, or ``"control"`` for what treatments are held against.
        stands_for: names of the treatments that a control is the control of, those with the same
            intervention and fraction; it is dropped when all of them are.
        split: which draw of the halves of the candidates, from 0, where neurons are chosen on them.
    """

    name: str
    selector: str | None = None
    scorer: str | None = None
    scores: str | None = None
    intervention: str | None = None
    edit: str | None = None
    fraction: float | None = None
    seed: int = 0
    role: Role = "treatment"
    stands_for: tuple[str, ...] = ()
    split: int = 0

    @property
    def whole_name(self) -> str:
        """Name without the number of the split: the same of all that are averaged."""
        return self.name.removesuffix(split_word(self.split))


def split_word(split: int) -> str:
    """Return what is added to the name of an arm of a split, from 0: of the first nothing."""
    return f", split {split + 1}" if split else ""


class ClashError(InputError):
    """Two arms of one name, or too many arms.

    Attributes:
        at: where in the plan.
    """

    def __init__(self, message: str, *at: str | int) -> None:
        super().__init__(message)
        self.at = at
