"""The public names of triggers as users write them; type-checked, never run."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import torch

from iarmem_plugin import (
    Attempt,
    BestOfSamples,
    Condition,
    EditData,
    ImageARModel,
    LearnedEmbedding,
    ModelTrigger,
    PrefixLadder,
    Relearn,
    Rounded,
    Sampling,
    Trigger,
)


class Plain(Trigger):
    name, unit, budgets = "plain", "completions", (1,)

    def attempts(
        self,
        model: ImageARModel,
        tokens: torch.Tensor,
        condition: Condition,
        *,
        given: int,
        seed: int,
    ) -> Iterator[Attempt]:
        yield Attempt(1, model.complete(tokens[:, :given], condition, Sampling()), given)


class AsItIs(ModelTrigger):
    name, unit, budgets = "as-it-is", "steps", (0,)

    def models(
        self, model: ImageARModel, data: EditData, *, seed: int
    ) -> Generator[tuple[int, ImageARModel], None, None]:
        yield 0, model


def triggers() -> list[Trigger | ModelTrigger]:
    tried: list[Trigger] = [
        LearnedEmbedding(budgets=(0, 10), lr=0.1),
        PrefixLadder(budgets=(1, 5)),
        BestOfSamples(budgets=(1, 8), temperature=0.9),
    ]
    return [*tried, Plain(), Relearn(budgets=(0, 10), batch_size=8), Rounded(bits=4), AsItIs()]
