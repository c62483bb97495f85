"""Arms as cells on disk: each stage of each arm is done once, by whichever worker comes first."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.evaluation.ranking.contents import content_of
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.interfaces import ActivationIntervention, QualityValue
from iarmem_plugin.jobs.arms import (
    Arm,
    ArmOutcome,
    Measured,
    Stage,
    joined,
    result_of,
    run_stages,
    stages_of,
)
from iarmem_plugin.jobs.attack import Attack
from iarmem_plugin.jobs.contrast import CrossFit
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import described, distribution
from iarmem_plugin.report.document import plain
from iarmem_plugin.report.netcdf import restored, storable
from iarmem_plugin.stages import Cell, Cells, Failure
from iarmem_plugin.text import shown

_OF_MODEL = ("model", "adapter_version", "dtype")


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
        self._shared: dict[str, dict[Stage, dict[str, Any]]] = {}
        self._edit_data: list[str | None] | None = None

    def stages(self, planned: ReadyArm) -> tuple[Stage, ...]:
        """Return the stages of an arm, the cheapest first."""
        return stages_of(planned.arm, self._attack, self._quality)

    def cell(self, planned: ReadyArm, stage: Stage) -> Cell:
        """Return the cell of one stage of an arm."""
        shared = self._settings(planned.provenance)[stage]
        facts = _facts(planned.arm, planned.neurons, self._attack)
        if planned.arm.edit is not None:
            facts["edit data"] = self._of_edits()
        return Cell(stage, planned.arm.name, {**shared, "arm": facts})

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
            advance: told how many cells are finished.

        Raises:
            DiskFullError: there is no room; the cells that are there stay.
        """
        having = [one for one in arms if stage in self.stages(one)]
        advance(len(arms) - len(having))
        cells = [self.cell(one, stage) for one in having]
        work = {cell.key: one for cell, one in zip(cells, having, strict=True)}

        def make(cell: Cell) -> xr.DataTree:
            return self._made(work[cell.key], stage)

        failed = self.cells.fill(cells, make, records=records, advance=advance)
        return {
            cell.name: replace(failed[cell.key], name=cell.name)
            for cell in cells
            if cell.key in failed
        }

    def _made(self, one: ReadyArm, stage: Stage) -> xr.DataTree:
        """Run one stage of an arm; nothing is kept where the weights did not come back."""
        try:
            run = (one.model, one.arm, one.neurons, self._attack, self._quality, (stage,))
            tree = _tree(run_stages(*run), self._attack)
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
        return self.cells.done(self.cell(planned, stage))

    def measured(self, planned: ReadyArm) -> Measured:
        """Return what the finished stages of an arm hold.

        Raises:
            InputError: a cell cannot be read.
        """
        found: dict[str, Any] = {}
        for stage in self.stages(planned):
            if self.done(planned, stage):
                found |= _parts(self.cells.load(self.cell(planned, stage)), self._attack)
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

    def _settings(self, model: Mapping[str, Any]) -> dict[Stage, dict[str, Any]]:
        """Return what changes the numbers of each stage, of all arms of one model."""
        known = str(model["weights_sha256"])
        if known not in self._shared:
            settings = shared_settings(model, self._attack, self._quality)
            self._shared[known] = {
                stage: {**one, "batch_size": self._batch_size} for stage, one in settings.items()
            }
        return self._shared[known]


def shared_settings(
    model: Mapping[str, Any], attack: Attack, quality: QualityProtocol | None
) -> dict[Stage, dict[str, Any]]:
    """Return what changes the numbers of each stage of every arm, as JSON values.

    Args:
        model: what `model_provenance` says.
        attack: what all arms share.
        quality: how image quality is measured.
    """
    images, device = attack.candidates.images, str(model["device"]).partition(":")[0]
    made_by = {
        **{name: model[name] for name in _OF_MODEL},
        **{name: model[name] for name in ("autocast",) if name in model},
        **{name: value for name, value in model.items() if name.endswith("_sha256")},
        "device": device,
        "torch": model["versions"]["torch"],
        "torch_threads": model["torch_threads"] if device == "cpu" else None,
    }
    tried = {
        "candidates_sha256": images.digest,
        "candidate_ids_sha256": _digest(images.ids),
        "targets_sha256": _digest(attack.targets.tokens.numpy()),
    }
    completed = {
        "groups_sha256": _digest(attack.candidates.group, attack.candidates.role),
        "reference": attack.targets.reference,
        "similarity": plain(attack.similarity.provenance) | described(attack.similarity),
        "prefix_tokens": attack.prefix_tokens,
        **_of_clusters(attack),
        "sampling": plain(asdict(attack.sampling)),
        **_of_recognition(attack.recognition),
        **_of_recalibration(attack),
    }
    completed_by_group = {"groups_sha256": completed["groups_sha256"]}
    return {
        "losses": made_by | tried | _of_losses(attack.losses),
        "completions": made_by | tried | completed,
        "membership": made_by | tried | completed_by_group,
        "depth": made_by | tried | ({} if attack.depth is None else attack.depth.provenance),
        "recovery": made_by | tried | _of_triggers(attack),
        "images": made_by | {"quality": None if quality is None else _of_quality(quality)},
    }


def _of_triggers(attack: Attack) -> dict[str, Any]:
    protocol = attack.recovery
    if protocol is None:
        return {}
    used = [getattr(protocol.data, part) for one in protocol.triggers for part in sorted(one.needs)]
    return {
        "recovery": plain(protocol.provenance),
        "similarity": plain(attack.similarity.provenance) | described(attack.similarity),
        "tried_sha256": _digest(protocol.targets.tokens.numpy(), protocol.calibrates),
        "made by": {one.key: distribution(type(one)) for one in protocol.triggers},
        "data": [None if one is None else stamps_sha256(one) for one in used],
    }


def _of_clusters(attack: Attack) -> dict[str, Any]:
    known = attack.candidates.clusters
    return {} if known is None else {"clusters_sha256": _digest(known.number)}


def _of_recognition(recognition: Recognition | None) -> dict[str, Any]:
    if recognition is None or recognition.threshold is None:  # arms of earlier releases stay ours
        return {}
    return {"recognition_threshold": recognition.threshold}


def _of_losses(losses: LossProtocol | None) -> dict[str, Any]:
    if losses is None:
        return {}
    tokens = {"fitted_tokens_sha256": _digest(losses.tokens.numpy())}
    return {"losses": plain(losses.provenance) | described(losses.quality) | tokens}


def _of_recalibration(attack: Attack) -> dict[str, Any]:
    again = attack.recalibration
    if again is None or attack.unseen is None:
        return {}
    tokens = _digest(again.candidates.images.ids, attack.unseen.tokens.numpy())
    return {"recalibration": {"targets_sha256": tokens}}


def _of_quality(quality: QualityProtocol) -> dict[str, Any]:
    return {
        "measure": plain(quality.quality.provenance) | described(quality.quality),
        "labels_sha256": _digest(quality.condition.label.cpu().numpy()),
        **_of_captions(quality.condition.text),
        "references": {name: _digest(one) for name, one in quality.references.items()},
        "floors": {one.name: _digest(one.real, one.other) for one in quality.floors},
        "sampling": plain(asdict(quality.sampling)) | {"seeds": quality.seeds},
        **({"files": [one.sha256 for one in quality.files]} if quality.files else {}),
    }


def _of_captions(text: tuple[str, ...] | None) -> dict[str, str]:
    return {} if text is None else {"captions_sha256": _digest(np.array(text, dtype=np.str_))}


def _facts(arm: Arm, neurons: xr.DataArray, attack: Attack) -> dict[str, Any]:
    """Return what changes the numbers of one arm alone; its name and role do not."""
    facts: dict[str, Any] = plain(asdict(result_of(arm, (), attack.backend)))
    for name in ("name", "role", "quality"):
        del facts[name]
    facts |= {"neurons": _digest(neurons.to_numpy())}
    if isinstance(arm.scores, CrossFit):
        facts |= {"halves": _digest(arm.scores.half)}
    elif arm.selector is not None and bool(neurons.all()):  # however they were chosen
        del facts["selector"]
    if attack.mean is not None and isinstance(arm.intervention, ActivationIntervention):
        facts |= {"mean": _digest(attack.mean.to_numpy())}
    if attack.recalibration is not None:
        facts |= {"recalibrated": attack.recalibration.covers(arm.name)}
    for one in (arm.selector, arm.intervention, arm.edit):
        facts |= {} if one is None else {f"made by {one.kind}": distribution(type(one))}
    return facts


def content_sha256(images: Images) -> str:
    """Return a hash over the contents, ids and labels of pictures, in their order."""
    digest = hashlib.sha256(images.digest.encode() + images.ids.astype("<i8").tobytes())
    for place in range(len(images)):
        digest.update(content_of(images, place))
    return digest.hexdigest()


def stamps_sha256(images: Images) -> str:
    """Return a hash over what tells that pictures were changed, for lists too long to be read.

    Ids, names and labels; of files the size and the time of change, of others their content.
    """
    digest = hashlib.sha256(images.digest.encode() + images.ids.astype("<i8").tobytes())
    for place, (image, path) in enumerate(zip(images.ids.tolist(), images.paths, strict=True)):
        file = images.reader.place(image, path)
        if isinstance(file, str) and os.path.isfile(file):
            found = os.stat(file)
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
        else:
            digest.update(content_of(images, place))
    return digest.hexdigest()


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for one in arrays:
        text = one.dtype.kind not in "biuf"
        content = "\0".join(map(str, one.ravel())).encode() if text else one.tobytes()
        digest.update(f"{one.shape} {'text' if text else one.dtype} ".encode() + content)
    return digest.hexdigest()


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
