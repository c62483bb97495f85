"""Finished arms on disk, so that a comparison that was ended goes on after the last of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.evaluation.extraction import GREEDY
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.fingerprint import fingerprint
from iarmem_plugin.interfaces import ActivationIntervention, QualityValue, Sampling
from iarmem_plugin.jobs.arms import Arm, ArmOutcome, result_of, run_arm
from iarmem_plugin.jobs.attack import Attack
from iarmem_plugin.jobs.contrast import CrossFit
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import described, distribution
from iarmem_plugin.report.document import plain
from iarmem_plugin.report.netcdf import restored, storable
from iarmem_plugin.stages import Stages, forget

KEY = re.compile(r"arm-[0-9a-f]{16}")
_OF_MODEL = ("model", "adapter_version", "dtype")


class FinishedArms:
    """A folder with a file for each finished arm; an arm that is in it is not run again.

    A file is known by all that makes an arm: its edit, selector, seed and neurons. So arms can be
    added to a comparison that was ended, or taken away.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Name the folder, and what all arms share; see `shared_settings`."""
        self._stages = Stages(folder, settings)

    def run(
        self,
        model: ImageARModel,
        arm: Arm,
        neurons: xr.DataArray,
        attack: Attack,
        quality: QualityProtocol | None = None,
    ) -> ArmOutcome:
        """Return an arm's outcome, from the folder or from `run_arm`; then it is in the folder.

        Raises:
            FingerprintMismatchError: the arms there were run with other settings.
            InputError: the arm's file cannot be read.
            DiskFullError: there is no room; the arms that are there stay.
        """
        key = _key(arm, neurons, attack)
        if key in self._stages.finished():
            outcome = _outcome(self._stages.load(key), arm, neurons, attack)
            if outcome.features is not None or not outcome.result.quality:
                return outcome  # what earlier releases kept lacks the features
        outcome = run_arm(model, arm, neurons, attack, quality)
        self._stages.save(key, _tree(outcome, attack))
        return outcome


def shared_settings(
    model: Mapping[str, Any], attack: Attack, quality: QualityProtocol | None
) -> dict[str, Any]:
    """Return what changes the numbers of every arm, as JSON values.

    Args:
        model: what `model_provenance` says.
        attack: what all arms share.
        quality: how image quality is measured.
    """
    images, device = attack.candidates.images, str(model["device"]).partition(":")[0]
    return {
        **{name: model[name] for name in _OF_MODEL},
        **{name: model[name] for name in ("autocast",) if name in model},
        **{name: value for name, value in model.items() if name.endswith("_sha256")},
        "device": device,
        "torch": model["versions"]["torch"],
        "torch_threads": model["torch_threads"] if device == "cpu" else None,
        "candidates_sha256": images.digest,
        "candidate_ids_sha256": _digest(images.ids),
        "groups_sha256": _digest(attack.candidates.group, attack.candidates.role),
        **_of_clusters(attack),
        "targets_sha256": _digest(attack.targets.tokens.numpy()),
        "reference": attack.targets.reference,
        "similarity": plain(attack.similarity.provenance) | described(attack.similarity),
        "prefix_tokens": attack.prefix_tokens,
        **_of_sampling(attack.sampling),
        "batch_size": attack.completing.size,
        **_of_recognition(attack.recognition),
        **_of_losses(attack.losses),
        **_of_recalibration(attack),
        "quality": None if quality is None else _of_quality(quality),
    }


def forget_arms(folder: Path) -> None:
    """Delete the finished arms in a folder, and the folder where it holds nothing else."""
    forget(folder, KEY)


def _of_clusters(attack: Attack) -> dict[str, Any]:
    known = attack.candidates.clusters
    return {} if known is None else {"clusters_sha256": _digest(known.number)}


def _of_sampling(sampling: Sampling) -> dict[str, Any]:
    return {} if sampling == GREEDY else {"sampling": plain(asdict(sampling))}


def _of_recognition(recognition: Recognition | None) -> dict[str, Any]:
    if recognition is None or recognition.threshold is None:  # arms of earlier releases stay ours
        return {}
    return {"recognition_threshold": recognition.threshold}


def _of_losses(losses: LossProtocol | None) -> dict[str, Any]:
    if losses is None:
        return {}
    return {"losses": plain(losses.provenance) | described(losses.quality)}


def _of_recalibration(attack: Attack) -> dict[str, Any]:
    again = attack.recalibration
    if again is None or attack.unseen is None:
        return {}
    arms = None if again.arms is None else sorted(again.arms)
    tokens = _digest(again.candidates.images.ids, attack.unseen.tokens.numpy())
    return {"recalibration": {"targets_sha256": tokens, "arms": arms}}


def _of_quality(quality: QualityProtocol) -> dict[str, Any]:
    return {
        "measure": plain(quality.quality.provenance) | described(quality.quality),
        "labels_sha256": _digest(quality.condition.label.cpu().numpy()),
        **_of_captions(quality.condition.text),
        "references": {name: _digest(one) for name, one in quality.references.items()},
        "floors": {one.name: _digest(one.real, one.other) for one in quality.floors},
        "sampling": plain(asdict(quality.sampling)) | {"seeds": quality.seeds},
        **({} if quality.arms is None else {"arms": sorted(quality.arms)}),
    }


def _of_captions(text: tuple[str, ...] | None) -> dict[str, str]:
    return {} if text is None else {"captions_sha256": _digest(np.array(text, dtype=np.str_))}


def _key(arm: Arm, neurons: xr.DataArray, attack: Attack) -> str:
    facts = plain(asdict(result_of(arm, (), attack.backend)))
    facts |= {"neurons": _digest(neurons.to_numpy())}
    if isinstance(arm.scores, CrossFit):
        facts |= {"halves": _digest(arm.scores.half)}
    if attack.mean is not None and isinstance(arm.intervention, ActivationIntervention):
        facts |= {"mean": _digest(attack.mean.to_numpy())}
    for one in (arm.selector, arm.intervention):
        facts |= {} if one is None else {f"made by {one.kind}": distribution(type(one))}
    return f"arm-{fingerprint(facts)[:16]}"


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for one in arrays:
        text = one.dtype.kind not in "biuf"
        content = "\0".join(map(str, one.ravel())).encode() if text else one.tobytes()
        digest.update(f"{one.shape} {'text' if text else one.dtype} ".encode() + content)
    return digest.hexdigest()


def _tree(outcome: ArmOutcome, attack: Attack) -> xr.DataTree:
    measured = [plain(asdict(one)) for one in outcome.result.quality]
    sizes = {"completing": attack.completing.size, "generating": attack.generating.size}
    root = xr.Dataset(attrs={"quality": json.dumps(measured), "batches": json.dumps(sizes)})
    parts = {"extraction": storable(outcome.extraction)}
    if outcome.calibration is not None:
        parts["unseen"] = storable(outcome.calibration)
    if outcome.features is not None:
        parts["seen"] = outcome.features  # by another name than its variables, or they stay unread
    return xr.DataTree(root, children={name: xr.DataTree(one) for name, one in parts.items()})


def _outcome(tree: xr.DataTree, arm: Arm, neurons: xr.DataArray, attack: Attack) -> ArmOutcome:
    sizes = json.loads(tree.attrs["batches"])
    attack.completing.size = min(attack.completing.size, sizes["completing"])
    attack.generating.size = min(attack.generating.size, sizes["generating"])
    quality = tuple(QualityValue(**one) for one in json.loads(tree.attrs["quality"]))
    extraction = restored(tree["extraction"].to_dataset())
    seen, unseen = (tree.children.get(name) for name in ("seen", "unseen"))
    return ArmOutcome(
        result_of(arm, quality, attack.backend),
        extraction,
        neurons,
        features=None if seen is None else seen.to_dataset(),
        calibration=None if unseen is None else restored(unseen.to_dataset()),
    )
