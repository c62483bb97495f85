"""Which pictures does a model take for members, before and after an edit?

python examples/membership.py var-organism
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from rich import print

import iarmem_plugin as iarmem
from iarmem_plugin.jobs.demo.job import twin_of

LIKE = ("canary", "member, distinct", "held-out")  # alike in all but whether they were shown


def main(
    organism: str = "var-organism",
    out: Path = Path("iarmem-membership"),
    *,
    each: int = 300,
    generated: int = 100,
    captured: int = 200,
) -> None:
    """Compare the organism, its highest UnitMem halved, and its twin, which saw no canary."""
    torch.set_num_threads(1)
    model = iarmem.load(organism)
    make, twin = model.adapter.variant.organism, twin_of(organism)
    if make is None or twin is None:
        raise SystemExit(f"{organism} is not an organism")
    truth = make()
    group = truth.group.astype(str)
    rows = np.concatenate([np.flatnonzero(np.char.startswith(group, one))[:each] for one in LIKE])
    shown = np.flatnonzero(truth.exposures > 0)
    tried = iarmem.with_generations(
        model,
        iarmem.Candidates(truth.pictures.subset(rows), group[rows]),
        truth.pictures.subset(shown),
        generated,
        sampling=model.adapter.variant.sampling,
    )
    tokens = iarmem.make_targets(model, tried, model.adapter.variant.views).tokens
    spread = shown[np.linspace(0, len(shown) - 1, captured).astype(int)]
    options = iarmem.CaptureOptions(views=2)
    scores = iarmem.localize(model, truth.pictures.subset(spread), options=options)

    def arms() -> Iterator[tuple[str, iarmem.ImageARModel]]:
        yield "original", model
        with iarmem.intervene(
            model, iarmem.select(scores, fraction=0.1), iarmem.ScaleWeights(0.5), backend="weights"
        ) as edited:
            yield "highest UnitMem", edited
        yield "twin", iarmem.load(twin)

    found = {name: iarmem.membership_signals(one, tried, tokens) for name, one in arms()}
    signals = xr.concat(list(found.values()), xr.Variable("arm", list(found)))
    compared = iarmem.compare_membership(signals)
    for against in ("held-out", "generated"):
        print(iarmem.membership_table(compared, against=against))
    for name, content in iarmem.membership_files(compared).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    print("written to", out)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "var-organism")
