"""Saving an edited model saves the edit, whichever way it is edited."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import FingerprintMismatchError, InputError
from iarmem_plugin.interfaces import Condition, NeuronWeights
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights, ScaleWeightsAndBiases, Zero
from iarmem_plugin.testing.tiny import TinyAdapter

from .conftest import some_neurons, whole_block


class HalveOutgoing(ScaleWeights):
    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        return replace(neurons, writes=neurons.writes / 2)


def loaded(state: dict[str, torch.Tensor]) -> ImageARModel:
    adapter = TinyAdapter.make()
    adapter.network.load_state_dict(state)
    return ImageARModel(adapter)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("backend", ["trace", "weights"])
@pytest.mark.parametrize(
    "change", [ScaleWeightsAndBiases(0.5), HalveOutgoing()], ids=["incoming", "outgoing"]
)
def test_what_is_saved_computes_as_the_edited_model_does(
    model: ImageARModel,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    backend: str,
    change: ScaleWeights,
) -> None:
    file = io.BytesIO()
    with torch.no_grad(), intervene(model, some_neurons(), change, backend=backend) as edited:
        expected = edited.logits(tokens, Condition.of(labels))
        torch.save(edited.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        actual = loaded(torch.load(file, weights_only=True)).logits(tokens, Condition.of(labels))
        assert not torch.allclose(model.logits(tokens, Condition.of(labels)), expected)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)  # rounding of the trace


def test_both_ways_of_editing_save_the_same_bits(model: ImageARModel) -> None:
    states = []
    for backend in ("trace", "weights"):
        with intervene(model, some_neurons(0.3), ScaleWeights(0.5), backend=backend) as once:
            with intervene(once, some_neurons(0.6), HalveOutgoing(), backend=backend) as twice:
                states.append(twice.state_dict())
    assert same(*states)


@pytest.mark.parametrize("backend", ["trace", "weights"])
def test_a_state_dict_stays_as_it_was_when_the_edit_is_over(
    model: ImageARModel, backend: str
) -> None:
    with intervene(model, whole_block(1), Zero(), backend=backend) as edited:
        state = edited.state_dict(prefix="net.")
    assert not state["net.blocks.1.ffn.fc1.weight"].any()
    assert model.state_dict()["blocks.1.ffn.fc1.weight"].any()


def test_an_unedited_models_state_dict_is_the_networks_own(model: ImageARModel) -> None:
    own = model.adapter.network.state_dict()
    state = model.state_dict()
    assert list(state) == list(own)
    assert all(state[name].data_ptr() == own[name].data_ptr() for name in own)


@pytest.mark.parametrize("name", ["load_state_dict", "save_pretrained", "push_to_hub"])
def test_what_would_go_round_an_edit_is_refused(model: ImageARModel, name: str) -> None:
    with intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(InputError, match=r"state_dict\(\), or edit with backend='weights'"):
            getattr(edited, name)
    assert model.load_state_dict is not None


def test_an_edit_without_entries_of_its_own_is_refused(model: ImageARModel) -> None:
    fc1 = model._adapter.network.blocks[1].ffn.fc1
    torch.nn.utils.parametrizations.weight_norm(fc1)
    with intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(InputError, match=r"no 'blocks\.1\.ffn\.fc1\.weight'.*weights"):
            edited.state_dict()


@pytest.mark.parametrize("backend", ["trace", "weights"])
def test_an_edited_model_has_another_hash(model: ImageARModel, backend: str) -> None:
    before = weights_sha256(model)
    with intervene(model, whole_block(1), Zero(), backend=backend) as edited:
        edits = weights_sha256(edited)
    assert edits != before
    assert weights_sha256(model) == before


def test_a_store_of_a_model_does_not_pass_for_one_of_the_edited_model(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    localize(model, pictures, store=tmp_path / "x.zarr")
    with intervene(model, whole_block(1), Zero()) as edited:
        with pytest.raises(FingerprintMismatchError, match="checkpoint_sha256"):
            localize(edited, pictures, store=tmp_path / "x.zarr")
