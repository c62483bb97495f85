"""What a plan would take, before it is begun: passes, images, hours at measured rates, disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import tested
from iarmem_plugin.evaluation.evidence.power import smallest_difference
from iarmem_plugin.evaluation.generation import conditions_like, generate
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.jobs.arms import Stage
from iarmem_plugin.jobs.attack import make_attack
from iarmem_plugin.jobs.compare.bracketing import most_added
from iarmem_plugin.jobs.compare.job import load_part
from iarmem_plugin.jobs.compare.making import check_scores
from iarmem_plugin.jobs.compare.material import Material, open_material
from iarmem_plugin.jobs.compare.settings import attack_options
from iarmem_plugin.jobs.measuring import TEMPERATURES
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.create import create
from iarmem_plugin.table import TextTable
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.jobs.plan.plan import Plan

_HOUR = 3600
WIDTH = 2048  # features of Inception, where the measure is not asked


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of work of a plan.

    Attributes:
        name: what it is: a stage of the arms, or what comes before them.
        arms: number of arms in which it is done.
        images: number of images that go through the model, of all arms together.
        passes: number of forward passes of the transformer, an image each; a completion takes one
            a scale or token that is chosen.
        seconds: time that it takes one worker at the measured rate.
        bytes: room on the disk.
    """

    name: str
    arms: int
    images: int
    passes: int
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan would take one worker; what is finished already is not left out.

    Attributes:
        steps: each kind of work, in its order.
        measured: how many images the rates were measured on.
        device: where.
        notes: what is not known.
    """

    steps: tuple[Step, ...]
    measured: int
    device: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON values."""
        return {
            "steps": [{name: getattr(one, name) for name in Step.__slots__} for one in self.steps],
            "measured_on": self.measured,
            "device": self.device,
            "notes": list(self.notes),
        }

    def table(self) -> TextTable:
        """Return it as a table, with a line for all."""
        steps = [*self.steps, _total(self.steps)]
        heads = ["", "arms", "images", "passes", "hours", "disk [MB]"]
        rows = [
            (
                *(one.name, f"{one.arms:,}" if one.arms else "", f"{one.images:,}"),
                *(f"{one.passes:,}", f"{one.seconds / _HOUR:,.2f}", f"{one.bytes / 1e6:,.1f}"),
            )
            for one in steps
        ]
        notes = [
            f"Hours of one worker on {self.device}, at rates measured on {self.measured} images; "
            "n workers take about one n-th. What is finished already is not left out.",
            *self.notes,
        ]
        return TextTable("What the plan would take", heads, rows, numbers=heads[1:], notes=notes)


def estimate(plan: Plan, progress: Progress | None = None) -> Estimate:
    """Say what a plan would take: the model is loaded, and a batch of images sets the rates.

    Args:
        plan: what would be run.
        progress: where progress bars may be shown.

    Raises:
        InputError: pictures that cannot be used, or none.
    """
    material = open_material(plan, progress)
    model = load_part(plan.model)
    check_scores(plan, model)
    rates = _Rates.of(plan, model, material)
    counts = _Counts.of(plan, model, material)
    steps = [*_ranking(plan, material, rates), *_before(plan, counts, rates)]
    steps += [_stage(stage, counts, rates) for stage in get_args(Stage) if counts.images[stage]]
    notes = tuple(_notes(plan, material))
    return Estimate(tuple(steps), rates.measured, plan.model.device, notes)


@dataclass(frozen=True, slots=True)
class _Counts:
    """How many images each stage of an arm takes, and how much room.

    Attributes:
        arms: number of arms, the unmodified model and the twin among them.
        unseen: pictures that fix thresholds.
        images: by stage.
        bytes: by stage.
        scorers: number of contrasts.
        contrasted: images that each of them sees.
        captured: images on which neurons are scored first.
        recovering: passes that all triggers take a picture.
        recovered: arms in which triggers are tried; None: all.
    """

    arms: int
    unseen: int
    images: Mapping[Stage, int]
    bytes: Mapping[Stage, int]
    scorers: int
    contrasted: int
    captured: int
    recovering: float = 0.0
    recovered: int | None = None

    @classmethod
    def of(cls, plan: Plan, model: ImageARModel, material: Material) -> _Counts:
        """Count what a plan asks for."""
        planned = plan.arms()
        added = most_added(plan) if plan.quality.losses else 0
        scorers = {(one.scorer, one.split) for one in planned if one.scorer is not None}
        tried = _tried(plan, material)
        unseen = 0 if material.unseen is None else len(material.unseen)
        fitted = len(material.fitted or ()) if plan.quality.losses else 0
        again = unseen if plan.attack.recalibrate else 0
        drawn = plan.quality.generated * plan.quality.seeds if plan.quality.images else 0
        tokens = 4 * len(model.layout.predicting) + 40
        predicted, completed = tried + fitted if fitted else 0, tried + again
        part = plan.recovery
        recovering = float(sum(create("trigger", one).passes for one in part.triggers))
        put = part.pictures + min(part.pictures, tried)
        brought, blocks = put + min(part.calibration, unseen), model.layout.num_blocks
        bytes_of: dict[Stage, int] = {
            "membership": 24 * tried,
            "depth": 8 * (blocks + 1) * put,
            "recovery": 80 * brought * len(part.triggers),
            "losses": 16 * tried,
            "completions": tokens * completed,
            "images": 4 * WIDTH * drawn,
        }
        return cls(
            arms=len(planned) + 1 + (plan.twin is not None) + added,
            unseen=unseen,
            images={
                "losses": predicted,
                "completions": completed,
                "membership": 2 * tried if part.membership else 0,
                "depth": (blocks + 2) * put if part.depth else 0,
                "recovery": brought if part.triggers else 0,
                "images": drawn,
            },
            recovering=recovering,
            recovered=len(part.arms) or None,
            bytes=bytes_of,
            scorers=len(scorers),
            contrasted=tried + sum(len(one) for one in material.contrasted.values()),
            captured=0 if plan.scores or material.captured is None else len(material.captured),
        )


@dataclass(frozen=True, slots=True)
class _Rates:
    """What one image takes in each stage, in seconds and passes, as it was measured."""

    seconds: Mapping[Stage, float]
    passes: Mapping[Stage, float]
    measured: int

    @classmethod
    def of(cls, plan: Plan, model: ImageARModel, material: Material) -> _Rates:
        """Run each stage of the unmodified model on one batch of images."""
        some = _some(plan, material)
        options = attack_options(plan)
        tried = Candidates(some, np.full(len(some), "candidate"))
        attack = make_attack(model, tried, PixelCorrelation(), options)
        views, size = model.adapter.variant.views, options.batch_size
        losses = loss_protocol(model, HeldOutLoss(), some, views, batch_size=size)
        predicting = replace(attack, losses=losses)
        work: dict[Stage, Callable[[], object]] = {
            "losses": lambda: predicting.predicted(model),
            "completions": lambda: attack.run(model),
        }
        if plan.quality.images is not None:
            told, sampling = conditions_like(some, len(some)), model.adapter.variant.sampling
            work["images"] = lambda: list(generate(model, told, sampling, batch_size=size))
        times = {stage: _timed(model, one, len(some)) for stage, one in work.items()}
        # the fitted half and the candidates were the same images here, so each went through twice
        seconds, passes = times["losses"]
        times["losses"] = (seconds / 2, passes / 2)
        return cls(
            {stage: one[0] for stage, one in times.items()},
            {stage: one[1] for stage, one in times.items()},
            len(some),
        )


def _some(plan: Plan, material: Material) -> Images:
    """Return a batch of the pictures that would be tried."""
    given = material.images if material.candidates is None else material.candidates.images
    if given is None or not len(given):
        raise InputError("the plan has no candidates; name images or candidates in [pictures]")
    return given.subset(range(min(plan.attack.batch_size, len(given))))


def _timed(model: ImageARModel, work: Callable[[], object], images: int) -> tuple[float, float]:
    """Return seconds and passes that an image takes."""
    with _passes(model) as counted:
        began = time.perf_counter()
        work()
        spent = time.perf_counter() - began
    return spent / images, counted[0] / images


@contextmanager
def _passes(model: ImageARModel) -> Iterator[list[int]]:
    """Count the images that go through the first block's neurons."""
    counted = [0]
    site = model.layout.mlp.site.path.format(block=0)
    module = model.adapter.network.get_submodule(site)

    def count(_: Any, given: tuple[Any, ...], __: Any) -> None:
        counted[0] += len(given[0]) if given else 1

    handle = module.register_forward_hook(count)
    try:
        yield counted
    finally:
        handle.remove()


def _tried(plan: Plan, material: Material) -> int:
    """Return how many candidates there are, at most where they are still to be ranked."""
    attack = plan.attack
    if material.candidates is not None:
        tried = len(material.candidates)
    elif attack.global_top is not None:
        tried = attack.global_top + len(material.reported or ())
    else:
        labels = () if material.images is None else material.images.labels.tolist()
        tried = attack.per_class * len(set(labels)) + len(material.reported or ())
    return tried + attack.generations


def _ranking(plan: Plan, material: Material, rates: _Rates) -> Iterator[Step]:
    if material.candidates is None and plan.attack.ranking is None:
        images = len(material.images or ())
        seconds = images * rates.seconds["losses"]
        yield Step("ranking the images", 0, images, images, seconds, 200 * images)


def _before(plan: Plan, counts: _Counts, rates: _Rates) -> Iterator[Step]:
    if counts.unseen:
        seconds = counts.unseen * rates.seconds["completions"]
        passes = round(counts.unseen * rates.passes["completions"])
        yield Step("fixing thresholds", 0, counts.unseen, passes, seconds, 0)
    if counts.captured:
        images = counts.captured * CaptureOptions().views
        yield Step("scoring neurons", 0, images, images, images * rates.seconds["losses"], 0)
    if counts.scorers:
        images = counts.scorers * counts.contrasted
        seconds = 3 * images * rates.seconds["losses"]  # a pass back takes two forward
        yield Step("scores by contrast", 0, images, 3 * images, seconds, 0)
    if plan.quality.temperature == "tuned" and "images" in rates.seconds:
        images = len(TEMPERATURES) * plan.quality.generated
        passes = round(images * rates.passes["images"])
        yield Step("temperature", 0, images, passes, images * rates.seconds["images"], 0)


def _stage(stage: Stage, counts: _Counts, rates: _Rates) -> Step:
    if stage == "recovery":
        return _recovery(counts, rates)
    images, like = counts.arms * counts.images[stage], stage
    if stage in ("membership", "depth"):  # teacher-forced passes, as those of the losses
        like = "losses"
    return Step(
        stage,
        counts.arms,
        images,
        round(images * rates.passes[like]),
        images * rates.seconds[like],
        counts.arms * counts.bytes[stage],
    )


def _recovery(counts: _Counts, rates: _Rates) -> Step:
    """Return what triggers take, where a pass takes what one or a completion does."""
    arms = counts.arms if counts.recovered is None else counts.recovered
    images = arms * counts.images["recovery"]
    passes = images * counts.recovering
    seconds = passes * min(rates.seconds["losses"], rates.seconds["completions"])
    return Step("recovery", arms, images, round(passes), seconds, arms * counts.bytes["recovery"])


def _total(steps: tuple[Step, ...]) -> Step:
    return Step(
        "all",
        0,
        sum(one.images for one in steps),
        sum(one.passes for one in steps),
        sum(one.seconds for one in steps),
        sum(one.bytes for one in steps),
    )


def _power(plan: Plan, material: Material) -> Iterator[str]:
    """Say what the primary hypothesis could show, where one is declared."""
    sizes = Counter(one.family for one in plan.expect if one.family is not None)
    tried = 0 if material.candidates is None else int(tested(material.candidates.role).sum())
    if sizes and tried > 1:
        first = next(one.family for one in plan.expect if one.family is not None)
        settings = plan.evidence
        power = smallest_difference(tried, settings.sets, tests=sizes[first], alpha=settings.alpha)
        yield f"What the family {shown(repr(first), 60)} can show: {power}"


def _notes(plan: Plan, material: Material) -> Iterator[str]:
    if material.candidates is None and plan.attack.ranking is None:
        yield "Candidates are ranked first, so their number is the most there can be."
    if added := most_added(plan) if plan.quality.losses else 0:
        yield (
            f"{added} of the arms are random sets for what is declared, at the two fractions that "
            "bracket its held-out loss; where more are needed, that many more for each."
        )
    yield from _power(plan, material)
    if plan.drop:
        yield f"No arm is dropped here; rules: {'; '.join(map(str, plan.drop))}."
    edits = [one.name for one in plan.arms() if one.edit is not None]
    if edits:
        named = shown(", ".join(edits), 200)
        yield f"What edits by training take is not known before, and comes on top: {named}."
    if plan.quality.images is not None:
        yield f"Features are taken to have {WIDTH} numbers an image; many have fewer."
