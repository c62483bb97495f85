"""Triggers that are wrong, each in one way, and right ones; run by `test_kit.py`, with pytest."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch

from iarmem_plugin.interfaces import (
    AnyTrigger,
    Attempt,
    Condition,
    EditData,
    ModelTrigger,
    Sampling,
    Trigger,
)
from iarmem_plugin.testing import ModelTriggerTests, TriggerTests

TESTS = {  # what finds each of them
    "SpendsTooMuch": "attempts_are_completions",
    "LosesThePrefix": "attempts_are_completions",
    "LeavesABudgetOut": "every_budget_gets_an_attempt",
    "MixesPictures": "a_picture_does_not_depend",
    "DrawsAnyhow": "the_same_seed",
    "LeavesAHook": "the_model_comes_back",
    "ClearsTheTokens": "it_writes_into_nothing",
    "FallingBudgets": "its_budgets_rise",
    "PutsBackOnlyAtTheEnd": "the_model_comes_back_as_it_was[True]",
    "ModelAtOneBudget": "every_budget_gets_a_model",
}


class Twice(Trigger):
    """Right: a plain completion, and one of other classes."""

    name, unit, budgets = "twice", "completions", (1, 2)

    def attempts(
        self, model: Any, tokens: torch.Tensor, condition: Condition, *, given: int, seed: int
    ) -> Iterator[Attempt]:
        other = Condition((condition.label + 1) % 5, condition.image)
        for spent, told in enumerate((condition, other), 1):
            completed = model.complete(tokens[:, :given], told, Sampling())
            yield self.changed(Attempt(spent, completed, given), model, tokens)

    def changed(self, one: Attempt, model: Any, tokens: torch.Tensor) -> Attempt:
        return one


class SpendsTooMuch(Twice):
    def changed(self, one: Attempt, model: Any, tokens: torch.Tensor) -> Attempt:
        return one._replace(spent=2 * one.spent)


class LosesThePrefix(Twice):
    def changed(self, one: Attempt, model: Any, tokens: torch.Tensor) -> Attempt:
        return one._replace(tokens=one.tokens.flip(1))


class LeavesABudgetOut(Twice):
    budgets = (0, 1, 2)


class MixesPictures(Twice):
    def changed(self, one: Attempt, model: Any, tokens: torch.Tensor) -> Attempt:
        mixed = torch.cat((tokens[:, : one.given], one.tokens.roll(1, 0)[:, one.given :]), 1)
        return one._replace(tokens=mixed)


class DrawsAnyhow(Twice):
    def changed(self, one: Attempt, model: Any, tokens: torch.Tensor) -> Attempt:
        drawn = torch.randint(0, 16, (21 - one.given,)).expand(len(tokens), -1)
        return one._replace(tokens=torch.cat((tokens[:, : one.given], drawn), 1))


class LeavesAHook(Twice):
    def changed(self, one: Attempt, model: Any, tokens: torch.Tensor) -> Attempt:
        model.adapter.network.head.register_forward_hook(lambda *_: None)
        return one


class ClearsTheTokens(Twice):
    def changed(self, one: Attempt, model: Any, tokens: torch.Tensor) -> Attempt:
        tokens[:, one.given :] = 0
        return one


class FallingBudgets(Twice):
    budgets = (2, 1)


class Brighter(ModelTrigger):
    """Right: a shifted head."""

    name, unit, budgets = "brighter", "steps", (0, 3)
    stops = (0, 3)

    def models(
        self, model: Any, data: EditData, *, seed: int
    ) -> Generator[tuple[int, Any], None, None]:
        bias = model.adapter.network.head.bias.data
        before = bias.clone()
        try:
            for spent in self.stops:
                bias.copy_(before + torch.linspace(0, spent, len(bias)))
                yield spent, model
        finally:
            bias.copy_(before)


class PutsBackOnlyAtTheEnd(Brighter):
    stops = (1, 3)
    budgets = (1, 3)

    def models(
        self, model: Any, data: EditData, *, seed: int
    ) -> Generator[tuple[int, Any], None, None]:
        bias = model.adapter.network.head.bias.data
        before = bias.clone()
        for spent in self.stops:
            bias.copy_(before + torch.linspace(0, spent, len(bias)))
            yield spent, model
        bias.copy_(before)


class ModelAtOneBudget(Brighter):
    stops = (3,)


def _tests_of(kind: type[AnyTrigger]) -> type:
    base: type = TriggerTests if issubclass(kind, Trigger) else ModelTriggerTests

    class OfTrigger(base):
        @pytest.fixture
        def trigger(self) -> AnyTrigger:
            return kind()

    return OfTrigger


for _name in ("Twice", "Brighter", *TESTS):
    globals()[f"Test{_name}"] = type(f"Test{_name}", (_tests_of(globals()[_name]),), {})
