"""A grid of arms from one plan, done by any number of workers, and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import xarray as xr

from iarmem_plugin.activations.distributed import Ranks, started_processes
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.jobs.arms import (
    NEVER_SHOWN,
    UNMODIFIED,
    Arm,
    ArmOutcome,
    Stage,
    select_neurons,
)
from iarmem_plugin.jobs.attack import Attack
from iarmem_plugin.jobs.compare.bracketing import Bracket, brackets, with_more_sets
from iarmem_plugin.jobs.compare.cells import ArmCells, ReadyArm
from iarmem_plugin.jobs.compare.declaring import declaration
from iarmem_plugin.jobs.compare.making import check_scores, made_arm, made_arms
from iarmem_plugin.jobs.compare.material import Material, open_material, organism_of
from iarmem_plugin.jobs.compare.reporting import comparison_provenance, reported
from iarmem_plugin.jobs.compare.rules import BEFORE, Dropped, dropped
from iarmem_plugin.jobs.compare.settings import Protocol, protocol
from iarmem_plugin.jobs.compare.shared import Shared
from iarmem_plugin.jobs.mitigate import check_edits, check_twin, rehearse_twin
from iarmem_plugin.jobs.plan.plan import Plan
from iarmem_plugin.jobs.plan.planned import PlannedArm
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.jobs.rehearsal import rehearse
from iarmem_plugin.jobs.scores import captured_images, mean_activation
from iarmem_plugin.models.loading import load
from iarmem_plugin.models.provenance import commit, model_provenance, weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.progress import print_above, progress_bar
from iarmem_plugin.report.report import PROGRESS, Report, check_output_folder
from iarmem_plugin.report.results import CapturedImage, listed
from iarmem_plugin.stages import Cells, Failure, forget_cells
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.jobs.plan.parts.inputs import ModelPart


REHEARSAL = "rehearsal"
"""Where interventions are tried on two pictures, before the first arm."""


def compare(
    plan: Plan,
    out: Path | str,
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Run all arms of a plan, together with other workers that run the same, and report them.

    What is finished stays in ``progress/`` inside the folder, as cells named by a hash of all that
    changes their numbers. So a comparison that was ended goes on when the same is run again, arms
    may be added to the plan, and any number of processes may run it at once: each takes the next
    cell that nobody has. An arm that fails is reported, and the others go on.

    Args:
        plan: what is compared; see `Plan`.
        out: folder to write; workers name the same.
        restart: whether what is there is discarded; for a worker that is alone.
        progress: where progress bars may be shown.

    Returns:
        the report; it is in the folder, too. ``provenance["plan"]`` holds the plan,
        ``provenance["dropped"]`` and ``["failed"]`` the arms that are not in it, and why.

    Raises:
        InputError: the folder is not ours, pictures or scores that cannot be used.
        PluginError: a plugin returns what it should not; mostly seen before the first arm.
        DiskFullError: there is no room; what is finished stays.
    """
    folder = Path(out)
    check_output_folder(folder)
    if restart:
        Cells(folder / PROGRESS).check_free()
        forget_cells(folder / PROGRESS)
    return _Comparison.begun(plan, Cells(folder / PROGRESS), progress).report(folder)


@dataclass(slots=True)
class _Comparison:
    """One worker's share of a comparison.

    Attributes:
        plan: the plan.
        cells: where finished cells are.
        model: the unmodified model.
        made_by: what `model_provenance` says of it.
        scores: scores that all arms share.
        planned: arms of the plan by name.
        ready: all arms with their neurons, the original first.
        attack: what all arms share.
        quality: how image quality is measured.
        twin: the twin, if there is one.
        captured: the images that neurons were scored on, where they are known.
        progress: where progress bars may be shown.
        dropped: arms that rules dropped, in the order in which they were.
        bracketed: between which fractions random sets were added.
        failed: cells that could not be done, by arm.
    """

    plan: Plan
    cells: Cells
    model: ImageARModel
    made_by: Mapping[str, Any]
    scores: xr.Dataset
    planned: Mapping[str, PlannedArm]
    ready: Sequence[ReadyArm]
    attack: Attack
    quality: QualityProtocol | None
    twin: ImageARModel | None
    captured: tuple[CapturedImage, ...]
    progress: Progress | None
    dropped: list[Dropped] = field(default_factory=list)
    bracketed: list[Bracket] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)

    @classmethod
    def begun(cls, plan: Plan, cells: Cells, progress: Progress | None) -> _Comparison:
        """Open and make all that arms share; refuse what cannot be used before the first arm."""
        material = open_material(plan, progress)
        model = load_part(plan.model)
        twin = None if plan.twin is None else load_part(plan.twin)
        check_twin(model, twin, ())
        made_by = model_provenance(model) | {"commit": commit()}
        check_scores(plan, model)
        how = (plan.attack.batch_size, plan.seed, progress, plan.attack.view)
        shared = Shared(cells, model, made_by, *how)
        settled: Protocol = protocol(plan, shared, material)
        planned = plan.arms()
        scores, arms = made_arms(plan, planned, shared, settled.material)
        check_edits(arms, settled.attack)
        rehearse_twin(twin, settled.attack)
        failed = _rehearsed(model, scores, arms, settled.attack)
        ready = [
            ReadyArm(arm, model, made_by, select_neurons(arm, scores, model.layout))
            for arm in (UNMODIFIED, *arms)
        ]
        ready += _of_twin(twin, scores, model.layout)
        return cls(
            plan,
            cells,
            model,
            made_by,
            scores,
            {one.name: one for one in planned},
            ready,
            replace(settled.attack, mean=mean_activation(scores)),
            settled.quality,
            twin,
            _captured(plan, settled.material),
            progress,
            failed=failed,
        )

    def report(self, folder: Path) -> Report:
        """Run what is not finished, and write the report, unless another worker writes it."""
        if weights_sha256(self.model) != self.made_by["weights_sha256"]:  # by a rehearsal
            self._reload(self.ready[0])
        arms = ArmCells(self.cells, self.attack, self.quality, self._reload)
        declared = declaration(self.plan, self.cells, self.made_by["weights_sha256"])
        for stage in get_args(Stage):
            self._drop(arms, stage)
            self._fill(arms, stage)
            while stage == "losses" and self._add_sets(arms):
                self._fill(arms, stage)  # more sets may show that a fraction does not suffice
        outcomes = [
            arms.outcome(one, without=self._without(one)) for one in self._left("completions")
        ]
        report = self._reported(outcomes, declared)
        with self.cells.claims.taken("report") as mine:
            if mine:
                report.save(folder)
        return report

    def _fill(self, arms: ArmCells, stage: Stage) -> None:
        work = self._left(stage)
        pieces = sum(len(arms.pieces(one, stage)) for one in work)
        if not pieces:
            return
        advance = progress_bar(self.progress, f"arms: {stage}", pieces)
        found = arms.fill(work, stage, advance=advance)
        self.failed |= found
        if UNMODIFIED.name in found:
            raise InputError(
                f"the unmodified model cannot be measured ({found[UNMODIFIED.name].error}); "
                "without it nothing can be compared"
            )
        for name, failure in found.items():
            print_above(self.progress, f"arm {name!r} failed at its {stage}: {failure.error}")

    def _add_sets(self, arms: ArmCells) -> int:
        """Add the random sets that declared hypotheses need, now that costs are known."""
        if not self.attack.losses:
            return 0
        left = {one.arm.name: one for one in self._left("losses")}
        found = brackets(
            self.plan,
            [one for name, one in self.planned.items() if name in left],
            lambda name: arms.measured(left[name]),
            arms.measured(left[UNMODIFIED.name]),
            self.attack.candidates.role,
        )
        self.bracketed = found
        named = with_more_sets(self.plan, found).arms() if found else []
        more = [one for one in named if one.role == "control" and one.name not in self.planned]
        self.planned = {**self.planned, **{one.name: one for one in more}}
        self.ready = [*self.ready]
        end = len(self.ready) - (self.twin is not None)
        self.ready[end:end] = [self._ready(made_arm(one)) for one in more]
        return len(more)

    def _ready(self, arm: Arm) -> ReadyArm:
        neurons = select_neurons(arm, self.scores, self.model.layout)
        return ReadyArm(arm, self.model, self.made_by, neurons)

    def _drop(self, arms: ArmCells, stage: Stage) -> None:
        rules = [one for one in self.plan.drop if BEFORE[one.before] == stage]
        if not rules:
            return
        left = {one.arm.name: one for one in self._left(stage)}
        found = dropped(
            rules,
            stage,
            [one for name, one in self.planned.items() if name in left],
            lambda name: arms.measured(left[name]),
            arms.measured(left[UNMODIFIED.name]),
            self.attack.candidates.role,
        )
        self.dropped += found
        for one in found:
            print_above(self.progress, f"arm {one.name!r} is dropped before its {stage}: {one.why}")

    def _without(self, one: ReadyArm) -> tuple[Stage, ...]:
        """Return the stages that an arm of the report was dropped before, or failed at."""
        later: tuple[Stage, ...] = ("membership", "depth", "recovery", "images")
        return tuple(stage for stage in later if one not in self._left(stage))

    def _reload(self, one: ReadyArm) -> None:
        """Load the weights of an arm's model again; beside it they are in the CPU's memory."""
        part = self.plan.twin if one.model is self.twin else self.plan.model
        fresh = load_part(part or self.plan.model, device="cpu").adapter.network.state_dict()
        one.model.adapter.network.load_state_dict(fresh)

    def _left(self, stage: Stage) -> list[ReadyArm]:
        """Return the arms that reach a stage: neither dropped nor failed before its end."""
        order = get_args(Stage)
        gone = {one.name for one in self.dropped if order.index(one.before) <= order.index(stage)}
        reached = (REHEARSAL, *order[: order.index(stage) + 1])
        gone |= {name for name, one in self.failed.items() if one.stage in reached}
        return [one for one in self.ready if one.arm.name not in gone]

    def _reported(self, outcomes: Sequence[ArmOutcome], declared: Mapping[str, Any]) -> Report:
        arms = [one.arm for one in self.ready]
        provenance = comparison_provenance(
            *(self.model, self.scores, arms, self.attack, self.quality, self.twin, self.made_by),
            self.plan.attack.check_batching,
        )
        provenance |= {
            "plan": self.plan.to_document(),
            **({"declared": dict(declared)} if declared else {}),
            **({"bracketed": [one._asdict() for one in self.bracketed]} if self.bracketed else {}),
            "dropped": [one._asdict() for one in self.dropped],
            "failed": [
                {name: one for name, one in asdict(failure).items() if name != "traceback"}
                for failure in self.failed.values()
            ],
        }
        if self.plan.pictures.organism:
            provenance["organism"] = dict(organism_of(self.plan.model.name).hashes)
        shared = (self.model, self.scores, outcomes, self.attack, self.quality, provenance)
        return replace(reported(*shared), captured=self.captured)


def _rehearsed(
    model: ImageARModel, scores: xr.Dataset, arms: Sequence[Arm], attack: Attack
) -> dict[str, Failure]:
    """Try the similarity, and every intervention once; return the arms whose does not work."""
    images, similarity = attack.candidates.images, attack.similarity
    rehearse(model, scores, (), images, similarity)
    failed: dict[str, Failure] = {}
    known: dict[str, str] = {}
    for arm in arms:
        if arm.intervention is None:
            continue
        if arm.intervention.key not in known:
            try:
                rehearse(model, scores, [arm], images, similarity, backend=attack.backend)
                known[arm.intervention.key] = ""
            except Exception as error:  # noqa: BLE001  # whatever a plugin raises; it is reported
                known[arm.intervention.key] = f"{type(error).__name__}: {shown(error)}"
        if said := known[arm.intervention.key]:
            failed[arm.name] = Failure(REHEARSAL, arm.name, said)
    return failed


def _captured(plan: Plan, material: Material) -> tuple[CapturedImage, ...]:
    """Return the images that the scores which arms share were made on, where they are known."""
    if plan.scores and material.images is not None:
        return captured_images(next(iter(plan.scores.values())), material.images)
    if plan.scores or material.captured is None:
        return ()
    return listed(material.captured)


def load_part(part: ModelPart, *, device: str | None = None) -> ImageARModel:
    """Load a model of a plan; of several processes that torchrun started, each on its own GPU.

    Args:
        part: which model.
        device: where, if not where the plan says.
    """
    return load(
        part.name,
        files={role: path for role, path in part.roles.items() if path is not None},
        device=Ranks(*started_processes()).device(part.device) if device is None else device,
        dtype=part.dtype,
        compile=part.compile,
    )


def _of_twin(twin: ImageARModel | None, scores: xr.Dataset, layout: ModelLayout) -> list[ReadyArm]:
    if twin is None:
        return []
    neurons = select_neurons(NEVER_SHOWN, scores, layout)
    return [ReadyArm(NEVER_SHOWN, twin, model_provenance(twin), neurons)]
