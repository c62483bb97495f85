"""The whole job on a bundled organism, whose memory is known."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.activations.leaving_out import LeavingOut
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import ORIGINAL, TWIN
from iarmem_plugin.evaluation.generation import with_generations
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Metric, Selector
from iarmem_plugin.interfaces.organism import Organism
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.contrast import CrossFit, contrast, cross_fit, halves, scored_on
from iarmem_plugin.jobs.demo.pictures import (
    EVERYTHING,
    Sizes,
    candidates,
    captured_pictures,
    having,
    references,
    reported,
    spread,
    unreported,
)
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.measuring import tune_sampling
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.protocol import calibrate_on, with_random_sets
from iarmem_plugin.jobs.quality import QualityProtocol, quality_protocol
from iarmem_plugin.jobs.recalibration import Recalibration
from iarmem_plugin.models.loading import load
from iarmem_plugin.neurons.interventions import ScaleWeights, ZeroWeights
from iarmem_plugin.neurons.selectors import Highest, Lowest
from iarmem_plugin.plugins.create import create
from iarmem_plugin.report.report import Report, check_output_folder
from iarmem_plugin.report.results import listed

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.models.tracing import ImageARModel

PAPERS = "highest UnitMem"  # the arm of the paper's intervention
SPLIT = f"{PAPERS}, split"  # the same, chosen without the half of the canaries that it is tested on
CONTRASTS = {
    "difference-of-means": "difference of means, split",
    "gradient-weight": "gradient × weight, split",
}
NOTHING: Mapping[str, CrossFit] = MappingProxyType({})
FRACTION = 0.1
FACTOR = 0.5
RANDOM_SETS = 3
BESIDE = (ORIGINAL, PAPERS, TWIN)  # in which the quick demo does what is expensive
BATCH_SIZE = 256  # real images, for their features
COMPLETED = 180  # images completed at a time: RAR takes a sixth less than with 64


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
    tried = _with_generations(traced, organism, sizes, seed)
    options = CaptureOptions(views=sizes.views, seed=seed)
    scores, split = _localized(traced, captured, tried, options, progress)
    clock.lap("capture")
    contrasts = _contrasts(traced, organism, tried, sizes, seed)
    clock.lap("contrasts")
    similarity, recognition = _calibrated(traced, organism, progress)
    clock.lap("calibration")
    report = mitigate(
        traced,
        scores,
        tried,
        arms(seed, {SPLIT: split, **contrasts}),
        similarity=similarity,
        recognition=recognition,
        losses=loss_protocol(
            *(traced, HeldOutLoss()),
            organism.pictures.subset(unreported(organism, sizes.fitted)),
            traced.adapter.variant.views,
        ),
        recalibration=_recalibration(organism, sizes),
        quality=_quality(traced, organism, sizes, seed),
        twin=twin,
        options=ExtractionOptions(batch_size=COMPLETED),
        progress=progress,
    )
    clock.lap("extraction and quality of all arms")
    used = {
        "captured": len(captured),
        "temperature fitted on": len(unreported(organism, sizes.fitted)),
        "contrasted with": sizes.reference,
        "thresholds fixed anew on": len(unreported(organism, sizes.recalibrated)),
        "free generations": sizes.free,
        "generated": sizes.generated,
        "sampling seeds": sizes.seeds,
        "views": sizes.views,
    }
    settings = {"seed": seed, "organism": dict(organism.hashes), "sizes": used}
    provenance = {**report.provenance, **settings, "cost": clock.cost()}
    return replace(report, provenance=provenance, captured=listed(captured))


def _calibrated(
    model: ImageARModel, organism: Organism, progress: Progress | None
) -> tuple[PixelCorrelation, Recognition]:
    similarity, recognition = PixelCorrelation(), Recognition()
    unseen = candidates(organism, organism.calibration)
    source = "held-out pictures that are not reported, unmodified model"
    calibrate_on(
        model,
        unseen,
        similarity,
        source=source,
        recognition=recognition,
        batch_size=COMPLETED,
        progress=progress,
    )
    return similarity, recognition


def _with_generations(
    model: ImageARModel, organism: Organism, sizes: Sizes, seed: int
) -> Candidates:
    """Return the candidates, and some that the model draws for the classes of its training."""
    tried = candidates(organism, reported(organism, sizes))
    shown = organism.pictures.subset(np.flatnonzero(organism.exposures > 0))
    sampling, tuned = replace(model.adapter.variant.sampling, seed=seed), organism.sampler
    if tuned is not None:
        sampling = replace(sampling, temperature=tuned.temperature)
    return with_generations(model, tried, shown, sizes.free, sampling=sampling)


def _recalibration(organism: Organism, sizes: Sizes) -> Recalibration:
    chosen = np.zeros(len(organism.group), bool)
    chosen[unreported(organism, sizes.recalibrated)] = True
    names = None if sizes.everywhere else frozenset(BESIDE)
    return Recalibration(candidates(organism, chosen), arms=names)


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
        arms=None if sizes.everywhere else BESIDE,
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


def arms(seed: int = 0, fitted: Mapping[str, CrossFit] = NOTHING) -> list[Arm]:
    """Return what the demo compares: a tenth of the neurons, chosen and edited variously.

    Args:
        seed: seed for drawing random sets.
        fitted: name of an arm -> scores that were made on halves of the candidates.
    """
    chosen: dict[str, Selector] = {
        PAPERS: Highest(),
        "most active": Highest(by="mean_activation"),
        "lowest UnitMem": Lowest(),
    }
    halve = ScaleWeights(FACTOR)
    named = [Arm(name, selector, halve, FRACTION) for name, selector in chosen.items()]
    crossed = [
        Arm(name, Highest(), halve, FRACTION, scores=scores) for name, scores in fitted.items()
    ]
    zeroed = Arm(f"{PAPERS}, zeroed", Highest(), ZeroWeights(), FRACTION)
    return with_random_sets([*named, *crossed, zeroed], RANDOM_SETS, first_seed=seed)


def _localized(
    model: ImageARModel,
    captured: Images,
    tried: Candidates,
    options: CaptureOptions,
    progress: Progress | None,
) -> tuple[xr.Dataset, CrossFit]:
    """Score neurons by UnitMem on all captured pictures, and without each half of the canaries."""
    half = halves(tried, seed=options.seed)
    left_out = [LeavingOut(_unitmem(), scored_on(tried, half == one).ids) for one in (0, 1)]
    scores = localize(
        model, captured, metric=(_unitmem(), *left_out), options=options, progress=progress
    )
    whole, *without = scores.values()
    return whole, CrossFit((without[0], without[1]), half, options.seed, tried.identity)


def _unitmem() -> Metric:
    return create("metric", "unitmem")


def _contrasts(
    model: ImageARModel, organism: Organism, tried: Candidates, sizes: Sizes, seed: int
) -> dict[str, CrossFit]:
    """Score neurons by contrast, on one half of the canaries after the other."""
    others = np.setdiff1d(having(organism, "member"), tried.images.ids)
    references = {
        "difference-of-means": organism.pictures.subset(unreported(organism, sizes.reference)),
        "gradient-weight": organism.pictures.subset(spread(others, sizes.reference)),
    }
    return {
        CONTRASTS[scorer]: cross_fit(
            tried,
            partial(contrast, model, reference=reference, scorer=scorer),
            seed=seed,
        )
        for scorer, reference in references.items()
    }


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
