"""``iarmem mitigate``: scores and images in, a report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.cli.edits import EditChoice
from iarmem_plugin.cli.pictures import Opened
from iarmem_plugin.cli.quality import Measures, QualityChoice
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import alone

if TYPE_CHECKING:
    import xarray as xr
    from rich.progress import Progress

    from iarmem_plugin.data.images import Images
    from iarmem_plugin.evaluation.candidates import Candidates
    from iarmem_plugin.evaluation.losses import LossProtocol
    from iarmem_plugin.evaluation.ranking.ranking import Ranking
    from iarmem_plugin.evaluation.recognition import Recognition
    from iarmem_plugin.interfaces import LossQuality, Similarity
    from iarmem_plugin.jobs.arms import Arm
    from iarmem_plugin.jobs.recalibration import Recalibration
    from iarmem_plugin.models.tracing import ImageARModel
    from iarmem_plugin.report.report import Report


@dataclass(frozen=True, slots=True)
class _Attack:
    """Which images are tried, and when one counts as extracted."""

    candidates: Path | None
    ranking: Path | None
    near_duplicates: float | None
    held_out: Path | None
    few: bool
    threshold: float | None
    per_class: int
    recalibrate: bool
    generations: int
    similarity: str
    check_batching: int

    def check(self) -> dict[str, Path]:
        """Refuse a measure or threshold that cannot be; return the files that are named."""
        from iarmem_plugin.data.duplicates import check_cut
        from iarmem_plugin.evaluation.similarity import check_threshold
        from iarmem_plugin.plugins.create import check

        check_threshold(self.threshold, self.similarity)
        if self.near_duplicates is not None:
            check_cut(self.near_duplicates)
        if self.candidates is not None and self.ranking is not None:
            raise InputError("give one of --ranking and --candidates: where candidates come from")
        return check("similarity", self.similarity)

    def measure(self, device: str) -> Similarity:
        """Make what decides whether an image was extracted."""
        from iarmem_plugin.evaluation.similarity import GIVEN
        from iarmem_plugin.plugins.create import create

        similarity = create("similarity", self.similarity, {"device": device})
        if self.threshold is not None:
            similarity.threshold, similarity.threshold_source = self.threshold, GIVEN
        return similarity


@dataclass(frozen=True, slots=True)
class _Job:
    """What is tried on which model and images, and how it is measured."""

    model: opt.ModelOptions
    scores: Path
    images: Path
    reading: opt.ReadingOptions
    edit: EditChoice
    attack: _Attack
    quality: QualityChoice
    contrast_with: Path | None
    batch_size: int

    def run(self, out: Path, *, restart: bool) -> Report:
        """Open what is named, refusing what cannot be used, and mitigate; save the report."""
        arms, scores, opened = self._checked(out)
        with alone(out):
            return self._reported(out, arms, scores, opened, restart=restart)

    def _reported(
        self, out: Path, arms: list[Arm], scores: xr.Dataset, opened: Opened, *, restart: bool
    ) -> Report:
        from iarmem_plugin.cli.inputs import load_model
        from iarmem_plugin.jobs.scores import captured_images, check_made_with
        from iarmem_plugin.report.report import PROGRESS
        from iarmem_plugin.stages import forget_cells

        captured = captured_images(self.scores, opened.images)
        similarity = self.attack.measure(self.model.device)
        held_out = opened.held_out is not None
        measures = self.quality.measures(self.model.device, held_out=held_out)
        self.quality.check_enough(measures.images, opened.real, opened.held_out)
        opened = opened.read(self.reading)
        self._check_counts(opened)  # of those that can be read
        self.quality.check_enough(measures.images, opened.real, opened.held_out)
        model = load_model(self.model)
        check_made_with(model, scores)  # before candidates are ranked, which can take hours
        preflight.check_fit(model, opened.listed)
        if opened.ranking is not None:
            opened.ranking.check_model(model)
        preflight.check_room(out, model, completions=self._completions(arms, opened))
        kept = out / PROGRESS
        if restart:  # when nothing is left that could be refused
            forget_cells(kept)
        report = self._mitigated(model, scores, arms, opened, similarity, measures, kept)
        report = replace(report, captured=captured)
        report.save(out)
        forget_cells(kept)
        return report

    def _checked(self, out: Path) -> tuple[list[Arm], xr.Dataset, Opened]:
        """Refuse what can be told to be wrong before the model is loaded; return what is opened."""
        from iarmem_plugin.jobs.scores import load_scores
        from iarmem_plugin.models.hub import check_files
        from iarmem_plugin.report.report import check_output_folder

        preflight.check_alone("mitigate")
        preflight.check_numbers(self._numbers)
        self._check_sources()
        check_files(self.model.name, self.model.files)
        check_output_folder(out)
        preflight.check_apart(out, self._sources)
        arms, scores = self.edit.arms(), load_scores(self.scores)
        preflight.check_scores_of(self.model, scores, arms)
        preflight.check_device(self.model.device)
        return arms, scores, self._opened()

    @property
    def _numbers(self) -> dict[str, int]:
        return {
            "--seed": self.edit.seed,
            "--random-sets": self.edit.random_sets,
            "--generated": self.quality.generated,
            "--generations": self.attack.generations,
            "--seeds": self.quality.seeds,
            "--check-batching": self.attack.check_batching,
            "--workers": self.reading.workers,
        }

    @property
    def _sources(self) -> dict[str, Path | None]:
        return {
            "--images": self.images,
            "--candidates": self.attack.candidates,
            "--held-out": self.attack.held_out,
            "--reference": self.quality.reference,
            "--contrast-with": self.contrast_with,
            "--image-root": self.reading.root,
        }

    def _check_sources(self) -> None:
        files: dict[str, Path | None] = {
            "--scores": self.scores,
            "--ranking": self.attack.ranking,
            "--classes": self.reading.classes,
        }
        files |= {f"--similarity {name}": file for name, file in self.attack.check().items()}
        kinds = self.quality.check(held_out=self.attack.held_out is not None)
        files |= {f"--quality {name}": file for name, file in kinds.items()}
        preflight.check_pictures(self._sources)
        preflight.check_sources(files)

    def _opened(self) -> Opened:
        from iarmem_plugin.cli.inputs import open_pictures

        paths = (
            *(self.attack.candidates, self.attack.held_out),
            *(self.quality.pictures, self.contrast_with),
        )
        candidates, held_out, reference, contrast = (
            None if path is None else open_pictures(path, self.model.name, self.reading)
            for path in paths
        )
        images = open_pictures(self.images, self.model.name, self.reading)
        others = (candidates, held_out, reference, contrast)
        opened = Opened(images, self._ranking(images), *others, self.quality.features())
        self._check_counts(opened)
        self._check_contrast(opened)
        return opened

    def _ranking(self, images: Images) -> Ranking | None:
        """Read the ranking of the images; the model it was made by is compared later."""
        from iarmem_plugin.evaluation.ranking.ranking import Ranking

        if self.attack.ranking is None:
            return None
        found = Ranking.load(self.attack.ranking)
        found.places_in(images)
        return found

    def _check_contrast(self, opened: Opened) -> None:
        from iarmem_plugin.jobs.contrast import check_apart

        named, held_out = (one is not None for one in (opened.contrast, opened.held_out))
        self.edit.check(contrasted=named or held_out, named=named)
        for others in (opened.candidates, opened.held_out):
            if opened.contrast is not None and others is not None:
                check_apart(others, opened.contrast)

    def _check_counts(self, opened: Opened) -> None:
        from iarmem_plugin.jobs.protocol import check_calibration

        if opened.held_out is not None:
            few = self.attack.few or self.attack.threshold is not None
            check_calibration(len(opened.held_out), few=few)

    def _completions(self, arms: Sequence[Arm], opened: Opened) -> int:
        """Return how many images are completed at most, in all arms together."""
        ranked = self.attack.per_class * len(set(opened.images.labels.tolist()))
        tried = ranked if opened.candidates is None else len(opened.candidates)
        tried += self.attack.generations + len(opened.held_out or ())
        return (len(arms) + 1) * tried

    def _mitigated(
        self,
        model: ImageARModel,
        scores: xr.Dataset,
        arms: Sequence[Arm],
        opened: Opened,
        similarity: Similarity,
        measures: Measures,
        kept: Path,
    ) -> Report:
        from iarmem_plugin.evaluation.recognition import Recognition
        from iarmem_plugin.jobs.attack import ExtractionOptions
        from iarmem_plugin.jobs.mitigate import mitigate
        from iarmem_plugin.jobs.protocol import Pictures, choose_candidates
        from iarmem_plugin.jobs.rehearsal import rehearse

        size, checked = self.batch_size, self.attack.check_batching
        tried = opened.images if opened.candidates is None else opened.candidates
        rehearse(model, scores, arms, tried, similarity)
        recognition, losses = Recognition(), self._loss_protocol(model, opened, measures.losses)
        with console.progress_bars() as progress:
            quality = self.quality.protocol(
                *(model, measures.images, opened.real, opened.held_out),
                batch_size=size,
                progress=progress,
                seen=opened.seen,
                like=opened.images,
            )
            preflight.check_features_room(kept.parent, quality, arms=len(arms) + 1)
            candidates = choose_candidates(
                model,
                Pictures(opened.images, opened.candidates, opened.held_out, opened.ranking),
                similarity,
                per_class=self.attack.per_class,
                calibrates=self.attack.threshold is None,
                halves=measures.losses is not None,
                few=self.attack.few,
                recognition=recognition,
                near_duplicates=self.attack.near_duplicates,
                batch_size=size,
                progress=progress,
            )
            return mitigate(
                model,
                scores,
                candidates := self._with_generations(model, candidates, opened.images, progress),
                self.edit.scored(arms, model, candidates, opened.contrasted),
                similarity=similarity,
                recognition=recognition,
                losses=losses,
                recalibration=self._recalibration(opened, recognition),
                quality=quality,
                options=ExtractionOptions(
                    batch_size=size, check_batching=checked, checkpoints=kept
                ),
                progress=progress,
            )

    def _with_generations(
        self, model: ImageARModel, tried: Candidates, like: Images, progress: Progress | None
    ) -> Candidates:
        from iarmem_plugin.evaluation.generation import with_generations

        if not (count := self.attack.generations):
            return tried
        sampling = replace(model.adapter.variant.sampling, seed=self.edit.seed)
        how: dict[str, Any] = {"sampling": sampling, "batch_size": self.batch_size}
        return with_generations(model, tried, like, count, **how, progress=progress)

    def _recalibration(self, opened: Opened, recognition: Recognition) -> Recalibration | None:
        """Fix thresholds anew on the pictures that fixed when a candidate is recognisable."""
        from iarmem_plugin.evaluation.candidates import Candidates
        from iarmem_plugin.jobs.protocol import calibration_half
        from iarmem_plugin.jobs.recalibration import Recalibration

        fixed = recognition.completions
        if opened.held_out is None or fixed is None or not self.attack.recalibrate:
            return None
        half = calibration_half(opened.held_out)
        return Recalibration(Candidates(half, fixed["group"].values), fixed.attrs["rate"])

    def _loss_protocol(
        self, model: ImageARModel, opened: Opened, measure: LossQuality | None
    ) -> LossProtocol | None:
        from iarmem_plugin.evaluation.losses import loss_protocol
        from iarmem_plugin.jobs.protocol import calibration_half

        if measure is None or opened.held_out is None:
            return None
        half, views = calibration_half(opened.held_out), model.adapter.variant.views
        try:
            return loss_protocol(model, measure, half, views, batch_size=self.batch_size)
        except InputError as error:
            if self.quality.names_losses:
                raise
            console.warn(f"the held-out loss is left out: {error}")
            return None


def mitigate(
    model: opt.Model,
    scores: opt.Scores,
    images: opt.ImageSource,
    out: opt.Out,
    fraction: opt.Fraction = 0.1,
    intervention: opt.Intervention = "scale-weights",
    selector: opt.Selector = "highest",
    contrast_with: opt.ContrastWith = None,
    random_sets: opt.RandomSets = 5,
    similarity: opt.Similarity = "correlation",
    candidates: opt.CandidateSource = None,
    ranking: opt.RankingFile = None,
    near_duplicates: opt.NearDuplicates = None,
    held_out: opt.HeldOut = None,
    few_held_out: opt.FewHeldOut = False,
    threshold: opt.Threshold = None,
    recalibrate: opt.Recalibrate = True,
    generations: opt.Generations = 0,
    per_class: opt.PerClass = 5,
    quality: opt.Quality = None,
    reference: opt.Reference = None,
    generated: opt.Generated = 1000,
    seeds: opt.Seeds = 1,
    temperature: opt.Temperature = None,
    check_batching: opt.CheckBatching = 0,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    file: opt.Files = None,
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
    files = opt.read_files(weights, tokenizer, file or ())
    tried = (candidates, ranking, near_duplicates, held_out, few_held_out, threshold, per_class)
    job = _Job(
        opt.ModelOptions(model, files, device, dtype, compile),
        *(scores, images),
        reading=opt.ReadingOptions(image_root, classes, on_bad_image, workers),
        edit=EditChoice(selector, intervention, fraction, random_sets, seed),
        attack=_Attack(*tried, recalibrate, generations, similarity, check_batching),
        quality=QualityChoice(tuple(quality or ()), reference, generated, seed, seeds, temperature),
        contrast_with=contrast_with,
        batch_size=batch_size,
    )
    report = job.run(out, restart=restart)
    console.show(report.to_dict(), report.table(), as_json=as_json)
    console.say(f"Report: {out / 'report.html'}")
