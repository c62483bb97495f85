"""A learned vector beside the class: does the model still know the picture?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jaxtyping import Int

from iarmem_plugin.checks import check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.recovery.budgets import checked_budgets
from iarmem_plugin.interfaces import Adapter, AnyTrigger, Attempt, Condition, Sampling, Trigger
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.typing import Tensor


class LearnedEmbedding(Trigger):
    """Learn one vector a picture, added to the class embedding, that makes its tokens likelier.

    The attacker knows the picture. The loss is the NLL of the tokens after the prefix, by Adam from
    a vector of zeros; weights are frozen. After each budget of steps the prefix is completed
    greedily with the vector of that step.

    Args:
        budgets: numbers of steps, rising; 0 is the plain completion.
        lr: step size.

    Raises:
        InputError: budgets that do not rise, or a step size that is not above 0.

    Reference: Finding DoRI, arXiv 2507.16880 (embeddings that bring pruned memory back).
    """

    name = "learned-embedding"
    unit = "steps"

    def __init__(self, budgets: tuple[int, ...] = (0, 5, 10, 20, 40), lr: float = 0.05) -> None:
        self.budgets = checked_budgets(budgets, least=0)
        check_number("lr", lr)
        if lr <= 0:
            raise InputError(f"lr is {lr}; expected a number above 0")
        self.lr = lr

    @property
    def passes(self) -> float:
        """Return three passes a step, and a completion a budget."""
        return 3.0 * self.budgets[-1] + len(self.budgets)

    def attempts(
        self,
        model: Any,
        tokens: Int[Tensor, "image token"],
        condition: Condition,
        *,
        given: int,
        seed: int,
    ) -> Iterator[Attempt]:
        """Yield completions with the vector of each budget; nothing is drawn at random.

        Raises:
            InputError: the model's adapter says of no place where a vector could be added.
        """
        from iarmem_plugin.jobs.triggers.learning import learned

        adapter = _adapter(model)
        steps = learned(model, adapter, tokens, condition, given=given, lr=self.lr)
        for step, added in zip(range(self.budgets[-1] + 1), steps, strict=False):
            if step in self.budgets:
                with adapter.condition_embedding(added):
                    completed = model.complete(tokens[:, :given], condition, Sampling())
                yield Attempt(step, completed, given)


def _adapter(model: Any) -> Adapter:
    adapter: Adapter | None = getattr(model, "adapter", None)
    if adapter is None or not adapter.condition_width:
        what = type(model).__name__ if adapter is None else f"a model of {adapter.name!r}"
        raise InputError(
            f"the trigger {LearnedEmbedding.name!r} adds a vector to a class embedding, and {what} "
            "has none that is known (Adapter.condition_embedding); choose other triggers"
        )
    return adapter


@hookimpl
def provide_triggers() -> Iterable[type[AnyTrigger]]:
    """Provide the learned embedding."""
    return [LearnedEmbedding]
