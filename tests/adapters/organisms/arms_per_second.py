"""How many arms a CPU-second gives: each part's share, and a digest of all that came out.

``python tests/adapters/organisms/arms_per_second.py var-organism`` runs the demo's candidates
through arms without quality measures, in one thread, and prints CPU-seconds an arm as JSON: by
part, the call's own time without that of the parts inside it. Thresholds are fixed anew in every
arm, as in the whole demo; with ``--beside`` in the original and the paper's arm alone, as in the
quick one. The digest covers every number of every arm.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import xarray as xr

from iarmem_plugin import load, localize
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.cli.memory import keep_freed_memory
from iarmem_plugin.evaluation import extraction
from iarmem_plugin.evaluation.counts import ORIGINAL
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import LossProtocol, loss_protocol
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.jobs.arms import UNMODIFIED, Arm, ArmOutcome, run_arm, select_neurons
from iarmem_plugin.jobs.attack import Attack, ExtractionOptions, make_attack
from iarmem_plugin.jobs.demo import Sizes, candidates, captured_pictures
from iarmem_plugin.jobs.demo.job import BESIDE, COMPLETED, arms
from iarmem_plugin.jobs.demo.pictures import reported, unreported
from iarmem_plugin.jobs.protocol import calibrate_on, with_random_sets
from iarmem_plugin.jobs.recalibration import Recalibration
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.editing import WeightEdits

Call = Callable[..., Any]


class Parts:
    """CPU-seconds of each part: what passes inside a call, but for the calls of parts inside it."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._inside, self._since = ["the rest"], time.process_time()

    def clear(self) -> None:
        """Begin anew."""
        self.spent.clear()
        self.calls.clear()
        self._since = time.process_time()

    def enter(self, part: str) -> None:
        """Give the time so far to what was under way, and that from here on to a part."""
        self._lap()
        self.calls[part] += 1
        self._inside.append(part)

    def leave(self) -> None:
        """Give the time so far to the part under way, and go on with what it was called in."""
        self._lap()
        self._inside.pop()

    def timed(self, owner: Any, name: str, part: str) -> None:
        """Count every call of a method or function as a part."""
        call: Call = getattr(owner, name)

        @functools.wraps(call)
        def run(*args: Any, **named: Any) -> Any:
            self.enter(part)
            try:
                return call(*args, **named)
            finally:
                self.leave()

        setattr(owner, name, run)

    def _lap(self) -> None:
        now = time.process_time()
        self.spent[self._inside[-1]] += now - self._since
        self._since = now


def watched(parts: Parts, model: ImageARModel) -> None:
    """Time the parts of an arm."""
    driver = model.adapter.driver  # type: ignore[attr-defined]  # our adapters have one
    for owner, name, part in (
        (Attack, "recalibrated", "recalibration, the rest"),
        (ImageARModel, "complete", "trace of completions"),
        (driver, "complete", "completing"),
        (ImageARModel, "decode", "decoding"),
        (ImageARModel, "logits", "trace of forwards"),
        (driver, "inputs", "teacher-forced inputs"),
        (model.adapter.network, "forward", "forward"),
        (extraction, "compared", "comparing"),
        (LossProtocol, "measured", "losses, the rest"),
        (HeldOutLoss, "fit", "temperature"),
        (HeldOutLoss, "losses", "losses"),
        (WeightEdits, "made", "editing"),
    ):
        parts.timed(owner, name, part)


def attack_on(name: str, *, beside: bool) -> tuple[ImageARModel, Attack, xr.Dataset]:
    """Return an organism, the demo's attack on it, and scores of its neurons."""
    model, sizes = load(name), Sizes()
    made = model.adapter.variant.organism
    assert made is not None
    organism = made()
    captured = captured_pictures(organism, 128)
    scores = localize(model, captured, options=CaptureOptions(views=2))
    similarity, recognition = PixelCorrelation(), Recognition()
    unseen = candidates(organism, organism.calibration)
    settings: dict[str, Any] = {"recognition": recognition, "batch_size": COMPLETED}
    calibrate_on(model, unseen, similarity, source="calibration pictures", **settings)
    fitted = organism.pictures.subset(unreported(organism, sizes.fitted))
    names = frozenset(BESIDE) if beside else None
    attack = make_attack(
        model,
        candidates(organism, reported(organism, sizes)),
        similarity,
        ExtractionOptions(batch_size=COMPLETED),
        recognition=recognition,
        losses=loss_protocol(model, HeldOutLoss(), fitted, model.adapter.variant.views),
        recalibration=Recalibration(unseen, arms=names),
    )
    return model, attack, scores


def compared(random_sets: int) -> list[Arm]:
    """Return the original, three selections that are told apart by name, and random sets."""
    halved = arms()[:3]
    return [UNMODIFIED, *with_random_sets(halved, random_sets, first_seed=0)]


def digest(outcomes: Sequence[ArmOutcome]) -> str:
    """Return a hash over every number that came out."""
    found = hashlib.sha256()
    for one in outcomes:
        for data in (one.extraction, one.calibration):
            for name in () if data is None else sorted(map(str, data.variables)):
                values = data[name].values
                numbers = values if values.dtype.kind in "fiub" else values.astype(str)
                found.update(name.encode() + numbers.tobytes())
    return found.hexdigest()[:16]


def kernels(model: ImageARModel, attack: Attack) -> dict[str, float]:
    """Return CPU-seconds of the operations of the original arm, as torch's profiler tells them.

    Products, convolutions and attention are the arithmetic that no cache takes away.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        run_arm(model, UNMODIFIED, select_neurons(UNMODIFIED, xr.Dataset(), model.layout), attack)
    spent = {one.key: one.self_cpu_time_total / 1e6 for one in found.key_averages()}
    largest = sorted(spent, key=lambda name: -spent[name])[:12]
    return {"all": round(sum(spent.values()), 2)} | {one: round(spent[one], 2) for one in largest}


def main(name: str, random_sets: int, *, beside: bool) -> None:
    """Print what an arm takes."""
    model, attack, scores = attack_on(name, beside=beside)
    chosen = [(arm, select_neurons(arm, scores, model.layout)) for arm in compared(random_sets)]
    run_arm(model, *chosen[0], attack)  # what is done once
    operations = kernels(model, attack)
    parts = Parts()
    watched(parts, model)
    parts.clear()
    started, wall = time.process_time(), time.monotonic()
    outcomes = [run_arm(model, arm, neurons, attack) for arm, neurons in chosen]
    spent, wall = time.process_time() - started, time.monotonic() - wall
    parts.enter("the rest")
    count = len(chosen)
    found = {
        "model": name,
        "arms": count,
        "candidates": len(attack.candidates),
        "CPU-seconds an arm": round(spent / count, 4),
        "wall seconds an arm": round(wall / count, 4),
        "parts": {part: round(one / count, 4) for part, one in parts.spent.most_common()},
        "calls an arm": {part: round(one / count, 1) for part, one in parts.calls.items()},
        "operations of the original": operations,
        "extracted": {one.result.name: int(one.extraction.extracted.sum()) for one in outcomes},
        "digest": digest(outcomes),
    }
    print(json.dumps(found, indent=1))
    assert outcomes[0].result.name == ORIGINAL


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()  # as the commands do
    given = argparse.ArgumentParser()
    given.add_argument("model", nargs="?", default="var-organism")
    given.add_argument("--random-sets", type=int, default=8)
    given.add_argument("--beside", action="store_true")
    asked = given.parse_args()
    main(asked.model, asked.random_sets, beside=asked.beside)
