"""The nine laws of an adapter: what any image autoregressive model does, whatever its family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from iarmem_plugin.interfaces import Adapter, Condition, Sampling, Variant
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.interventions import ScaleWeights

NEAR_TIES = 0.02  # share of tokens of which two are likeliest up to rounding
ROUNDING = 1e-4  # of a log-likelihood, and relative, of an activation
BACKENDS = ("trace", "weights")


class AdapterLaws:
    """Tests of an adapter; the fixtures are those of `AdapterTests`."""

    def test_law_1_greedy_completion_is_what_teacher_forcing_predicts(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Each chosen token is the likeliest, given the chosen ones before it, scale by scale."""
        with wrapped(adapter) as model, model.borrowed():
            for length in (0, adapter.variant.prefix_tokens):
                assert misses(model, tokens[:, :length], condition) <= NEAR_TIES

    def test_law_2_no_prediction_depends_on_its_own_token_or_a_later_one(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """A model that sees what it is to predict would seem to have memorized everything."""
        before = likelihoods(adapter, tokens, tokens, condition)
        for place in places(adapter, tokens.shape[1]):
            seen = likelihoods(adapter, altered(tokens, place), tokens, condition)
            known = slice(0, place + 1)
            assert (seen[:, known] - before[:, known]).abs().max() < ROUNDING, place

    def test_law_3_the_last_prediction_depends_on_the_first_token(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Else the model is not told the tokens, and a prefix says nothing."""
        before = likelihoods(adapter, tokens, tokens, condition)
        other = likelihoods(adapter, altered(tokens, 0), tokens, condition)
        assert not torch.equal(other[:, -1], before[:, -1])

    def test_law_3_predictions_depend_on_what_the_model_is_told(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """On the label or the caption, in some image, where the adapter says that it is told."""
        told = type(adapter).conditions & {"label", "text"}
        text = None if condition.text is None else tuple(one[::-1] for one in condition.text)
        other = Condition(1 - condition.label, condition.image, text)
        before = likelihoods(adapter, tokens, tokens, condition)
        after = likelihoods(adapter, tokens, tokens, other)
        assert bool(told) == (not torch.equal(after, before))

    def test_law_4_a_prefix_stays(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """A completion begins with the tokens that were given, drawn or not."""
        prefix = tokens[:, : adapter.variant.prefix_tokens]
        with wrapped(adapter) as model, model.borrowed():
            for sampling in (Sampling(), Sampling(greedy=False, seed=3)):
                completed = model.complete(prefix, condition, sampling)
                assert torch.equal(completed[:, : prefix.shape[1]], prefix)

    def test_law_5_decoded_images_are_in_range_and_of_the_resolution(
        self, adapter: Adapter, tokens: Tensor
    ) -> None:
        """RGB in [0, 1], squares of the variant's resolution."""
        side = adapter.variant.resolution
        with wrapped(adapter) as model, model.borrowed():
            images = model.decode(tokens)
        assert images.shape == (len(tokens), 3, side, side)
        assert images.is_floating_point()
        assert 0 <= images.min() <= images.max() <= 1

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_law_6_an_edited_neuron_changes_alone_in_its_own_block(
        self, adapter: Adapter, tokens: Tensor, condition: Condition, backend: str
    ) -> None:
        """Of its block no other neuron changes, nor any of an earlier block."""
        with wrapped(adapter) as model, model.borrowed():
            before = read(model, tokens, condition)
            for block in sorted({0, model.layout.num_blocks - 1}):
                neuron = int(before[:, block].sum((0, 1)).argmax())
                neurons = chosen(model, block, [neuron])
                with intervene(model, neurons, ScaleWeights(-2.0), backend=backend) as edited:
                    after = read(edited, tokens, condition)
                moved = (after - before).abs() > ROUNDING * (1 + before.abs())
                assert not moved[:, :block].any(), f"a block before {block} changed"
                assert moved[:, block].any(dim=1).any(dim=0).nonzero().tolist() == [[neuron]]
            assert torch.equal(read(model, tokens, condition), before)

    def test_law_6_both_backends_edit_alike(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Neurons of a block and all that comes after them."""
        found = []
        with wrapped(adapter) as model, model.borrowed():
            neurons = chosen(model, 0, range(0, model.layout.neurons_per_block, 3))
            for backend in BACKENDS:
                with intervene(model, neurons, ScaleWeights(-2.0), backend=backend) as edited:
                    found.append(read(edited, tokens, condition))
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_law_6_completion_goes_through_an_edit(
        self, adapter: Adapter, tokens: Tensor, condition: Condition, backend: str
    ) -> None:
        """The edited model completes by what the edited model predicts, and not as it came."""
        prefix = tokens[:, : adapter.variant.prefix_tokens]
        with wrapped(adapter) as model, model.borrowed():
            block = model.layout.num_blocks // 2
            neurons = chosen(model, block, range(model.layout.neurons_per_block))
            plain = model.predicted(tokens, condition)[1]
            with intervene(model, neurons, ScaleWeights(-4.0), backend=backend) as edited:
                assert not torch.equal(edited.predicted(tokens, condition)[1], plain)
                for begin in (prefix[:, :0], prefix):
                    assert misses(edited, begin, condition) <= NEAR_TIES

    def test_law_7_another_seed_draws_other_tokens_and_the_same_seed_the_same(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Sampling is followed, and can be repeated."""
        with wrapped(adapter) as model, model.borrowed():
            first, again, other = (
                model.complete(tokens[:, :0], condition, Sampling(greedy=False, seed=seed))
                for seed in (1, 1, 2)
            )
            greedy = model.complete(tokens[:, :0], condition, Sampling())
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert not torch.equal(first, greedy)

    def test_law_8_variant_layout_and_network_agree(self, adapter: Adapter, tokens: Tensor) -> None:
        """Blocks, neurons, parameters, tokens, scales and prefix are those of the network."""
        variant, layout = adapter.variant, adapter.layout
        assert (variant.family, layout.family) == (adapter.name, adapter.name)
        assert (variant.blocks, variant.neurons) == (layout.num_blocks, layout.neurons_per_block)
        assert variant.parameters == sum(one.numel() for one in adapter.network.parameters())
        assert len(layout.predicting) == tokens.shape[1]
        assert len(set(layout.predicting)) == tokens.shape[1]
        assert all(scale.tokens[-1] < tokens.shape[1] for scale in layout.scales)
        assert 0 <= variant.prefix_tokens < tokens.shape[1]

    def test_law_9_it_matches_its_own_networks_alone(self, adapter: Adapter) -> None:
        """What it takes for its own is wrapped, and would give wrong numbers."""
        assert type(adapter).matches(adapter.network)
        plain = (nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.GELU()), nn.Module())
        assert not any(type(adapter).matches(module) for module in plain)

    def test_law_9_its_variants_are_described(self, adapter: Adapter) -> None:
        """Each under its own name, of its family, with sizes that there can be."""
        variants = type(adapter).variants()
        assert all(isinstance(variant, Variant) for variant in variants.values())
        for name, variant in variants.items():
            assert (variant.name, variant.family) == (name, adapter.name)
            sizes = (variant.blocks, variant.neurons, variant.parameters, variant.resolution)
            assert min(sizes) > 0 <= variant.prefix_tokens, name


def misses(model: ImageARModel, prefix: Tensor, condition: Condition) -> float:
    """Return the share of greedily chosen tokens that teacher forcing does not predict."""
    tokens = model.complete(prefix, condition, Sampling())
    hits = model.predicted(tokens, condition)[0][:, prefix.shape[1] :]
    return 1 - float(hits.double().mean())


def likelihoods(adapter: Adapter, given: Tensor, scored: Tensor, condition: Condition) -> Tensor:
    """Return the log-likelihoods of some tokens where others are given: [image token]."""
    return adapter.predicted(forced(adapter, given, condition), scored)[1]


def forced(adapter: Adapter, tokens: Tensor, condition: Condition) -> Any:
    """Return what the plain network returns for ground-truth tokens."""
    mode = adapter.network.training
    adapter.network.eval()
    try:
        with adapter.prepared(), torch.inference_mode():
            inputs = adapter.teacher_forced(tokens, condition)
            return adapter.network(*inputs.args, **inputs.kwargs)
    finally:
        adapter.network.train(mode)


def places(adapter: Adapter, count: int) -> list[int]:
    """Return where tokens are altered: first ones of scales, and some spread over the image."""
    firsts = {scale.tokens[0] for scale in adapter.layout.scales}
    spread = {round(place) for place in np.linspace(0, count - 1, 12)}
    return sorted(place for place in firsts | spread if place < count)


def altered(tokens: Tensor, place: int) -> Tensor:
    """Return tokens of which those at a place are others, taken from these."""
    values = tokens.flatten(0, 1).unique(dim=0)
    assert len(values) > 1, "the images have one token alone; give the fixture `tokens` others"
    changed = tokens.clone()
    for image, token in enumerate(tokens[:, place]):
        other = (values != token).flatten(1).any(1) if values.ndim > 1 else values != token
        changed[image, place] = values[other][0]
    return changed


def read(model: ImageARModel, tokens: Tensor, condition: Condition) -> Tensor:
    """Capture through the trace: (image, block, scale, neuron)."""
    return model.read_neurons(model.adapter.teacher_forced(tokens, condition)).clone()


def chosen(model: ImageARModel, block: int, neurons: Any) -> xr.DataArray:
    """Choose some neurons of a block."""
    shape = (model.layout.num_blocks, model.layout.neurons_per_block)
    found = np.zeros(shape, bool)
    found[block, list(neurons)] = True
    return xr.DataArray(found, dims=("block", "neuron"))
