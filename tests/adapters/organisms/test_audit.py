"""An audit of pictures whose part in the training is known."""

from __future__ import annotations

import numpy as np
import pytest

from iarmem_adapters import organisms
from iarmem_plugin import audit, load

EACH, UNSEEN = 40, 100


@pytest.mark.slow
def test_canaries_shown_often_are_found_and_pictures_never_seen_are_not() -> None:
    organism = organisms.organism("var")
    group = organism.group.astype(str)
    canaries = np.flatnonzero(np.char.startswith(group, "canary"))
    mine = canaries[np.linspace(0, len(canaries) - 1, EACH).round().astype(int)]
    fixing = np.flatnonzero(organism.calibration)
    unseen = fixing[np.linspace(0, len(fixing) - 1, UNSEEN).round().astype(int)]
    pictures = organism.pictures
    found = audit(load("var-organism"), pictures.subset(mine), pictures.subset(unseen))
    often = {pictures.paths[at] for at in mine if organism.exposures[at] >= 500}
    extracted = {one.path for one in found.having("extracted")}
    assert len(often) >= 10
    assert len(extracted & often) > 0.5 * len(often)
    assert found.inference is not None
    assert found.inference.p < 0.01
    for one in found.counts[:3]:
        assert found.chance(one.false_alarms) > 0.005, one


@pytest.mark.slow
def test_a_model_that_never_saw_the_canaries_gives_them_verdicts_as_of_any_other() -> None:
    organism = organisms.organism("var")
    canaries = np.flatnonzero(np.char.startswith(organism.group.astype(str), "canary"))
    unseen = np.flatnonzero(organism.calibration)[:UNSEEN]
    twin, pictures = load("var-organism-twin"), organism.pictures
    found = audit(twin, pictures.subset(canaries[:EACH]), pictures.subset(unseen), neurons=False)
    assert found.inference is not None
    assert found.inference.p > 0.01
    for one in found.counts[:3]:
        assert one.pictures <= 0.1 * EACH, one  # about 2% are expected of 40
