"""Where does a model keep what it memorized? The first job, through the Python API.

    python examples/localize.py

For a released model, name its files: iarmem.load("var-d16", weights=..., tokenizer=...), and open
your own pictures: iarmem.Images.from_folder("train", num_classes=1000).
"""

from __future__ import annotations

from pathlib import Path

import iarmem_plugin as iarmem
from iarmem_adapters import organisms


def main(out: Path = Path("iarmem-localize"), images: int = 64, views: int = 10) -> None:
    """Score the bundled organism's neurons on some of its training pictures."""
    organism = organisms.organism("var")
    members = [i for i, times in enumerate(organism.exposures) if times > 0][:images]
    model = iarmem.load("var-organism")

    options = iarmem.CaptureOptions(views=views)
    scores = iarmem.localize(model, organism.pictures.subset(members), options=options)
    print(scores["score"].sum("neuron").to_pandas().round(1))  # block x scale
    neurons = iarmem.select(scores, fraction=0.1)
    print("neurons among the top 10 %, by block:", neurons.sum("neuron").values)
    print("written to", iarmem.save_scores(scores, out))  # scores.nc and three pictures


if __name__ == "__main__":
    main()
