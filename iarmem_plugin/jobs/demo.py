"""The whole job on a bundled organism, whose memory is known."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin import plugins
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.generation import proportional_labels
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Selector
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.mitigate import Arm, QualityProtocol, calibrate_on, mitigate
from iarmem_plugin.models.loading import load
from iarmem_plugin.neurons.interventions import ScaleWeights
from iarmem_plugin.neurons.selectors import Highest, Lowest, Random
from iarmem_plugin.report.report import Report, check_output_folder

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.data.organism import Organism
    from iarmem_plugin.models.tracing import ImageARModel

FRACTION = 0.1
FACTOR = 0.5
RANDOM_SETS = 5


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of an organism's data a demo uses.

    Attributes:
        captured: training pictures whose activations are captured, all canaries among them.
        members: candidates that are members but no canaries.
        generated: images generated in each arm.
        views: augmented views of each captured picture.
    """

    captured: int = 384
    members: int = 150
    generated: int = 300
    views: int = 10


EVERYTHING = Sizes(captured=1_000_000, members=1_000_000, generated=1606)


def demo(
    out: Path,
    *,
    model: str = "var-organism",
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Localize and mitigate memorization in an organism, and write the report.

    Args:
        out: folder to write.
        model: the organism.
        full: use every picture instead of a part.
        seed: of views, random neuron sets and generation.
        progress: where progress bars may be shown.

    Raises:
        InputError: the model is no organism, or the folder is not ours.
    """
    check_output_folder(out)
    with _one_thread():
        report = _run(_organism(model), model, EVERYTHING if full else Sizes(), seed, progress)
    report.save(out)
    return report


def _run(
    organism: Organism, model: str, sizes: Sizes, seed: int, progress: Progress | None
) -> Report:
    clock = _Clock()
    traced = load(model)
    clock.lap("start")
    captured = captured_pictures(organism, sizes.captured)
    scores = localize(
        traced,
        captured,
        options=CaptureOptions(views=sizes.views, seed=seed),
        progress=progress,
    )
    clock.lap("capture")
    similarity = PixelCorrelation()
    calibrate_on(
        traced,
        candidates(organism, organism.calibration),
        similarity,
        source="half of the held-out pictures, unmodified model",
        progress=progress,
    )
    clock.lap("calibration")
    report = mitigate(
        traced,
        scores,
        candidates(organism, reported(organism, sizes.members)),
        arms(seed),
        similarity=similarity,
        quality=quality_protocol(traced, organism, sizes.generated, seed),
        progress=progress,
    )
    clock.lap("extraction and quality of all arms")
    used = {"captured": len(captured), "generated": sizes.generated, "views": sizes.views}
    settings = {"seed": seed, "sizes": used, "cost": clock.cost()}
    return replace(report, provenance={**report.provenance, **settings})


def organisms() -> list[str]:
    """Return the names of the bundled models whose memory is known."""
    return [name for name, (_, one) in plugins.variants().items() if one.organism is not None]


def arms(seed: int = 0) -> list[Arm]:
    """Return what the demo compares: weights halved in a tenth of the neurons, chosen variously."""
    halve = ScaleWeights(FACTOR)
    chosen: dict[str, Selector] = {
        "highest UnitMem": Highest(),
        "most active": Highest(by="mean_activation"),
        "lowest UnitMem": Lowest(),
    }
    named = [Arm(name, selector, halve, FRACTION) for name, selector in chosen.items()]
    drawn = [
        Arm(f"random {number + 1}", Random(), halve, FRACTION, seed=seed + number)
        for number in range(RANDOM_SETS)
    ]
    return named + drawn


def captured_pictures(organism: Organism, count: int) -> Images:
    """Return training pictures: all canaries, then other members evenly spaced."""
    canaries = _positions(organism, "canary")
    members = _spread(_positions(organism, "member"), count - len(canaries))
    return organism.pictures.subset(np.sort(np.concatenate((canaries, members))))


def reported(organism: Organism, members: int) -> np.ndarray:
    """Return bool, one for each picture: canaries, some members, and unused held-out pictures."""
    chosen: np.ndarray = organism.repeats == 0
    chosen &= ~organism.calibration
    chosen[_positions(organism, "canary")] = True
    chosen[_spread(_positions(organism, "member"), members)] = True
    return chosen


def candidates(organism: Organism, chosen: np.ndarray) -> Candidates:
    """Return the chosen pictures with their groups, most repeated canaries first."""
    positions = np.flatnonzero(chosen)
    canary = np.char.startswith(organism.group[positions].astype(str), "canary")
    order = np.lexsort((positions, -organism.repeats[positions], ~canary))
    positions = positions[order]
    return Candidates(organism.pictures.subset(positions), organism.group[positions].astype(str))


def quality_protocol(
    model: ImageARModel, organism: Organism, generated: int, seed: int
) -> QualityProtocol:
    """Return the FID and KID protocol, against all members and against those not canaries."""
    quality = TorchFidelity(organism.classifier(), organism.classifier_name)
    members = np.flatnonzero(organism.repeats > 0)
    plain = _positions(organism, "member")
    views = model.adapter.variant.views
    references = {
        "training pictures once each": quality.features(_pixels(organism, members, views)),
        "training pictures that are no canaries": quality.features(_pixels(organism, plain, views)),
    }
    labels = proportional_labels(organism.pictures.labels[members], generated)
    sampling = replace(model.adapter.variant.sampling, seed=seed)
    return QualityProtocol(quality, references, labels, sampling)


def _pixels(
    organism: Organism, positions: np.ndarray, views: Augmentation
) -> Iterator[Float[Tensor, "_ 3 height width"]]:
    for part in np.array_split(positions, max(1, len(positions) // 256)):
        yield torch.stack([views.center(organism.pictures.load(int(index))) for index in part])


def _positions(organism: Organism, group: str) -> np.ndarray:
    positions: np.ndarray = np.flatnonzero(np.char.startswith(organism.group.astype(str), group))
    return positions


def _spread(positions: np.ndarray, count: int) -> np.ndarray:
    """Return `count` positions, evenly spaced; all of them if there are fewer."""
    if count >= len(positions):
        return positions
    spread: np.ndarray = positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
    return spread


def _organism(name: str) -> Organism:
    _, variant = plugins.find_variant(name)
    if variant.organism is None:
        raise InputError(f"{name} is no organism; the demo runs on: {', '.join(organisms())}")
    return variant.organism()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: a model this small only loses time by sharing the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Clock:
    """CPU and wall time of the computation, without imports and without writing the report."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._parts: dict[str, float] = {}

    def lap(self, part: str) -> None:
        """Give the CPU time since the last part to this one."""
        spent = time.process_time() - self._cpu - sum(self._parts.values())
        self._parts[part] = spent

    def cost(self) -> dict[str, Any]:
        """Return seconds and, in MiB, the peak memory of this process."""
        return {
            "cpu_seconds": round(sum(self._parts.values()), 1),
            "cpu_seconds_of": {part: round(spent, 1) for part, spent in self._parts.items()},
            "wall_seconds": round(time.monotonic() - self._wall, 1),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
