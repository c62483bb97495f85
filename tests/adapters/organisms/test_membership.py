"""Membership signals on models whose training is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from iarmem_adapters import organisms
from iarmem_plugin import Candidates, compare_membership, load, make_targets, membership_signals

EACH = 24


@pytest.mark.parametrize("family", ["var", "rar"])
def test_canaries_are_told_by_the_organism_and_not_by_the_twin_that_never_saw_them(
    family: str,
) -> None:
    organism = organisms.organism(family)
    group = organism.group.astype(str)
    rows = [np.flatnonzero(group == name)[:EACH] for name in ("canary 500", "held-out")]
    chosen = np.concatenate(rows)
    tried = Candidates(organism.pictures.subset(chosen), group[chosen])
    model, twin = load(f"{family}-organism"), load(f"{family}-organism-twin")
    tokens = make_targets(model, tried, model.adapter.variant.views).tokens
    found = [membership_signals(one, tried, tokens) for one in (model, twin)]
    signals = xr.concat(found, xr.Variable("arm", ["original", "twin"]))
    before, after = compare_membership(signals)
    assert list(before.signals) == ["nll", "min-k", "conditional-unconditional"]
    assert before.signals["nll"].area.value > 0.99
    assert before.signals["min-k"].area.value > 0.99
    for told in before.signals.values():
        assert told.area.value > 0.8
    for told in after.signals.values():
        assert told.change is not None
        assert told.change.high < 0
        assert 0.25 < told.area.value < 0.75  # of 24 against 24, chance is 0.5 ± 0.08
    assert before.inference is not None
    assert before.inference.smallest is not None
    assert before.inference.smallest <= 6
