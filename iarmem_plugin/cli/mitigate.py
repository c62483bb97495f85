"""``iarmem mitigate``: scores and images in, a report out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iarmem_plugin.cli import console
from iarmem_plugin.cli import options as opt

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.jobs.arms import Arm, QualityProtocol
    from iarmem_plugin.jobs.protocol import Pictures
    from iarmem_plugin.models.tracing import ImageARModel
    from iarmem_plugin.report.report import Report


@dataclass(frozen=True, slots=True)
class _Edit:
    """Which neurons are edited and how, and how many random sets stand beside them."""

    selector: str
    intervention: str
    factor: float | None
    fraction: float
    random_sets: int
    seed: int

    def arms(self) -> list[Arm]:
        """Make the arm that the user named, and random sets with the seeds after its own."""
        from iarmem_plugin.jobs.arms import Arm
        from iarmem_plugin.jobs.protocol import with_random_sets
        from iarmem_plugin.plugins.create import create, create_intervention

        intervention = create_intervention(self.intervention, self.factor)
        selector = create("selector", self.selector)
        named = Arm(self.selector, selector, intervention, self.fraction, seed=self.seed)
        return with_random_sets([named], self.random_sets, first_seed=self.seed + 1)


@dataclass(frozen=True, slots=True)
class _Attack:
    """Which images are tried, and when one counts as extracted."""

    candidates: Path | None
    held_out: Path | None
    per_class: int
    similarity: str
    sscd: Path | None
    check_batching: int


@dataclass(frozen=True, slots=True)
class _Quality:
    """How image quality is measured, if it is."""

    inception: Path | None
    reference: Path | None
    generated: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Job:
    """What is tried on which model and images, and how it is measured."""

    model: opt.ModelOptions
    scores: Path
    images: Path
    reading: opt.ReadingOptions
    edit: _Edit
    attack: _Attack
    quality: _Quality
    batch_size: int

    def run(self, out: Path, *, restart: bool) -> Report:
        """Open what is named, refusing what cannot be used, and mitigate; save the report."""
        from iarmem_plugin.cli.inputs import load_model
        from iarmem_plugin.jobs.arms import ExtractionOptions
        from iarmem_plugin.jobs.finished import forget_arms
        from iarmem_plugin.jobs.mitigate import mitigate
        from iarmem_plugin.jobs.protocol import choose_candidates
        from iarmem_plugin.jobs.scores import check_made_with, load_scores
        from iarmem_plugin.models.hub import check_files
        from iarmem_plugin.plugins.create import create_similarity
        from iarmem_plugin.report.report import PROGRESS, check_output_folder

        arms = self.edit.arms()
        similarity = create_similarity(self.attack.similarity, self.attack.sscd)
        check_output_folder(out)
        check_files(self.model.name, self.model.weights, self.model.tokenizer)
        pictures = self._pictures()
        scores = load_scores(self.scores)
        model = load_model(self.model)
        check_made_with(model, scores)  # before candidates are ranked, which can take hours
        quality = self._quality_protocol(model, pictures.images)
        if restart:  # when nothing is left that could be refused
            forget_arms(out / PROGRESS)
        size, checked = self.batch_size, self.attack.check_batching
        with console.progress_bars() as progress:
            report = mitigate(
                model,
                scores,
                choose_candidates(
                    model,
                    pictures,
                    similarity,
                    per_class=self.attack.per_class,
                    batch_size=size,
                    progress=progress,
                ),
                arms,
                similarity=similarity,
                quality=quality,
                options=ExtractionOptions(
                    batch_size=size, check_batching=checked, checkpoints=out / PROGRESS
                ),
                progress=progress,
            )
        report.save(out)
        forget_arms(out / PROGRESS)
        return report

    def _pictures(self) -> Pictures:
        from iarmem_plugin.jobs.protocol import Pictures

        tried, unseen = self.attack.candidates, self.attack.held_out
        return Pictures(
            self._read(self.images),
            None if tried is None else self._read(tried),
            None if unseen is None else self._read(unseen),
        )

    def _read(self, source: Path) -> Images:
        from iarmem_plugin.cli.inputs import open_pictures, read_whole

        return read_whole(open_pictures(source, self.model.name, self.reading), self.reading)

    def _quality_protocol(self, model: ImageARModel, images: Images) -> QualityProtocol | None:
        from iarmem_plugin.evaluation.quality import TorchFidelity
        from iarmem_plugin.jobs.protocol import quality_protocol

        chosen = self.quality
        if chosen.inception is None:
            return None
        real = images if chosen.reference is None else self._read(chosen.reference)
        return quality_protocol(
            model,
            TorchFidelity(chosen.inception, "Inception v3", device=str(model.device)),
            {"given images": real},
            generated=chosen.generated,
            seed=chosen.seed,
            batch_size=self.batch_size,
        )


def mitigate(
    model: opt.Model,
    scores: opt.Scores,
    images: opt.ImageSource,
    out: opt.Out,
    fraction: opt.Fraction = 0.1,
    intervention: Annotated[str, typer.Option(help="How to edit them.")] = "scale-weights",
    factor: opt.Factor = None,
    selector: Annotated[str, typer.Option(help="Which neurons to edit.")] = "highest",
    random_sets: opt.RandomSets = 5,
    similarity: Annotated[str, typer.Option(help="Compares completion and target.")] = (
        "correlation"
    ),
    sscd: opt.SSCDFile = None,
    candidates: opt.CandidateSource = None,
    held_out: opt.HeldOut = None,
    per_class: opt.PerClass = 5,
    inception: opt.Inception = None,
    reference: opt.Reference = None,
    generated: opt.Generated = 1000,
    check_batching: opt.CheckBatching = 0,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    device: opt.Device = "cpu",
    dtype: opt.Dtype = opt.Precision.float32,
    compile: opt.Compile = False,
    batch_size: opt.BatchSize = 32,
    seed: opt.Seed = 0,
    restart: opt.RestartArms = False,
    classes: opt.Classes = None,
    image_root: opt.ImageRoot = None,
    on_bad_image: opt.BadImage = opt.OnBadImage.error,
    workers: opt.Workers = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Edit the selected neurons, and report extraction and quality before and after.

    A run that was ended goes on after its last finished arm when the same command is given again.
    """
    job = _Job(
        model=opt.ModelOptions(model, weights, tokenizer, device, dtype, compile),
        scores=scores,
        images=images,
        reading=opt.ReadingOptions(image_root, classes, on_bad_image, workers),
        edit=_Edit(selector, intervention, factor, fraction, random_sets, seed),
        attack=_Attack(candidates, held_out, per_class, similarity, sscd, check_batching),
        quality=_Quality(inception, reference, generated, seed),
        batch_size=batch_size,
    )
    report = job.run(out, restart=restart)
    console.show(report.to_dict(), report.table(), as_json=as_json)
    console.say(f"Report: {out / 'report.html'}")
