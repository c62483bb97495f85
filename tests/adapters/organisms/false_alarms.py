"""How many pictures never seen get a verdict of an audit, by how many others fix its thresholds.

``python tests/adapters/organisms/false_alarms.py var-organism`` prints, as JSON, the share of an
organism's pictures for calibration that get each verdict when 20 or 100 of them fix the thresholds
and as many others are judged, mean of 300 draws; and what is expected of one more picture of the
kind that fixed them, (k + 1) / (n + 1).
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

import iarmem_plugin as iarmem
from iarmem_plugin.evaluation.recovery.curves import thresholds

DRAWS, RATE = 300, 0.01


def main(name: str) -> None:
    """Audit an organism once, and draw anew which pictures fix thresholds."""
    torch.set_num_threads(1)
    model = iarmem.load(name)
    make = model.adapter.variant.organism
    if make is None:
        raise SystemExit(f"{name} is not an organism")
    truth = make()
    never = truth.pictures.subset(np.flatnonzero(truth.calibration))
    one, others = never.subset([0]), never.subset(range(1, len(never)))
    found = iarmem.audit(model, one, others, neurons=False)
    values = np.array([one.values for one in (*found.unseen, *found.fixing)]).T
    verdicts = np.array([one.verdict for one in found.thresholds])
    shares = {
        f"{count} fix, {count} judged": {
            "expected": (int(RATE * count) + 1) / (count + 1),
            **{
                verdict: share(values[verdicts == verdict], count)
                for verdict in dict.fromkeys(verdicts.tolist())
            },
        }
        for count in (20, 100)
    }
    print(json.dumps(shares, indent=1))


def share(values: np.ndarray, count: int) -> float:
    """Return the mean share of pictures that lie above a threshold which others fixed.

    Args:
        values: dims (attempt or signal, picture).
        count: pictures that fix thresholds, and pictures that are judged.
    """
    random, shares = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = random.permutation(values.shape[1])
        fixing, judged = values[:, drawn[:count]], values[:, drawn[count : 2 * count]]
        above = judged > thresholds(fixing, RATE)[:, None]
        shares.append(above.any(axis=0).mean())
    return float(np.mean(shares))


if __name__ == "__main__":
    main(sys.argv[1])
