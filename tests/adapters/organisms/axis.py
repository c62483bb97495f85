"""Does damage read as damage? The held-out loss of an organism after edits that should harm it.

``python tests/adapters/organisms/axis.py var-organism`` prints, as JSON, for each edit the change
of the held-out pictures' mean negative log-likelihood against the unmodified model, in nats a
token, each at the one logit temperature that is fitted to the pictures for calibration, with its
paired standard error; the same without a temperature; and of the members that are distinct.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from memory import DISTINCT, HELD_OUT, Memory
from scipy.optimize import minimize_scalar
from torch import Tensor

import iarmem_plugin as iarmem
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import centre_views
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.jobs.demo import candidates, captured_pictures


@dataclass(frozen=True)
class Loss:
    """One model's losses of each image, nats a token, and its fitted temperature."""

    temperature: float
    fitted: np.ndarray
    plain: np.ndarray
    members: np.ndarray


class Axis:
    """Pictures on which edited models are compared.

    Args:
        memory: the organism.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        unseen = candidates(memory.organism, memory.organism.calibration)
        self.sets = (unseen.images, memory.of(HELD_OUT).images, memory.of(DISTINCT).images)
        self.tokens = [self.tokenized(images) for images in self.sets]

    def tokenized(self, images: Images) -> Tensor:
        """Return the tokens of pictures."""
        with self.memory.model.borrowed():
            views = centre_views(images, self.memory.views, slice(0, len(images)))
            return torch.cat([self.memory.model.tokenize(part) for part in views.split(50)])

    def logits(self, model: Any, which: int) -> Tensor:
        """Return what a model predicts of a set's tokens, dims (image, token, vocabulary)."""
        images, found = self.sets[which], []
        for start in range(0, len(images), 50):
            rows = slice(start, min(start + 50, len(images)))
            with model.borrowed():
                found.append(
                    model.logits(self.tokens[which][rows], Condition.of_images(images, rows))
                )
        return torch.cat(found).detach()

    def losses(self, logits: Tensor, which: int, temperature: float) -> np.ndarray:
        """Return each image's mean negative log-likelihood at a temperature."""
        scaled = logits / temperature
        right = scaled.gather(2, self.tokens[which][..., None].long())[..., 0]
        return (scaled.logsumexp(2) - right).double().mean(1).numpy()

    def loss(self, model: Any) -> Loss:
        """Return a model's losses."""
        logits = self.logits(model, 0)
        fit = minimize_scalar(
            lambda temperature: float(self.losses(logits, 0, temperature).mean()),
            bounds=(0.5, 3),
            method="bounded",
            options={"xatol": 0.01},
        )
        logits = self.logits(model, 1)
        fitted, plain = (self.losses(logits, 1, one) for one in (fit.x, 1.0))
        members = self.losses(self.logits(model, 2), 2, fit.x)
        return Loss(float(fit.x), fitted, plain, members)


def compared(edited: Loss, original: Loss) -> dict[str, Any]:
    """Return the changes of the mean losses, each with its paired standard error."""

    def change(after: np.ndarray, before: np.ndarray) -> list[float]:
        apart = after - before
        error = apart.std(ddof=1) / np.sqrt(len(apart))
        return [round(float(apart.mean()), 4), round(float(error), 4)]

    return {
        "temperature": round(edited.temperature, 3),
        "held-out": change(edited.fitted, original.fitted),
        "held-out, plain": change(edited.plain, original.plain),
        "members, distinct": change(edited.members, original.members),
    }


def main(name: str) -> None:
    """Print the change of the loss by each edit."""
    memory = Memory(name)
    pictures = captured_pictures(memory.organism, 384)
    scores = iarmem.localize(memory.model, pictures, options=iarmem.CaptureOptions(views=10))
    chosen = {
        "lowest UnitMem, 10%": iarmem.Lowest().select(scores, fraction=0.1, seed=0),
        "most active, 10%": iarmem.Highest(by="mean_activation").select(
            scores, fraction=0.1, seed=0
        ),
        "highest UnitMem, 10%": iarmem.Highest().select(scores, fraction=0.1, seed=0),
    }
    for seed in range(3):
        neurons = iarmem.Random().select(scores, fraction=0.4, seed=seed)
        chosen[f"random, 40%, seed {seed}"] = neurons
    axis = Axis(memory)
    original = axis.loss(memory.model)
    found: dict[str, Any] = {"original": [original.temperature, float(original.fitted.mean())]}
    for label, neurons in chosen.items():
        with iarmem.intervene(memory.model, neurons, iarmem.ScaleWeights(0.5)) as edited:
            found[label] = compared(axis.loss(edited), original)
    print(json.dumps({"model": name, **found}, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
