"""The whole job on a bundled organism, whose memory is known."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from iarmem_plugin import plugins
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import ORIGINAL, TWIN
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Selector
from iarmem_plugin.interfaces.organism import Organism, Role, role_of
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.measuring import tune_sampling
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.protocol import calibrate_on, with_random_sets
from iarmem_plugin.jobs.quality import QualityProtocol, quality_protocol
from iarmem_plugin.models.loading import load
from iarmem_plugin.neurons.interventions import ScaleWeights, ZeroWeights
from iarmem_plugin.neurons.selectors import Highest, Lowest
from iarmem_plugin.report.report import Report, check_output_folder

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.models.tracing import ImageARModel

PAPERS = "highest UnitMem"  # the arm of the paper's intervention
FRACTION = 0.1
FACTOR = 0.5
RANDOM_SETS = 3
BATCH_SIZE = 256  # real images, for their features


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of an organism's data a demo uses.

    Attributes:
        captured: training pictures whose activations are captured, all canaries among them.
        members: candidates of each group of members.
        held_out: candidates that were held out.
        fitted: pictures, held out and not reported, that each arm's temperature is fitted on.
        generated: images generated in each arm of which image quality is measured.
        everywhere: whether it is measured in all arms, and not in the original, the paper's
            intervention and the twin alone.
        views: augmented views of each captured picture.
        seeds: how often they are generated.
        tuned: whether the sampling temperature is sought, and not taken as recorded.
    """

    captured: int = 384
    members: int = 34
    held_out: int = 150
    fitted: int = 150
    generated: int = 300
    views: int = 10
    everywhere: bool = False
    seeds: int = 1
    tuned: bool = False


ALL = 1_000_000
EVERYTHING = Sizes(
    **dict.fromkeys(("captured", "members", "held_out", "fitted"), ALL),
    generated=1000,
    everywhere=True,
    seeds=3,
    tuned=True,
)


def demo(
    out: Path | str,
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
        full: use every picture instead of a part, seek the sampling temperature instead of taking
            the one recorded, and generate images by three seeds in all arms.
        seed: seed for drawing the views, the random neuron sets and the generated images.
        progress: where progress bars may be shown.

    Raises:
        InputError: the model is not an organism, or the folder is not ours.
    """
    check(out, model)
    with _one_thread():
        report = _run(_organism(model), model, EVERYTHING if full else Sizes(), seed, progress)
    report.save(out)
    return report


def check(out: Path | str, model: str) -> None:
    """Refuse what `demo` would, before anything is loaded.

    Raises:
        UnknownNameError: no such model.
        InputError: the model is not an organism, or the folder is not ours.
    """
    check_output_folder(out)
    _maker(model)


def _run(
    organism: Organism, model: str, sizes: Sizes, seed: int, progress: Progress | None
) -> Report:
    clock = _Clock()
    traced, named = load(model), twin_of(model)
    twin = None if named is None else load(named)
    clock.lap("start")
    captured = captured_pictures(organism, sizes.captured)
    scores = localize(
        traced,
        captured,
        options=CaptureOptions(views=sizes.views, seed=seed),
        progress=progress,
    )
    clock.lap("capture")
    similarity, recognition = _calibrated(traced, organism, progress)
    clock.lap("calibration")
    report = mitigate(
        traced,
        scores,
        candidates(organism, reported(organism, sizes)),
        arms(seed),
        similarity=similarity,
        recognition=recognition,
        losses=loss_protocol(
            traced, HeldOutLoss(), unreported(organism, sizes), traced.adapter.variant.views
        ),
        quality=_quality(traced, organism, sizes, seed),
        twin=twin,
        progress=progress,
    )
    clock.lap("extraction and quality of all arms")
    used = {
        "captured": len(captured),
        "temperature fitted on": len(unreported(organism, sizes)),
        "generated": sizes.generated,
        "sampling seeds": sizes.seeds,
        "views": sizes.views,
    }
    settings = {"seed": seed, "sizes": used, "cost": clock.cost()}
    return replace(report, provenance={**report.provenance, **settings})


def _calibrated(
    model: ImageARModel, organism: Organism, progress: Progress | None
) -> tuple[PixelCorrelation, Recognition]:
    similarity, recognition = PixelCorrelation(), Recognition()
    unseen = candidates(organism, organism.calibration)
    source = "held-out pictures that are not reported, unmodified model"
    calibrate_on(
        model, unseen, similarity, source=source, recognition=recognition, progress=progress
    )
    return similarity, recognition


def _quality(model: ImageARModel, organism: Organism, sizes: Sizes, seed: int) -> QualityProtocol:
    measure = TorchFidelity(organism.classifier(), organism.classifier_name)
    beside = organism.pictures.subset(np.flatnonzero(organism.calibration))
    tuned, real = organism.sampler, references(organism)
    if sizes.tuned:
        tuned = tune_sampling(
            model, measure, beside, generated=sizes.generated, seed=seed, batch_size=BATCH_SIZE
        )
    return quality_protocol(
        model,
        measure,
        real,
        generated=sizes.generated,
        seed=seed,
        seeds=sizes.seeds,
        temperature=tuned,
        beside={next(iter(real)): ("calibration pictures", beside)},
        arms=None if sizes.everywhere else (ORIGINAL, PAPERS, TWIN),
        batch_size=BATCH_SIZE,
    )


def organisms() -> list[str]:
    """Return the names of the bundled models whose memory is known, without their twins."""
    known = {name: one for name, (_, one) in plugins.variants().items() if one.organism is not None}
    return [name for name, one in known.items() if not one.twin_of]


def twin_of(model: str) -> str | None:
    """Return the name of an organism's twin, if there is one."""
    twins = {one.twin_of: name for name, (_, one) in plugins.variants().items() if one.twin_of}
    return twins.get(model)


def unreported(organism: Organism, sizes: Sizes) -> Images:
    """Return held-out pictures for calibration, evenly spaced."""
    chosen = _spread(np.flatnonzero(organism.calibration), sizes.fitted)
    return organism.pictures.subset(chosen)


def arms(seed: int = 0) -> list[Arm]:
    """Return what the demo compares: a tenth of the neurons, chosen and edited variously."""
    chosen: dict[str, Selector] = {
        PAPERS: Highest(),
        "most active": Highest(by="mean_activation"),
        "lowest UnitMem": Lowest(),
    }
    halve = ScaleWeights(FACTOR)
    named = [Arm(name, selector, halve, FRACTION) for name, selector in chosen.items()]
    zeroed = Arm(f"{PAPERS}, zeroed", Highest(), ZeroWeights(), FRACTION)
    return with_random_sets([*named, zeroed], RANDOM_SETS, first_seed=seed)


def captured_pictures(organism: Organism, count: int) -> Images:
    """Return training pictures: all canaries, then other members evenly spaced."""
    canaries = _having(organism, "canary")
    members = _spread(_having(organism, "member"), max(0, count - len(canaries)))
    return organism.pictures.subset(np.sort(np.concatenate((canaries, members))))


def reported(organism: Organism, sizes: Sizes) -> np.ndarray:
    """Return bool, one for each picture: canaries, some members, some held-out pictures."""
    chosen = np.zeros(len(organism.group), bool)
    chosen[_having(organism, "canary")] = True
    members = organism.group[_having(organism, "member")]
    for group in sorted(set(members)):
        chosen[_spread(np.flatnonzero(organism.group == group), sizes.members)] = True
    unseen = _having(organism, "held-out")
    chosen[_spread(unseen[~organism.calibration[unseen]], sizes.held_out)] = True
    return chosen


def candidates(organism: Organism, chosen: np.ndarray) -> Candidates:
    """Return the chosen pictures with their groups, the canaries seen most often first."""
    positions = np.flatnonzero(chosen)
    other = ~np.isin(positions, _having(organism, "canary"))
    order = np.lexsort((positions, -organism.exposures[positions], other))
    positions = positions[order]
    return Candidates(organism.pictures.subset(positions), organism.group[positions].astype(str))


def references(organism: Organism) -> dict[str, Images]:
    """Return what generated images are compared with: pictures never shown, then members.

    Their names say what the classifier, in whose features they are compared, has seen of them.
    """
    unseen, members = _having(organism, "held-out"), _having(organism, "member")
    chosen: dict[Role, tuple[str, np.ndarray]] = {
        "held-out": ("held-out pictures", unseen[~organism.calibration[unseen]]),
        "member": ("members that are no canaries", members),
    }
    saw = {role: organism.classifier_saw.get(role) for role in chosen}
    return {
        name if saw[role] is None else f"{name}, {saw[role]}": organism.pictures.subset(rows)
        for role, (name, rows) in chosen.items()
    }


def _having(organism: Organism, role: str) -> np.ndarray:
    roles = np.array([role_of(str(name)) for name in organism.group])
    return np.flatnonzero(roles == role)


def _spread(positions: np.ndarray, count: int) -> np.ndarray:
    """Return `count` positions, evenly spaced; all of them if there are fewer."""
    if count >= len(positions):
        return positions
    spread: np.ndarray = positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
    return spread


def _organism(name: str) -> Organism:
    return _maker(name)()


def _maker(name: str) -> Callable[[], Organism]:
    _, variant = plugins.find_variant(name)
    if variant.organism is None or variant.twin_of:
        what = "the twin of one, which saw no canary" if variant.twin_of else "not an organism"
        raise InputError(f"{name} is {what}; the demo runs on: {', '.join(organisms())}")
    return variant.organism


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
