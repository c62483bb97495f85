"""The public names of depth as users write them; type-checked, never run."""

from __future__ import annotations

import xarray as xr

from iarmem_plugin import (
    BlockOutputs,
    Candidates,
    Depth,
    ImageARModel,
    ScaleWeights,
    block_outputs,
    intervene,
    make_targets,
    measure_depth,
    patched_losses,
)


def depths(
    model: ImageARModel, twin: ImageARModel, neurons: xr.DataArray, tried: Candidates
) -> list[tuple[float, float, float]]:
    tokens = make_targets(model, tried, model.adapter.variant.views).tokens
    with intervene(model, neurons, ScaleWeights(0.5), backend="weights") as edited:
        outputs: BlockOutputs = block_outputs(edited, tried, tokens, batch_size=8)
    arms = {"halved": outputs, "twin": block_outputs(twin, tried, tokens)}
    losses: list[xr.Dataset] = [
        patched_losses(model, one, tried, tokens, given=5, batch_size=8) for one in arms.values()
    ]
    found: tuple[Depth, ...] = measure_depth(
        xr.concat(losses, xr.Variable("arm", list(arms))), twin="twin"
    )
    shares: list[float] = [block.share for one in found for block in one.blocks if block.counted]
    print(shares)
    return [(one.depth, one.low, one.high) for one in found]
