"""What do baselines leave extracted that choose no neurons, and what do they cost?

python examples/baselines.py var-organism
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich import print

import iarmem_plugin as iarmem
from iarmem_plugin.neurons.strategies import BASELINES
from iarmem_plugin.plugins.create import create


def main(
    organism: str = "var-organism",
    out: Path = Path("iarmem-baselines"),
    *,
    edits: Mapping[str, str] = BASELINES,
    unseen: int = 150,
) -> None:
    """Compare edits of the whole organism: all canaries, members, and held-out pictures."""
    torch.set_num_threads(1)
    model = iarmem.load(organism)
    make = model.adapter.variant.organism
    if make is None:
        raise SystemExit(f"{organism} is not an organism")
    truth = make()
    group, fixing = truth.group.astype(str), truth.calibration
    held_out = group == "held-out"
    members = np.flatnonzero(np.char.startswith(group, "member"))
    tried = np.concatenate(
        (
            np.flatnonzero(np.char.startswith(group, "canary")),
            np.flatnonzero(group == "member, distinct"),
            np.flatnonzero(held_out & ~fixing)[:unseen],
        )
    )
    candidates = iarmem.Candidates(truth.pictures.subset(tried), group[tried])
    known = truth.pictures.subset(np.flatnonzero(held_out & fixing)[: 2 * unseen])
    views, prefix = model.adapter.variant.views, model.adapter.variant.prefix_tokens
    similarity, recognition = iarmem.PixelCorrelation(), iarmem.Recognition()
    fixed_on = iarmem.Candidates(known, np.full(len(known), "held-out"))
    found = iarmem.extract(
        *(model, fixed_on, iarmem.make_targets(model, fixed_on, views)),
        similarity=similarity,
        prefix_tokens=prefix,
    )
    source = "held-out pictures that are not reported"
    iarmem.calibrate(similarity, found["similarity"].to_numpy(), source=source)
    recognition.calibrate(found, rate=0.01, source=source)
    report = iarmem.mitigate(
        model,
        iarmem.contrast(model, candidates.images, known, scorer="weight-norm"),  # chooses nothing
        candidates,
        [iarmem.Arm(name, edit=create("edit", text)) for name, text in edits.items()],
        similarity=similarity,
        recognition=recognition,
        losses=iarmem.loss_protocol(model, iarmem.HeldOutLoss(), known, views),
        retained=truth.pictures.subset(np.setdiff1d(members, tried)),
    )
    print(report.table())
    print("written to", report.save(out) / "report.html")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "var-organism")
