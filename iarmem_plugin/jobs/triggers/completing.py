"""Triggers that only complete: with more of the picture given, or more often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Shaped

from iarmem_plugin.checks import check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.recovery.budgets import checked_budgets
from iarmem_plugin.interfaces import AnyTrigger, Attempt, Condition, Sampling, Trigger
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.typing import Tensor


class PrefixLadder(Trigger):
    """Give the model more and more of the picture's first tokens, and complete greedily.

    Args:
        budgets: how many tokens are given, rising; of VAR whole scales.

    Raises:
        InputError: budgets that do not rise.

    Reference:
        Kowalczuk et al. 2025, arXiv 2502.02514 (completion of a prefix); longer prefixes: Carlini
        et al. 2023, arXiv 2202.07646.
    """

    name = "prefix"
    unit = "tokens"

    def __init__(self, budgets: tuple[int, ...] = (0, 1, 5, 14, 30, 55)) -> None:
        self.budgets = checked_budgets(budgets, least=0)

    def attempts(
        self,
        model: Any,
        tokens: Shaped[Tensor, "image token *rest"],
        condition: Condition,
        *,
        given: int,
        seed: int,
    ) -> Iterator[Attempt]:
        """Yield a completion of each prefix; what is given in other triggers is not."""
        if self.budgets[-1] >= tokens.shape[1]:
            raise InputError(
                f"the trigger {self.name!r} would give {self.budgets[-1]} of {tokens.shape[1]} "
                "tokens, which leaves nothing to complete; give it smaller budgets"
            )
        for prefix in self.budgets:
            completed = model.complete(tokens[:, :prefix], condition, Sampling())
            yield Attempt(prefix, completed, prefix)


class BestOfSamples(Trigger):
    """Complete the prefix often, drawing tokens, and keep the best.

    Args:
        budgets: numbers of samples, rising.
        temperature: what the logits are divided by; none takes what the model's own sampler does
            (in a comparison, what its plan draws images at).

    Raises:
        InputError: budgets that do not rise, or a temperature that is not above 0.
    """

    name = "samples"
    unit = "samples"

    def __init__(
        self, budgets: tuple[int, ...] = (1, 4, 16), temperature: float | None = None
    ) -> None:
        self.budgets = checked_budgets(budgets, least=1)
        if temperature is not None:
            check_number("temperature", temperature)
            if temperature <= 0:
                raise InputError(f"temperature is {temperature}; expected a number above 0")
        self.temperature = temperature

    @property
    def passes(self) -> float:
        """Return the largest number of samples."""
        return float(self.budgets[-1])

    def attempts(
        self,
        model: Any,
        tokens: Shaped[Tensor, "image token *rest"],
        condition: Condition,
        *,
        given: int,
        seed: int,
    ) -> Iterator[Attempt]:
        """Yield one sample after the other; a picture's draws depend on its id and the seed."""
        drawn = replace(self._sampling(model), greedy=False, guidance=0.0)
        for sample in range(self.budgets[-1]):
            seeds = (
                int(np.random.SeedSequence((seed, sample, one)).generate_state(1)[0])
                for one in condition.image.tolist()
            )
            own = replace(drawn, seed=tuple(seeds))
            yield Attempt(sample + 1, model.complete(tokens[:, :given], condition, own), given)

    def _sampling(self, model: Any) -> Sampling:
        adapter = getattr(model, "adapter", None)
        own = Sampling() if adapter is None else adapter.variant.sampling
        return own if self.temperature is None else replace(own, temperature=self.temperature)


@hookimpl
def provide_triggers() -> Iterable[type[AnyTrigger]]:
    """Provide the prefix ladder, and the best of some samples."""
    return [PrefixLadder, BestOfSamples]
