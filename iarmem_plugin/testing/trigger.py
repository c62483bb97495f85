"""What every trigger must do, be it one that completes or one that changes the model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from iarmem_plugin.interfaces import AnyTrigger, Attempt, EditData, ModelTrigger, Sampling, Trigger
from iarmem_plugin.interfaces.edits import EDIT_PARTS
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.adapter import same, snapshot
from iarmem_plugin.testing.edit import PICTURES, PREFIX, noise, shown
from iarmem_plugin.testing.tiny import TinyAdapter

Made = list[tuple[int, torch.Tensor]]
"""What was spent, and tokens."""


class AnyTriggerTests:
    """Tests of both kinds; subclass `TriggerTests` or `ModelTriggerTests`."""

    @pytest.fixture
    def trigger(self) -> AnyTrigger:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `trigger`")

    @pytest.fixture
    def model(self) -> ImageARModel:
        """Return a small untrained model of 21 tokens, some weights of which ask for gradients."""
        model = ImageARModel(TinyAdapter.make())
        for number, one in enumerate(model.adapter.network.parameters()):
            one.requires_grad_(number % 2 == 0)
        return model

    def test_its_parameters_fit_into_the_report(self, trigger: AnyTrigger) -> None:
        """JSON values by name; a name, a unit, needs that there are, and an estimate."""
        values = dict(trigger.parameters)
        assert json.loads(json.dumps(values)) == values
        assert trigger.name
        assert trigger.unit
        assert trigger.needs <= EDIT_PARTS.keys()
        assert 0 < trigger.passes < float("inf")

    def test_its_budgets_rise(self, trigger: AnyTrigger) -> None:
        """A tuple of integers, each larger than the one before."""
        assert isinstance(trigger.budgets, tuple)
        assert trigger.budgets
        assert all(type(one) is int and one >= 0 for one in trigger.budgets)
        assert all(first < second for first, second in pairwise(trigger.budgets))


class TriggerTests(AnyTriggerTests):
    """Subclass it and give the fixture `trigger`: an instance that gives fewer than 21 tokens."""

    def test_attempts_are_completions_within_the_budgets(
        self, trigger: Trigger, model: ImageARModel
    ) -> None:
        """All tokens of each picture, what was given at the beginning; spending never falls."""
        true, told = shown()
        with lent(model):
            found = list(trigger.attempts(model, true, told, given=PREFIX, seed=1))
        for one in found:
            assert isinstance(one, Attempt)
            assert (one.tokens.shape, one.tokens.dtype) == (true.shape, true.dtype)
            assert 0 <= one.given < true.shape[1]
            assert torch.equal(one.tokens[:, : one.given], true[:, : one.given])
        check_spending(trigger, [one.spent for one in found])

    def test_every_budget_gets_an_attempt(self, trigger: Trigger, model: ImageARModel) -> None:
        """One that was not within the budget before it."""
        check_every_budget(trigger, [spent for spent, _ in attempted(trigger, model)])

    def test_a_picture_does_not_depend_on_the_others_of_its_batch(
        self, trigger: Trigger, model: ImageARModel
    ) -> None:
        """Tried alone, it gets the same attempts."""
        together = attempted(trigger, model)
        for row in range(PICTURES):
            check_same(attempted(trigger, model, slice(row, row + 1)), together, row)

    def test_the_same_seed_gives_the_same(self, trigger: Trigger, model: ImageARModel) -> None:
        """Whatever was drawn at random before."""
        check_same(*twice(lambda: attempted(trigger, model)))

    @pytest.mark.parametrize("early", [False, True])
    def test_the_model_comes_back_as_it_was(
        self, trigger: Trigger, model: ImageARModel, *, early: bool
    ) -> None:
        """Weights, modes, flags, hooks, random states; also if no more attempts are asked for."""
        with lent(model), unchanged(model):
            made = trigger.attempts(model, *shown(), given=PREFIX, seed=1)
            spend(made, early=early)

    def test_it_writes_into_nothing_that_it_is_given(
        self, trigger: Trigger, model: ImageARModel
    ) -> None:
        """The true tokens are what attempts are compared with."""
        (true, told), (before, of_before) = shown(), shown()
        with lent(model):
            list(trigger.attempts(model, true, told, given=PREFIX, seed=1))
        assert torch.equal(true, before)
        assert torch.equal(told.label, of_before.label)
        assert torch.equal(told.image, of_before.image)


class ModelTriggerTests(AnyTriggerTests):
    """Subclass it and give the fixture `trigger`: an instance, of few steps where it trains."""

    @pytest.fixture
    def data(self, trigger: ModelTrigger) -> EditData:
        """Return pictures of noise, in those parts alone that the trigger needs."""
        return noise(trigger.needs)

    def test_its_models_complete_within_the_budgets(
        self, trigger: ModelTrigger, model: ImageARModel, data: EditData
    ) -> None:
        """All tokens of each picture, the prefix kept; spending never falls."""
        true, found = shown()[0], completed(trigger, model, data)
        for _, tokens in found:
            assert (tokens.shape, tokens.dtype) == (true.shape, true.dtype)
            assert torch.equal(tokens[:, :PREFIX], true[:, :PREFIX])
        check_spending(trigger, [spent for spent, _ in found])

    def test_every_budget_gets_a_model(
        self, trigger: ModelTrigger, model: ImageARModel, data: EditData
    ) -> None:
        """One that was not within the budget before it."""
        check_every_budget(trigger, [spent for spent, _ in completed(trigger, model, data)])

    def test_a_picture_does_not_depend_on_the_others_of_its_batch(
        self, trigger: ModelTrigger, model: ImageARModel, data: EditData
    ) -> None:
        """Completed alone, it gets the same."""
        alone = completed(trigger, model, data, slice(2, 3))
        check_same(alone, completed(trigger, model, data), 2)

    def test_the_same_seed_gives_the_same(
        self, trigger: ModelTrigger, model: ImageARModel, data: EditData
    ) -> None:
        """Whatever was drawn at random before."""
        check_same(*twice(lambda: completed(trigger, model, data)))

    @pytest.mark.parametrize("early", [False, True])
    def test_the_model_comes_back_as_it_was(
        self, trigger: ModelTrigger, model: ImageARModel, data: EditData, *, early: bool
    ) -> None:
        """Weights, modes, flags, hooks, random states; also if it is closed after one model."""
        with (
            lent(model),
            unchanged(model),
            closing(trigger.models(model, data, seed=1)) as made,
        ):
            spend(made, early=early)


@contextmanager
def lent(model: ImageARModel) -> Iterator[None]:
    """Lend a model as a job does: in evaluation mode, without gradients."""
    with torch.inference_mode(False), model.borrowed():
        yield


@contextmanager
def unchanged(model: ImageARModel) -> Iterator[None]:
    """Check that all about a model is as it was before, and the random states, too."""
    before = snapshot(model.adapter)
    yield
    after, network = snapshot(model.adapter), model.adapter.network
    assert after.keys() == before.keys()
    assert [name for name, value in before.items() if not same(value, after[name])] == []
    assert [name for name, one in network.named_parameters() if one.grad is not None] == []


def attempted(trigger: Trigger, model: ImageARModel, rows: slice = slice(0, PICTURES)) -> Made:
    """Return the attempts on some pictures."""
    with lent(model):
        found = trigger.attempts(model, *shown(rows), given=PREFIX, seed=5)
        return [(one.spent, one.tokens.clone()) for one in found]


def completed(
    trigger: ModelTrigger, model: ImageARModel, data: EditData, rows: slice = slice(0, PICTURES)
) -> Made:
    """Return what each model of a trigger completes of some pictures."""
    tokens, told = shown(rows)
    with lent(model), closing(trigger.models(model, data, seed=5)) as made:
        return [
            (spent, changed.complete(tokens[:, :PREFIX], told, Sampling()).clone())
            for spent, changed in made
        ]


def twice(make: Callable[[], Made]) -> tuple[Made, Made]:
    """Return what is made before and after random numbers were drawn."""
    first = make()
    for draw in (torch.rand, np.random.rand):
        draw(3)
    random.random()
    return first, make()


def spend(made: Iterator[Any], *, early: bool) -> None:
    """Take all that there is, or one alone."""
    for _ in made:
        if early:
            return


def check_spending(trigger: AnyTrigger, spent: list[int]) -> None:
    """Check that there is something, rising or equal, and never more than the largest budget."""
    assert spent
    assert spent == sorted(spent), f"what was spent falls: {spent}"
    assert 0 <= spent[0] <= spent[-1] <= trigger.budgets[-1], f"{spent} of {trigger.budgets}"


def check_every_budget(trigger: AnyTrigger, spent: list[int]) -> None:
    """Check that each budget allows for something that the one before did not."""
    reached = {int(np.searchsorted(trigger.budgets, one)) for one in spent}
    left = [one for place, one in enumerate(trigger.budgets) if place not in reached]
    assert left == [], f"nothing at the budgets {left}; spent were {spent}"


def check_same(one: Made, other: Made, row: int | None = None) -> None:
    """Check that the same came out of the same spending; of one picture, if it is named."""
    rows = slice(None) if row is None else slice(row, row + 1)
    assert [spent for spent, _ in one] == [spent for spent, _ in other]
    for (spent, tokens), (_, others) in zip(one, other, strict=True):
        assert torch.equal(tokens, others[rows]), f"others at {spent}"
