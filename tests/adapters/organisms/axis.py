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
from memory import DISTINCT, HELD_OUT, Memory, losses

import iarmem_plugin as iarmem
from iarmem_plugin.jobs.demo import captured_pictures
from iarmem_plugin.models.tracing import ImageARModel


@dataclass(frozen=True)
class Loss:
    """One model's losses of each image, nats a token, and its fitted temperature."""

    temperature: float
    fitted: np.ndarray
    plain: np.ndarray
    members: np.ndarray


def loss_of(memory: Memory, model: ImageARModel) -> Loss:
    """Return the losses of an organism, edited or not."""
    temperature = memory.temperature(model)
    predicted = memory.logits(memory.of(HELD_OUT).images, model)
    fitted, plain = (losses(*predicted, one) for one in (temperature, 1.0))
    members = losses(*memory.logits(memory.of(DISTINCT).images, model), temperature)
    return Loss(temperature, fitted, plain, members)


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
    original = loss_of(memory, memory.model)
    found: dict[str, Any] = {"original": [original.temperature, float(original.fitted.mean())]}
    for label, neurons in chosen.items():
        with iarmem.intervene(memory.model, neurons, iarmem.ScaleWeights(0.5)) as edited:
            found[label] = compared(loss_of(memory, edited), original)
    print(json.dumps({"model": name, **found}, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
