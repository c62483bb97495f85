"""At which temperature is an organism's sampler best? What is stored beside its weights.

``python tests/adapters/organisms/sampler.py var-organism`` prints ``sampler.json``: the KID of
1 000 generated pictures against the 300 for calibration at nine temperatures, with its error, in
the features of the organism's classifier. A second argument is another sampling seed.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

import iarmem_plugin as iarmem
from iarmem_plugin.interfaces import TunedSampling


def tuned(name: str, seed: int = 0) -> TunedSampling:
    """Find an organism's temperature."""
    model = iarmem.load(name)
    assert model.adapter.variant.organism is not None
    organism = model.adapter.variant.organism()
    measure = iarmem.TorchFidelity(organism.classifier(), organism.classifier_name)
    unseen = organism.pictures.subset(np.flatnonzero(organism.calibration))
    return iarmem.tune_sampling(model, measure, unseen, generated=1000, seed=seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(tuned(sys.argv[1], *map(int, sys.argv[2:])).provenance, indent=1))
