"""Completion with a key/value cache, on transformers' ImageGPT (Conv1D) and Llama (gated)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin.evaluation.torchvision_ops import import_torchvision
from iarmem_plugin.interfaces import MLP, Condition, NeuronWeights, Reads, Sampling, Writes
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import Clamp, ScaleWeights, Zero
from iarmem_plugin.testing.tiny import TinyAdapter

from .conftest import GREEDY

BLOCKS, TOKENS, CODES, CHOSEN = 2, 9, 16, [3, 17, 40]
TOLD = Condition.of([0, 1, 4])
PREFIX = torch.randint(CODES, (3, 2), generator=torch.Generator().manual_seed(5))
BACKENDS = ("trace", "weights")


class Cached(TinyAdapter):
    """One token at a time: a class, then the image's tokens, through a key/value cache."""

    def __init__(self, network: nn.Module, layout: ModelLayout) -> None:
        tiny = TinyAdapter.make()
        self.network, self.tokenizer = network, tiny.tokenizer
        self.layout, self.variant = layout, tiny.variant

    def complete(
        self, prefix: torch.Tensor, condition: Condition, sampling: Sampling
    ) -> torch.Tensor:
        tokens, cache = prefix, None
        step = torch.cat((CODES + condition.label[:, None], prefix), 1)
        with torch.no_grad():
            while tokens.shape[1] < TOKENS:
                out = self.network(input_ids=step, past_key_values=cache, use_cache=True)
                cache, step = out.past_key_values, out.logits[:, -1:, :CODES].argmax(2)
                tokens = torch.cat((tokens, step), 1)
        return tokens


def image_gpt() -> Cached:
    import_torchvision()  # which transformers needs for pictures
    from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

    config = ImageGPTConfig(
        vocab_size=CODES + 5,
        n_positions=TOKENS + 1,
        n_embd=16,
        n_layer=BLOCKS,
        n_head=2,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    mlp = "transformer.h.{block}.mlp"
    maps = MLP(Writes(f"{mlp}.c_proj", features=0), {"fc1": Reads(f"{mlp}.c_fc", features=1)})
    return Cached(ImageGPTForCausalImageModeling(config).eval(), layout_of(maps, 64))


def llama() -> Cached:
    import_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=CODES + 5,
        hidden_size=16,
        intermediate_size=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        max_position_embeddings=TOKENS + 1,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    mlp = "model.layers.{block}.mlp"
    reads = {name: Reads(f"{mlp}.{name}_proj") for name in ("gate", "up")}
    return Cached(
        LlamaForCausalLM(config).eval(), layout_of(MLP(Writes(f"{mlp}.down_proj"), reads), 48)
    )


def layout_of(mlp: MLP, neurons: int) -> ModelLayout:
    return ModelLayout(
        "cached", BLOCKS, neurons, (Scale("all", tuple(range(TOKENS))),), mlp, range(TOKENS)
    )


@pytest.fixture(params=[image_gpt, llama], ids=["ImageGPT", "Llama"])
def adapter(request: pytest.FixtureRequest) -> Iterator[Cached]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield request.param()


def chosen(adapter: Cached) -> xr.DataArray:
    selected = np.zeros((BLOCKS, adapter.layout.neurons_per_block), bool)
    selected[1, CHOSEN] = True
    return xr.DataArray(selected, dims=("block", "neuron"))


class Everything(ScaleWeights):
    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        biases = {name: one if one is None else one - 2 for name, one in neurons.biases.items()}
        return replace(super().edit(neurons), biases=biases, writes=neurons.writes * -3)


@torch.no_grad()
def edited_by_hand(adapter: Cached) -> Cached:
    """Return a copy of which three neurons are scaled, shifted and turned round, in plain torch."""
    network = copy.deepcopy(adapter.network)
    if hasattr(network, "model"):
        mlp = network.model.layers[1].mlp
        for module in (mlp.gate_proj, mlp.up_proj):
            module.weight[CHOSEN] *= 3
        mlp.down_proj.weight[:, CHOSEN] *= -3
    else:
        mlp = network.transformer.h[1].mlp
        mlp.c_fc.weight[:, CHOSEN] *= 3
        mlp.c_fc.bias[CHOSEN] -= 2
        mlp.c_proj.weight[CHOSEN] *= -3
    return Cached(network, adapter.layout)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_completion_is_that_of_a_network_edited_by_hand(adapter: Cached, backend: str) -> None:
    expected = edited_by_hand(adapter).complete(PREFIX, TOLD, GREEDY)
    before = {name: one.clone() for name, one in adapter.network.state_dict().items()}
    model = ImageARModel(adapter)
    original = model.complete(PREFIX, TOLD, GREEDY)
    with intervene(model, chosen(adapter), Everything(3.0), backend=backend) as edited:
        actual = edited.complete(PREFIX, TOLD, GREEDY)
    assert torch.equal(actual, expected)
    assert not torch.equal(actual, original)
    assert torch.equal(model.complete(PREFIX, TOLD, GREEDY), original)
    after = adapter.network.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_visit_is_edited_and_the_other_neurons_are_not(adapter: Cached, backend: str) -> None:
    writes = adapter.network.get_submodule(adapter.layout.mlp.writes.path.format(block=1))
    seen: list[torch.Tensor] = []
    writes.register_forward_pre_hook(lambda _m, given: seen.append(given[0].clone()))
    model = ImageARModel(adapter)
    with intervene(model, chosen(adapter), Zero(), backend=backend) as edited:
        edited.complete(PREFIX, TOLD, GREEDY)
    assert [values.shape[1] for values in seen] == [3, *[1] * (TOKENS - 3)]
    others = np.setdiff1d(np.arange(adapter.layout.neurons_per_block), CHOSEN)
    for values in seen:
        assert not values[..., CHOSEN].any()
        assert values[..., others].all()


def test_clamped_values_reach_every_token(adapter: Cached) -> None:
    by_hand = Cached(copy.deepcopy(adapter.network), adapter.layout)
    writes = by_hand.network.get_submodule(adapter.layout.mlp.writes.path.format(block=1))

    def clamped(_module: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        values = given[0].clone()
        values[..., CHOSEN] = values[..., CHOSEN].clamp(5.0, 9.0)
        return (values,)

    writes.register_forward_pre_hook(clamped)
    expected = by_hand.complete(PREFIX, TOLD, GREEDY)
    model = ImageARModel(adapter)
    with intervene(model, chosen(adapter), Clamp(5.0, 9.0)) as edited:
        assert torch.equal(edited.complete(PREFIX, TOLD, GREEDY), expected)
    assert not torch.equal(model.complete(PREFIX, TOLD, GREEDY), expected)
