"""What is forgotten when the neurons that memorized are weakened, and what would chance have done?

python examples/localize.py && python examples/mitigate.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich import print

import iarmem_plugin as iarmem
from iarmem_adapters import organisms


def main(scores: Path = Path("iarmem-localize"), out: Path = Path("iarmem-mitigate")) -> None:
    """Compare the highest by UnitMem with random neurons, on the organism's canaries."""
    organism = organisms.organism("var")
    model = iarmem.load("var-organism")
    canaries = np.flatnonzero(np.char.startswith(organism.group.astype(str), "canary"))
    candidates = iarmem.Candidates(
        organism.pictures.subset(canaries), organism.group[canaries].astype(str)
    )
    halve = iarmem.ScaleWeights(0.5)
    arms = [
        iarmem.Arm("highest UnitMem", iarmem.Highest(), halve, 0.1),
        iarmem.Arm("random", iarmem.Random(), halve, 0.1, seed=1, role="control"),
    ]
    report = iarmem.mitigate(
        model,
        iarmem.load_scores(scores),
        candidates,
        arms,
        similarity=iarmem.PixelCorrelation(threshold=0.95),
    )
    print(report.table())
    print("written to", report.save(out) / "report.html")


if __name__ == "__main__":
    main()
