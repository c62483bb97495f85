"""What changes the numbers of a cell: it is named by a hash of these, and by nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.evaluation.ranking.contents import content_of
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.interfaces import ActivationIntervention
from iarmem_plugin.jobs.arms import Arm, Stage, result_of
from iarmem_plugin.jobs.attack import Attack
from iarmem_plugin.jobs.contrast import CrossFit
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.plugins.blame import described, distribution
from iarmem_plugin.report.document import plain

_OF_MODEL = ("model", "adapter_version", "dtype")


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


def arm_facts(arm: Arm, neurons: xr.DataArray, attack: Attack) -> dict[str, Any]:
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
