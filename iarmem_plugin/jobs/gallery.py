"""Pictures of a few candidates beside their completions, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin.evaluation.counts import ORIGINAL
from iarmem_plugin.evaluation.extraction import Targets
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.report.evidence.lines import stripped
from iarmem_plugin.report.grid.grouping import seedless
from iarmem_plugin.report.results import ArmResult, ArmRole, GalleryRow

ROWS_PER_GROUP = 2
MOST_SHOWN: Mapping[ArmRole, int] = {"original": 1, "treatment": 10, "control": 3, "twin": 1}


def gallery(
    model: ImageARModel, extraction: xr.Dataset, targets: Targets, arms: Sequence[str]
) -> tuple[GalleryRow, ...]:
    """Show, of each group, the candidates that came back best from the unmodified model.

    Args:
        model: its tokenizer decodes the completions.
        extraction: dims (arm, candidate, token), the first arm being the unmodified model.
        targets: what the completions were compared with.
        arms: names of those whose completions are shown.
    """
    original = extraction["similarity"].sel(arm=ORIGINAL).to_numpy()
    group = extraction["group"].to_numpy()
    shown = [
        int(index)
        for name in dict.fromkeys(group)
        for index in _best(np.flatnonzero(group == name), original)
    ]
    pictures = {
        arm: _pixels(model, extraction["tokens"].sel(arm=arm).isel(candidate=shown)) for arm in arms
    }
    goal = _to_uint8(targets.images[shown])
    return tuple(
        GalleryRow(
            path=str(extraction["path"].values[index]),
            group=str(group[index]),
            target=goal[row],
            original=None,
            completions={
                arm: (images[row], *_verdict(extraction, arm, index))
                for arm, images in pictures.items()
            },
        )
        for row, index in enumerate(shown)
    )


def pictured(arms: Sequence[ArmResult]) -> list[str]:
    """Return the arms whose completions are shown: all, or of many the first of each role.

    Args:
        arms: of a report. Of arms that differ in their seed or split alone, one is shown.
    """
    if len(arms) <= sum(MOST_SHOWN.values()):
        return [arm.name for arm in arms]
    known, names, left = list[object](), list[str](), dict(MOST_SHOWN)
    for arm in arms:
        chosen = seedless(stripped(arm.selector or {}))
        kind = (arm.role, chosen, arm.intervention, arm.fraction, arm.edit)
        if kind not in known and left[arm.role]:
            known.append(kind)
            names.append(arm.name)
            left[arm.role] -= 1
    return names


def _best(members: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    return members[np.argsort(-similarity[members], kind="stable")[:ROWS_PER_GROUP]]


def _verdict(extraction: xr.Dataset, arm: str, index: int) -> tuple[float, bool]:
    one = extraction.sel(arm=arm).isel(candidate=index)
    return float(one["similarity"]), bool(one["extracted"])


def _pixels(model: ImageARModel, tokens: xr.DataArray) -> np.ndarray:
    given = torch.from_numpy(tokens.to_numpy().astype(np.int64))
    with model.borrowed():
        parts = Batching(32).over(len(given), lambda rows: model.decode(given[rows]).cpu())
        return _to_uint8(torch.cat(list(parts)))


def _to_uint8(images: Float[Tensor, "image 3 height width"]) -> np.ndarray:
    return (images * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
