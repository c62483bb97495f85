"""Triggers that change the model: a little more training on other pictures, or rounded weights."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

from iarmem_plugin.checks import check_integer, check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.recovery.budgets import checked_budgets
from iarmem_plugin.interfaces import AnyTrigger, EditData, ModelTrigger
from iarmem_plugin.plugins.hookspecs import hookimpl


class Relearn(ModelTrigger):
    """Train the model on other images of its training, none of them a candidate.

    As `FineTune` does, by AdamW on the teacher-forced NLL of centre views, in evaluation mode.

    Args:
        budgets: numbers of steps, rising; 0 is the model as it is.
        lr: step size.
        batch_size: images in a step.

    Raises:
        InputError: budgets that do not rise, or another number that is not above 0.
    """

    name = "relearn"
    unit = "steps"
    needs = frozenset({"retained"})

    def __init__(
        self,
        budgets: tuple[int, ...] = (0, 10, 20, 60, 200),
        lr: float = 3e-4,
        batch_size: int = 32,
    ) -> None:
        self.budgets = checked_budgets(budgets, least=0)
        check_integer("batch_size", batch_size, least=1)
        check_number("lr", lr)
        if lr <= 0:
            raise InputError(f"lr is {lr}; expected a number above 0")
        self.lr, self.batch_size = lr, batch_size

    def models(
        self, model: Any, data: EditData, *, seed: int
    ) -> Generator[tuple[int, Any], None, None]:
        """Yield the model after each number of steps, and put its weights back.

        Raises:
            InputError: an edit gave a model without weights that are known.
        """
        from iarmem_plugin.jobs.edits.descent import Descent, lent

        _check_weights(self, model)
        with lent(model):
            terms = [(1.0, data.having("retained"))]
            steps = Descent(model, terms, self.batch_size, seed).steps(self.budgets[-1], self.lr)
            with closing(steps):
                for step in steps:
                    if step in self.budgets:
                        yield step, model


class Rounded(ModelTrigger):
    """Round the weights to integers of few bits, as a cheaper copy of the model would.

    Each row of a weight of two or more dims has a scale of its own, the largest magnitude in it;
    vectors stay as they are.

    Args:
        bits: bits of a weight, 2 to 16.

    Raises:
        InputError: another number of bits.
    """

    name = "rounded"
    unit = "bits"

    def __init__(self, bits: int = 8) -> None:
        check_integer("bits", bits, least=2)
        if bits > 16:  # more are not told from what a float32 holds
            raise InputError(f"bits is {bits}; expected 2 to 16")
        self.bits, self.budgets = bits, (bits,)

    def models(
        self, model: Any, data: EditData, *, seed: int
    ) -> Generator[tuple[int, Any], None, None]:
        """Yield the rounded model, and put its weights back.

        Raises:
            InputError: an edit gave a model without weights that are known.
        """
        from iarmem_plugin.jobs.edits.descent import lent
        from iarmem_plugin.jobs.triggers.rounding import round_weights

        _check_weights(self, model)
        with lent(model):
            round_weights(model.adapter.network, self.bits)
            yield self.bits, model


def _check_weights(trigger: ModelTrigger, model: Any) -> None:
    if getattr(model, "adapter", None) is None:
        raise InputError(
            f"the trigger {trigger.name!r} changes weights, and what an edit gave in place of the "
            f"model, {type(model).__name__}, has none that are known (no attribute adapter); "
            "choose other triggers, or other arms for them"
        )


@hookimpl
def provide_triggers() -> Iterable[type[AnyTrigger]]:
    """Provide relearning, and rounding."""
    return [Relearn, Rounded]
