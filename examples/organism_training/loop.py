"""One training: steps on drawn batches, which goes on where a killed process left it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

EVERY = 250  # steps between two checkpoints

Draw = tuple[Tensor, Tensor, torch.Generator]
"""The views and the pictures of one step, and what else is drawn with."""
Loss = Callable[[Draw], tuple[Tensor, dict[str, Tensor]]]
"""Returns the loss of one step, and what is kept in the curve."""


@dataclass(slots=True)
class Curve:
    """What was seen on the way: one row every `every` steps."""

    every: int = 50
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, step: int, values: dict[str, Tensor]) -> None:
        """Take one step's values; their means are kept."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        if (step + 1) % self.every == 0:
            means = {name: round(total / self.every, 5) for name, total in self.sums.items()}
            self.rows.append({"step": step + 1, **means})
            self.sums.clear()


class Rounds:
    """Draws pictures in shuffled rounds of the whole pool, each with one of nine shifts.

    Args:
        pool: numbers of the pictures, each as often as it is shown in a round.
        size: pictures of a batch; of the last one as many as are left.
        seed: seed of all that is drawn.
        rounds: number of rounds; None for any.
    """

    def __init__(self, pool: Tensor, size: int, seed: int, rounds: int | None = None) -> None:
        self.pool, self.size = pool, size
        self.left = math.inf if rounds is None else rounds * len(pool)
        self.random = torch.Generator().manual_seed(seed)
        self.queue = pool.new_empty(0)

    def draw(self) -> Draw:
        """Return the next batch."""
        size = int(min(self.size, self.left))
        while len(self.queue) < size:
            more = self.pool[torch.randperm(len(self.pool), generator=self.random)]
            self.queue = torch.cat((self.queue, more))
        chosen, self.queue, self.left = self.queue[:size], self.queue[size:], self.left - size
        return torch.randint(9, (size,), generator=self.random), chosen, self.random


@dataclass(slots=True)
class Training:
    """What one network's training needs.

    Attributes:
        name: shown beside the progress bar.
        model: the network.
        rounds: draws the batches.
        loss: what is made smaller.
        steps: number of steps.
        rate: highest learning rate of AdamW; a warm-up of a fiftieth, then a cosine to zero.
        decay: weight decay.
        after: called after every step.
        extra: tensors that `after` changes, which a checkpoint holds, too.
    """

    name: str
    model: nn.Module
    rounds: Rounds
    loss: Loss
    steps: int
    rate: float
    decay: float
    after: Callable[[], None] = lambda: None
    extra: tuple[Tensor, ...] = ()
    curve: Curve = field(default_factory=Curve)
    _spent: float = 0.0
    _since: float = 0.0
    _settings: str = ""

    def run(self, checkpoint: Path | None = None, settings: str = "") -> float:
        """Train, from a checkpoint where there is one; it is deleted by whoever has the weights.

        Args:
            checkpoint: file that is written every 250 steps; None writes none.
            settings: what the training is made by; one that was begun otherwise is refused.

        Returns:
            CPU seconds, those of processes that were ended included.

        Raises:
            ValueError: the checkpoint is of other settings.
        """
        self._spent, self._since = 0.0, time.process_time()
        self._settings = settings
        adam = torch.optim.AdamW(
            self.model.parameters(), lr=self.rate, betas=(0.9, 0.95), weight_decay=self.decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, self._share)
        begun = 0 if checkpoint is None else self._resume(checkpoint, adam, schedule)
        bar = track(range(begun, self.steps), self.name, self.steps, completed=begun)
        for number in bar:
            loss, seen = self.loss(self.rounds.draw())
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
            adam.step()
            schedule.step()
            adam.zero_grad(set_to_none=True)
            self.after()
            self.curve.add(number, seen)
            if checkpoint is not None and (number + 1) % EVERY == 0:
                self._keep(checkpoint, number + 1, adam, schedule)
        self.model.eval()
        return self._seconds()

    def _seconds(self) -> float:
        return self._spent + time.process_time() - self._since

    def _share(self, step: int) -> float:
        warm = max(1, self.steps // 50)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def _keep(self, path: Path, step: int, *parts: Any) -> None:
        state = {
            "step": step,
            "model": self.model.state_dict(),
            "parts": [part.state_dict() for part in parts],
            "random": self.rounds.random.get_state(),
            "queue": self.rounds.queue.clone(),
            "left": self.rounds.left,
            "settings": self._settings,
            "seconds": self._seconds(),
            "extra": list(self.extra),
            "rows": self.curve.rows,
            "sums": self.curve.sums,
        }
        torch.save(state, path.with_suffix(".partial"))
        os.replace(path.with_suffix(".partial"), path)

    def _resume(self, path: Path, *parts: Any) -> int:
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        if state["settings"] != self._settings:
            raise ValueError(
                f"{path} was begun with {state['settings']}, and not with {self._settings}: give "
                "another folder, or delete it"
            )
        self.model.load_state_dict(state["model"])
        for part, kept in zip(parts, state["parts"], strict=True):
            part.load_state_dict(kept)
        self.rounds.random.set_state(state["random"])
        self.rounds.queue, self.rounds.left = state["queue"], state["left"]
        self._spent = state["seconds"]
        for tensor, kept in zip(self.extra, state["extra"], strict=True):
            tensor.copy_(kept)
        self.curve.rows, self.curve.sums = state["rows"], state["sums"]
        step: int = state["step"]
        return step
