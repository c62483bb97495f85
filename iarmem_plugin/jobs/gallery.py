"""Pictures of a few candidates beside their completions, for the report."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin.evaluation.counts import ORIGINAL
from iarmem_plugin.evaluation.extraction import Targets
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.report.results import GalleryRow

ROWS_PER_GROUP = 2


def gallery(
    model: ImageARModel, extraction: xr.Dataset, targets: Targets
) -> tuple[GalleryRow, ...]:
    """Show, of each group, the candidates that came back best from the unmodified model.

    Args:
        model: its tokenizer decodes the completions.
        extraction: dims (arm, candidate, token), the first arm being the unmodified model.
        targets: what the completions were compared with.
    """
    original = extraction["similarity"].sel(arm=ORIGINAL).to_numpy()
    group = extraction["group"].to_numpy()
    shown = [
        int(index)
        for name in dict.fromkeys(group)
        for index in _best(np.flatnonzero(group == name), original)
    ]
    pictures = {
        str(arm): _pixels(model, extraction["tokens"].sel(arm=arm).isel(candidate=shown))
        for arm in extraction["arm"].values
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
