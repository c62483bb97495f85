"""Arms as cells on disk: each stage of each arm is done once, by whichever worker comes first."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import xarray as xr

from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.jobs.arms import (
    Arm,
    ArmOutcome,
    Measured,
    Stage,
    joined,
    run_stages,
    stages_of,
)
from iarmem_plugin.jobs.attack import Attack
from iarmem_plugin.jobs.compare.inputs import arm_facts, shared_settings, stamps_sha256
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.report.document import plain
from iarmem_plugin.report.netcdf import restored, storable
from iarmem_plugin.stages import Cell, Cells, Failure
from iarmem_plugin.text import shown


@dataclass(frozen=True, slots=True, repr=False)
class ReadyArm:
    """An arm that is to be run, with the model that it is run on.

    Attributes:
        arm: what is done.
        model: the unmodified model, or the twin.
        provenance: what `model_provenance` says of that model.
        neurons: from `select_neurons`.
    """

    arm: Arm
    model: ImageARModel
    provenance: Mapping[str, Any]
    neurons: xr.DataArray


class ArmCells:
    """The stages of arms as cells: known by all that changes their numbers, and by nothing else.

    So arms can be added to a comparison or taken away, and a setting that changes one stage, such
    as the number of generated images, leaves the others as they are.

    Args:
        cells: where they are kept.
        attack: what all arms share.
        quality: how image quality is measured; None leaves it out.
        reload: function that puts the weights of an arm's model back where a plugin has not; None
            leaves them, and every later arm fails.
    """

    def __init__(
        self,
        cells: Cells,
        attack: Attack,
        quality: QualityProtocol | None,
        reload: Callable[[ReadyArm], None] | None = None,
    ) -> None:
        self.cells, self._attack, self._quality = cells, attack, quality
        self._reload = reload
        self._batch_size = attack.completing.size  # as asked for; what fits is found out on the way
        self._shared: dict[tuple[str, str], dict[Stage, dict[str, Any]]] = {}
        self._edit_data: list[str | None] | None = None

    def stages(self, planned: ReadyArm) -> tuple[Stage, ...]:
        """Return the stages of an arm, the cheapest first."""
        return stages_of(planned.arm, self._attack, self._quality)

    def pieces(self, planned: ReadyArm, stage: Stage) -> list[tuple[Cell, Attack]]:
        """Return the cells of a stage of an arm, with what is run: of recovery one a trigger."""
        if stage not in self.stages(planned):
            return []
        facts = arm_facts(planned.arm, planned.neurons, self._attack)
        if planned.arm.edit is not None:
            facts["edit data"] = self._of_edits()
        return [
            (Cell(stage, planned.arm.name, {**shared, "arm": facts}), attack)
            for attack, shared in self._of_stage(planned, stage)
        ]

    def fill(
        self,
        arms: Sequence[ReadyArm],
        stage: Stage,
        *,
        records: bool = True,
        advance: Callable[[int], object] = lambda _: None,
    ) -> dict[str, Failure]:
        """Run one stage of some arms, together with other workers; return what failed, by arm.

        Args:
            arms: the arms; one that does not have this stage is left out.
            stage: the stage.
            records: see `Cells.fill`.
            advance: told how many cells, see `pieces`, are finished.

        Raises:
            DiskFullError: there is no room; the cells that are there stay.
        """
        work = [(cell, one, attack) for one in arms for cell, attack in self.pieces(one, stage)]
        run = {cell.key: (one, stage, attack) for cell, one, attack in work}

        def make(cell: Cell) -> xr.DataTree:
            return self._made(*run[cell.key])

        cells = [cell for cell, *_ in work]
        failed = self.cells.fill(cells, make, records=records, advance=advance)
        return {
            cell.name: replace(failed[cell.key], name=cell.name)
            for cell in reversed(cells)
            if cell.key in failed
        }

    def _made(self, one: ReadyArm, stage: Stage, attack: Attack) -> xr.DataTree:
        """Run one stage of an arm; nothing is kept where the weights did not come back."""
        try:
            run = (one.model, one.arm, one.neurons, attack, self._quality, (stage,))
            tree = _tree(run_stages(*run), attack)
        finally:
            whole = weights_sha256(one.model) == one.provenance["weights_sha256"]
            if not whole and self._reload is not None:
                self._reload(one)
        if not whole:
            raise PluginError(
                "the model's weights are not as they were before this arm; its intervention or "
                "edit does not undo its changes"
            )
        return tree

    def done(self, planned: ReadyArm, stage: Stage) -> bool:
        """Tell whether a stage of an arm is finished."""
        return all(self.cells.done(cell) for cell, _ in self.pieces(planned, stage))

    def measured(self, planned: ReadyArm) -> Measured:
        """Return what the finished stages of an arm hold.

        Raises:
            InputError: a cell cannot be read.
        """
        found: dict[str, Any] = {}
        for stage in self.stages(planned):
            if self.done(planned, stage):
                every = [self.cells.load(cell) for cell, _ in self.pieces(planned, stage)]
                parts = [_parts(one, self._attack) for one in every]
                found |= parts[0]
                if stage == "recovery":
                    found["recovery"] = xr.concat([one["recovery"] for one in parts], "attempt")
        return Measured(**found)

    def outcome(self, planned: ReadyArm, without: Collection[Stage] = ()) -> ArmOutcome:
        """Return the outcome of an arm.

        Args:
            planned: the arm.
            without: stages that were left out.

        Raises:
            InputError: another stage's cell cannot be read, or is gone.
        """
        for stage in self.stages(planned):
            if stage not in without and not self.done(planned, stage):
                raise InputError(
                    f"the {stage} of arm {shown(planned.arm.name)!r} were finished, and are gone "
                    f"from {shown(self.cells.folder)}; give the same command again"
                )
        return joined(planned.arm, planned.neurons, self.measured(planned), self._attack)

    def _of_edits(self) -> list[str | None]:
        """Return what identifies the pictures that edits of the whole model may use."""
        if self._edit_data is None:
            used = self._attack.edit_data
            every = (used.candidates, used.retained, used.calibration)
            self._edit_data = [None if one is None else stamps_sha256(one) for one in every]
        return self._edit_data

    def _of_stage(self, planned: ReadyArm, stage: Stage) -> Iterator[tuple[Attack, dict[str, Any]]]:
        """Yield what is run in each cell of a stage, and what changes its numbers in every arm."""
        parts = {"": self._attack}
        if stage == "recovery" and self._attack.recovery is not None:
            apart = self._attack.recovery.one_by_one()
            parts = {key: replace(self._attack, recovery=one) for key, one in apart.items()}
        for key, attack in parts.items():
            known = (str(planned.provenance["weights_sha256"]), key)
            if known not in self._shared:
                self._shared[known] = shared_settings(planned.provenance, attack, self._quality)
            yield attack, {**self._shared[known][stage], "batch_size": self._batch_size}


def _tree(parts: Measured, attack: Attack) -> xr.DataTree:
    values = [plain(asdict(one)) for one in parts.quality]
    sizes = {"completing": attack.completing.size, "generating": attack.generating.size}
    root = xr.Dataset(attrs={"quality": json.dumps(values), "batches": json.dumps(sizes)})
    named = {  # by other names than those of their variables, or they stay unread
        "predicted": parts.losses,
        "extraction": parts.extraction,
        "unseen": parts.calibration,
        "seen": parts.features,
        "recovered": parts.recovery,
        "taken": parts.membership,
        "patched": parts.depth,
    }
    there = {name: one for name, one in named.items() if one is not None}
    kept = {name: one if name == "seen" else storable(one) for name, one in there.items()}
    return xr.DataTree(root, children={name: xr.DataTree(one) for name, one in kept.items()})


def _parts(tree: xr.DataTree, attack: Attack) -> dict[str, Any]:
    sizes = json.loads(tree.attrs["batches"])
    attack.completing.size = min(attack.completing.size, sizes["completing"])
    attack.generating.size = min(attack.generating.size, sizes["generating"])
    fields = {
        "predicted": "losses",
        "extraction": "extraction",
        "unseen": "calibration",
        "recovered": "recovery",
        "taken": "membership",
        "patched": "depth",
    }
    found: dict[str, Any] = {
        field: restored(tree.children[name].to_dataset())
        for name, field in fields.items()
        if name in tree.children
    }
    if "seen" in tree.children:
        found["features"] = tree.children["seen"].to_dataset()
    if values := json.loads(tree.attrs["quality"]):
        found["quality"] = tuple(QualityValue(**one) for one in values)
    return found
