"""Results as plain data: what was run, what was extracted, and pictures of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import ORIGINAL
from iarmem_plugin.evaluation.losses import LOSS, count_losses
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.text import shown

CAPTURED = "captured_images.csv"
ArmRole = Literal["original", "treatment", "control", "twin"]


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One way the model was run: as it came, with some neurons edited, or all of it.

    Attributes:
        name: unique in a report; the first is ``"original"``.
        intervention: ``name``, its parameters and ``backend``; None where no neurons are edited.
        selector: ``name``, its parameters and ``seed``; None where no neurons are edited.
        fraction: share of neurons edited, in (0, 1]; None where none are.
        quality: measured image quality, each value with the label of its protocol.
        role: ``"original"``, ``"treatment"``, or ``"control"``: what treatments are held against,
            such as random neurons; controls that differ in their seed alone are shown together;
            or ``"twin"``: another model, which was trained alike without the canaries.
        edit: ``name``, its parameters and ``seed``, where the whole model is edited; else None.
    """

    name: str
    intervention: Mapping[str, Any] | None
    selector: Mapping[str, Any] | None
    fraction: float | None
    quality: tuple[QualityValue, ...]
    role: ArmRole = "treatment"
    edit: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """One candidate shown as pictures, all uint8 RGB with dims (height, width, 3).

    Attributes:
        path: the picture's path in its data set.
        group: the candidate's group.
        target: what a completion is compared with.
        original: the picture itself, where it is not the target.
        completions: arm name -> picture, similarity to the target, whether that is extracted.
    """

    path: str
    group: str
    target: np.ndarray
    original: np.ndarray | None
    completions: Mapping[str, tuple[np.ndarray, float, bool]]


class CapturedImage(NamedTuple):
    """An image whose activations the scores were made from.

    Attributes:
        path: its path in its data set.
        label: its class.
        image: its global id; None where that is not known.
    """

    path: str
    label: int
    image: int | None


def listed(images: Images) -> tuple[CapturedImage, ...]:
    """Return images as a report lists those that were captured."""
    columns = (images.paths, images.labels.tolist(), images.ids.tolist())
    return tuple(map(CapturedImage, *columns))


def as_csv(captured: Sequence[CapturedImage]) -> bytes:
    """Return a list of captured images as a CSV file with the columns image, label and path."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "label", "path"])
    rows.writerows((one.image, one.label, one.path) for one in captured)  # None is left empty
    return text.getvalue().encode()


def from_csv(content: str) -> tuple[CapturedImage, ...]:
    """Return the list of which `as_csv` made a file.

    Raises:
        ValueError: it is no such file.
    """
    rows = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    if rows.fieldnames != ["image", "label", "path"]:
        raise ValueError(f"the columns of {CAPTURED} are {rows.fieldnames}")
    return tuple(
        CapturedImage(row["path"], int(row["label"]), int(row["image"]) if row["image"] else None)
        for row in rows
    )


@dataclass(frozen=True, slots=True, repr=False)
class Results:
    """The result before and after, complete enough to be checked by someone else.

    Attributes:
        model: name of the variant.
        provenance: settings, versions, seeds, hashes; may be nested.
        scores: ``score`` and, where known, ``mean_activation``, dims (block, scale, neuron), with
            the coordinates ``valid`` and ``scale_name``, and the attribute ``metric``.
        arms: what was run; the first is ``"original"``.
        extraction: ``similarity``, ``equal_tokens`` and ``extracted`` with dims (arm, candidate),
            ``tokens`` (arm, candidate, token); where an arm is cross-fitted, the ``half`` of each
            candidate, -1 in arms that are not; coordinates ``group``, ``role``, ``path``,
            ``label`` and ``image`` (candidate); attributes ``threshold``, ``threshold_source``,
            ``similarity`` and ``prefix_tokens``.
        gallery: candidates to show as pictures.
        neurons: bool, dims (arm, block, neuron): what each arm edited; where an arm is
            cross-fitted, of each ``half`` of its candidates.
        features: what the quality measure saw, see `features_dataset`; None where no images were
            generated.
        calibration: ``similarity`` and ``equal_tokens``, dims (candidate), of the held-out images
            on which thresholds were fixed; None where they were given.
        floors: what the quality measure says of real pictures held against real pictures, by what
            they are; values of arms are marked where they are below these.
        captured: the images that the scores were made from; empty where they are not known.
        recovery: what triggers brought back, dims (arm, attempt, candidate), see `with_recovered`;
            None where none were tried.
        membership: ``membership``, dims (arm, candidate, signal), see `membership_signals`; None
            where it is left out.
        depth: ``patched_loss``, dims (arm, block, candidate), see `patched_losses`; None where it
            is left out.
        losses: what `count_losses` makes of the extraction; None where it holds no losses.

    Raises:
        InputError: where arms are missing, doubled or in another order in `extraction`.
    """

    model: str
    provenance: Mapping[str, Any]
    scores: xr.Dataset
    arms: tuple[ArmResult, ...]
    extraction: xr.Dataset
    gallery: tuple[GalleryRow, ...]
    neurons: xr.DataArray | None
    features: xr.Dataset | None = None
    calibration: xr.Dataset | None = None
    floors: Mapping[str, tuple[QualityValue, ...]] = field(default_factory=dict)
    captured: tuple[CapturedImage, ...] = ()
    recovery: xr.Dataset | None = None
    membership: xr.Dataset | None = None
    depth: xr.Dataset | None = None
    losses: xr.Dataset | None = field(init=False, default=None, compare=False)

    def __repr__(self) -> str:
        """Say in a line what was run on what."""
        names = ", ".join(arm.name for arm in self.arms)
        sizes = f"{self.extraction.sizes['candidate']} candidates, {len(self.arms)} arms"
        return f"<{type(self).__name__} of {shown(self.model)}: {sizes}: {shown(names)}>"

    def __post_init__(self) -> None:
        """Refuse arms and an extraction that do not belong together."""
        names = [arm.name for arm in self.arms]
        given = [str(name) for name in self.extraction["arm"].values]
        if names[:1] != [ORIGINAL] or len(set(names)) < len(names) or names != given:
            raise InputError(
                f"the arms are {names} and those of the extraction {given}; a report needs both "
                f"alike, each name once, and {ORIGINAL!r} first"
            )
        if LOSS in self.extraction:  # counted once, since it takes a while
            object.__setattr__(self, "losses", count_losses(self.extraction))


def block_sums(scores: xr.Dataset) -> xr.DataArray:
    """Sum the metric over each block's neurons; a neuron that is not valid counts 0.

    Returns:
        float64, dims (block, scale).
    """
    kept = scores["score"].where(scores["valid"], 0.0).astype("float64")
    return kept.sum("neuron", skipna=False).transpose("block", "scale")
