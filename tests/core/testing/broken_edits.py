"""Edits of a whole model that are wrong, each in one way; run by `test_kit.py`, with pytest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from iarmem_plugin.interfaces import EditData, ModelEdit
from iarmem_plugin.jobs.edits.noisy import NoisyModel
from iarmem_plugin.testing import ModelEditTests

TESTS = {  # what finds each of them
    "PutsNothingBack": "the_model_comes_back_as_it_was[False]",
    "PutsNothingBackAfterErrors": "the_model_comes_back_as_it_was[True]",
    "ChangesNothing": "it_changes_what",
    "DrawsWithoutASeed": "the_same_seed_edits_alike",
    "SeesTheBatch": "an_image_does_not_depend_on_the_others",
    "NeedsWhatThereIsNot": "its_parameters_fit",
}


class Shifted(ModelEdit):
    """Right: a shifted head."""

    name = "shifted"

    def shift(self, bias: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.linspace(0, 1 + seed, len(bias))

    @contextmanager
    def edited(self, model: Any, data: EditData, *, seed: int) -> Iterator[Any]:
        bias = model.adapter.network.head.bias.data
        before = bias.clone()
        bias.add_(self.shift(bias, seed))
        try:
            yield model
        finally:
            bias.copy_(before)


class PutsNothingBack(Shifted):
    @contextmanager
    def edited(self, model: Any, data: EditData, *, seed: int) -> Iterator[Any]:
        bias = model.adapter.network.head.bias.data
        bias.add_(self.shift(bias, seed))
        yield model


class PutsNothingBackAfterErrors(Shifted):
    @contextmanager
    def edited(self, model: Any, data: EditData, *, seed: int) -> Iterator[Any]:
        bias = model.adapter.network.head.bias.data
        before = bias.clone()
        bias.add_(self.shift(bias, seed))
        yield model
        bias.copy_(before)


class ChangesNothing(Shifted):
    def shift(self, bias: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.zeros_like(bias)


class DrawsWithoutASeed(Shifted):
    def shift(self, bias: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.randn(len(bias))


class Batchwise(NoisyModel):
    def logits(self, tokens: torch.Tensor, condition: Any) -> torch.Tensor:
        found = super().logits(tokens, condition)
        return found - found.mean()


class SeesTheBatch(Shifted):
    @contextmanager
    def edited(self, model: Any, data: EditData, *, seed: int) -> Iterator[Any]:
        yield Batchwise(model, 1.0, seed)


class NeedsWhatThereIsNot(Shifted):
    needs = frozenset({"everything"})


def _tests_of(kind: type[ModelEdit]) -> type:
    class OfEdit(ModelEditTests):
        @pytest.fixture
        def edit(self) -> ModelEdit:
            return kind()

    return OfEdit


for _name in ("Shifted", *TESTS):
    globals()[f"Test{_name}"] = type(f"Test{_name}", (_tests_of(globals()[_name]),), {})
