"""Descent on a sum of losses of images, and a network lent for it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from iarmem_plugin.activations.gradients import asked_for
from iarmem_plugin.borrowing import uninterrupted
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.losses import mean_losses
from iarmem_plugin.models.batching import Batching


@contextmanager
def lent(model: Any) -> Iterator[None]:
    """Let a network be trained for a while: weights and gradients come back as they were."""
    network = model.adapter.network
    with torch.no_grad():
        kept = [(one, one.clone()) for one in (*network.parameters(), *network.buffers())]
    gradients = [(one, one.grad) for one in network.parameters()]
    try:
        yield
    finally:
        with uninterrupted(), torch.no_grad():
            for one, before in kept:
                one.copy_(before)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            torch.clear_autocast_cache()  # which holds casts of the weights as they were


class Descent:
    """AdamW on a weighted sum of the mean teacher-forced losses of images.

    Args:
        model: an `ImageARModel`, or what predicts like one and has its adapter; all floating-point
            parameters of its network are changed.
        terms: weight and images of each loss.
        batch_size: images of each in a step; of fewer, all. What does not fit in memory is summed
            from smaller parts.
        seed: seed for drawing batches.
    """

    def __init__(
        self,
        model: Any,
        terms: Sequence[tuple[float, Images]],
        batch_size: int,
        seed: int,
    ) -> None:
        self._model, self._parts = model, Batching(batch_size)
        self._terms = [
            (weight, images, _batches(len(images), batch_size, np.random.default_rng([seed, term])))
            for term, (weight, images) in enumerate(terms)
        ]
        every = model.adapter.network.parameters()
        self._parameters = [one for one in every if one.is_floating_point()]

    def run(self, steps: int, lr: float) -> None:
        """Take some steps.

        Args:
            steps: their number.
            lr: step size.

        Raises:
            NonFiniteLogitsError: the model broke down.
        """
        for _ in self.steps(steps, lr):
            pass

    def steps(self, steps: int, lr: float) -> Generator[int, None, None]:
        """Yield the number of steps that were taken, from 0; see `run`."""
        optimizer = torch.optim.AdamW(self._parameters, lr=lr)
        for step in range(steps):
            yield step
            for parameter, gradient in zip(self._parameters, self._gradient(), strict=True):
                parameter.grad = gradient
            optimizer.step()
        yield steps

    def _gradient(self) -> list[Tensor]:
        total = [torch.zeros_like(one) for one in self._parameters]
        for weight, images, batches in self._terms:
            batch = images.subset(next(batches))
            for part in self._parts.over(len(batch), partial(self._of, batch)):
                for summed, gradient in zip(total, part, strict=True):
                    summed.add_(gradient, alpha=weight / len(batch))
        return total

    def _of(self, images: Images, rows: slice) -> list[Tensor]:
        """Return the gradient of the sum of some images' losses."""
        views = self._model.adapter.variant.views
        with self._model.borrowed(), asked_for(self._parameters):
            loss = mean_losses(self._model, images, views, rows).sum()
            found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        return [
            torch.zeros_like(one) if gradient is None else gradient
            for one, gradient in zip(self._parameters, found, strict=True)
        ]


def _batches(
    count: int, size: int, random: np.random.Generator
) -> Iterator[Int[np.ndarray, " image"]]:
    """Yield the places of the images of one step after the other, in shuffled rounds."""
    size = min(size, count)
    while True:
        order = random.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
