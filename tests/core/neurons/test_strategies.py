"""Every strategy has a name, is made of its text, and acts on a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.selectors import select
from iarmem_plugin.neurons.strategies import BASELINES, FRACTIONS, SELECTIONS, STRATEGIES
from iarmem_plugin.plugins import names
from iarmem_plugin.plugins.create import create
from iarmem_plugin.testing.tiny import TinyAdapter

TOKENS = torch.arange(21).remainder(16).expand(2, 21)
TOLD = Condition.of([0, 1])
PUBLISHED = ["zero-weights", "zero", "scale-biases:factor=0", "mean-ablate"] + [
    f"{name}:factor={factor}"
    for name in ("scale-weights", "scale-weights-and-biases", "scale-outgoing")
    for factor in (0.1, 0.25, 0.5, 0.75)
]


@pytest.fixture(scope="module")
def model() -> ImageARModel:
    return ImageARModel(TinyAdapter.make())


@pytest.fixture
def scores() -> xr.Dataset:
    random, dims = np.random.default_rng(0), ("block", "scale", "neuron")
    values = {name: (dims, random.random((3, 3, 128))) for name in ("score", "mean_activation")}
    return xr.Dataset(values).assign_coords(valid=(dims, np.ones((3, 3, 128), bool)))


def test_none_of_the_published_strategies_is_missing() -> None:
    assert set(PUBLISHED) <= set(STRATEGIES.values())
    assert len(set(STRATEGIES.values())) == len(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_changes_what_a_model_predicts(
    model: ImageARModel, scores: xr.Dataset, name: str
) -> None:
    neurons = select(scores, fraction=0.1)
    mean = scores["mean_activation"].mean("scale")
    with model.borrowed():
        before = model.logits(TOKENS, TOLD)
        edit = create("intervention", STRATEGIES[name])
        with intervene(model, neurons, edit, mean=mean) as edited:
            assert not torch.equal(edited.logits(TOKENS, TOLD), before)
        assert torch.equal(model.logits(TOKENS, TOLD), before)


@pytest.mark.parametrize("backend", ["trace", "weights"])
def test_a_scaled_column_is_a_scaled_activation(
    model: ImageARModel, scores: xr.Dataset, backend: str
) -> None:
    neurons = select(scores, fraction=0.1)
    zeroed = (("scale-outgoing:factor=0", backend), ("clamp", "trace"))
    with model.borrowed():
        found = []
        for text, way in zeroed:
            with intervene(model, neurons, create("intervention", text), backend=way) as edited:
                found.append(edited.logits(TOKENS, TOLD))
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)  # sums in another order


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_selection_takes_its_fraction(scores: xr.Dataset, name: str, fraction: float) -> None:
    chosen = int(select(scores, fraction=fraction, selector=SELECTIONS[name]).sum())
    assert fraction * 384 <= chosen < fraction * 384 + 3


def test_every_baseline_is_made_of_its_text_and_none_is_missing() -> None:
    made = [create("edit", text) for text in BASELINES.values()]
    assert {one.name for one in made} == set(names("edit"))
