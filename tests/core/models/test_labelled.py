"""A family that is told a label, whose forward runs the parts of its blocks itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Adapter, Condition, Sampling
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import Clamp, ScaleWeights
from iarmem_plugin.testing import AdapterTests

from .labelled_adapter import CLASSES, CODES, SIDE, LabelledAdapter, LabelledNetwork

TOKENS = torch.randint(CODES, (2, SIDE**2), generator=torch.Generator().manual_seed(1))
TOLD = Condition.of([0, 4])


@pytest.fixture
def adapter() -> Adapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LabelledAdapter.from_model(LabelledNetwork(), None)


class TestLabelled(AdapterTests):
    @pytest.fixture
    def adapter(self, adapter: Adapter) -> Adapter:
        return adapter


class Masked(LabelledAdapter):
    """Never predicts one of the codes, as a model does whose vocabulary holds text, too."""

    def logits(self, output: Any, tokens: torch.Tensor) -> torch.Tensor:
        return masked(super().logits(output, tokens))

    def next_logits(self, output: Any) -> torch.Tensor:
        return masked(super().next_logits(output))


def masked(logits: torch.Tensor) -> torch.Tensor:
    return logits.index_fill(-1, torch.tensor([7]), -torch.inf)


class TestMasked(AdapterTests):
    @pytest.fixture
    def adapter(self, adapter: LabelledAdapter) -> Adapter:
        return Masked.from_model(adapter.network, None)

    def test_the_images_have_tokens_that_are_never_predicted(self, tokens: torch.Tensor) -> None:
        assert bool((tokens == 7).any())


class TestOneClass(AdapterTests):
    @pytest.fixture
    def adapter(self, adapter: LabelledAdapter) -> Adapter:
        adapter.variant = replace(adapter.variant, num_classes=1)
        return adapter


def test_an_edit_in_the_trace_acts_where_no_block_is_called(adapter: Adapter) -> None:
    chosen = np.zeros((2, 48), bool)
    chosen[0, 3] = chosen[1, 5:20] = True
    neurons = xr.DataArray(chosen, dims=("block", "neuron"))
    with wrapped(adapter) as model, model.borrowed():
        plain = model.logits(TOKENS, TOLD)
        found = {}
        for backend in ("trace", "weights"):
            with intervene(model, neurons, ScaleWeights(0.5), backend=backend) as edited:
                found[backend] = edited.logits(TOKENS, TOLD)
        torch.testing.assert_close(found["trace"], found["weights"], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found["trace"], plain)
        with intervene(model, neurons, Clamp(), backend="trace") as edited:
            assert not torch.equal(edited.logits(TOKENS, TOLD), plain)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0, CLASSES], "the label 5 is told; the model has the classes 0 to 4"),
        ([-1, 0], "the label -1 is told; the model has the classes 0 to 4"),
        ([1], "told of 1 image, and there are tokens of 2"),
        ([1, 2, 3], "told of 3 images, and there are tokens of 2"),
    ],
)
@pytest.mark.parametrize("call", ["complete", "logits", "predicted", "teacher_forced"])
def test_what_the_model_cannot_be_told_is_refused(
    adapter: Adapter, label: list[int], message: str, call: str
) -> None:
    with wrapped(adapter) as model, model.borrowed(), pytest.raises(InputError, match=message):
        use(model, call, Condition.of(label))


def use(model: ImageARModel, call: str, condition: object) -> None:
    extra = (Sampling(),) if call == "complete" else ()
    getattr(model, call)(TOKENS, condition, *extra)


def test_a_cache_whose_steps_read_everything_again_is_refused(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabelledAdapter, "caches", True)
    with pytest.raises(PluginError, match=r"LabelledAdapter\.caches .* write step"):
        adapter.step(TOLD, TOKENS)  # type: ignore[attr-defined]  # of TokenByToken
