"""The nine laws of an adapter: what any image autoregressive model does, whatever its family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from iarmem_plugin.interfaces import Adapter, Condition, Sampling, Variant
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.token_by_token import TokenByToken
from iarmem_plugin.models.tracing import wrapped
from iarmem_plugin.neurons.interventions import ScaleWeights
from iarmem_plugin.testing.passes import (
    altered,
    chosen,
    declared,
    guided_misses,
    likelihoods,
    misses,
    moves,
    next_logits,
    other_first,
    other_undeclared,
    places,
    read,
    seen_at_tokens,
    seen_elsewhere,
    strangers,
    unlike,
)

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
                share = misses(model, tokens[:, :length], condition)
                assert share <= NEAR_TIES, unlike(share, length)

    def test_law_2_no_prediction_depends_on_its_own_token_or_a_later_one(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """A model that sees what it is to predict would seem to have memorized everything."""
        before = likelihoods(adapter, tokens, tokens, condition)
        for place in places(adapter, tokens.shape[1]):
            seen = likelihoods(adapter, altered(tokens, place), tokens, condition)
            moved = float(moves(before, seen)[:, : place + 1].max())
            assert moved < ROUNDING, (
                f"another token {place} changes the prediction of a token up to {place} by "
                f"{moved:.2g}: see teacher_forced, and the layout's predicting"
            )

    def test_law_3_later_predictions_depend_on_the_first_token(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Else the model is not told the tokens, and a prefix says nothing."""
        if tokens.shape[1] < 2:
            pytest.skip("an image has one token")
        before = likelihoods(adapter, tokens, tokens, condition)
        other = likelihoods(adapter, altered(tokens, 0), tokens, condition)
        alike = torch.equal(other[:, 1:], before[:, 1:])
        assert not alike, "another first token changes nothing: see teacher_forced"

    def test_law_2_neurons_see_what_predictions_see(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """What is captured at a token is where that token is predicted from."""
        before = seen_at_tokens(adapter, tokens, tokens, condition)
        for place in places(adapter, tokens.shape[1]):
            after = seen_at_tokens(adapter, altered(tokens, place), tokens, condition)
            found = seen_elsewhere(before, after)
            assert found == [], (
                f"another token {place} changes either the neurons or the prediction of the tokens "
                f"{found}, not both: neurons are read at the layout's predicting, and logits "
                "elsewhere"
            )

    def test_law_3_predictions_depend_on_what_the_model_is_told(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """On each image's own label or caption, where the adapter says that it is told."""
        told = type(adapter).conditions & {"label", "text"}
        given, said = declared(adapter, condition), set(type(adapter).conditions) or "empty"
        if "text" not in told and adapter.variant.num_classes < 2:
            pytest.skip("there is one class")
        before = likelihoods(adapter, tokens, tokens, given)
        other = other_first(given, adapter.variant.num_classes)
        moved = moves(before, likelihoods(adapter, tokens, tokens, other)).amax(1)
        heeded = bool(moved[0] > 0) == bool(told)
        assert heeded, f"conditions is {said}, and what the first image is told changes nothing"
        assert moved[1:].max() < ROUNDING, "what the first image is told changes others, too"
        whole = likelihoods(adapter, tokens, tokens, condition)
        more = likelihoods(adapter, tokens, tokens, other_undeclared(adapter, condition))
        assert moves(whole, more).max() < ROUNDING, f"conditions is {said}, and more is heeded"

    def test_law_3_every_class_can_be_told(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Labels are 0 to `Variant.num_classes` - 1."""
        if "label" not in type(adapter).conditions:
            pytest.skip("the model is told no label")
        count = adapter.variant.num_classes
        last = replace(condition, label=torch.full_like(condition.label, count - 1))
        try:
            found = likelihoods(adapter, tokens, tokens, last)
        except (IndexError, RuntimeError) as error:
            pytest.fail(f"the label {count - 1} of num_classes={count} cannot be told: {error!r}")
        assert bool(found.isfinite().any())
        if isinstance(adapter, TokenByToken):
            prefix = tokens[:, : adapter.variant.prefix_tokens]
            pair = (next_logits(adapter, last, prefix, one) for one in (False, True))
            same = torch.equal(*pair)
            assert not same, f"the label {count - 1} of num_classes={count} is told as no class is"

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
        low, high = float(images.min()), float(images.max())
        assert 0 <= low <= high <= 1, f"values from {low:.3g} to {high:.3g}, expected [0, 1]"

    def test_law_5_tokens_and_images_are_the_same_again_and_in_any_batch(
        self, adapter: Adapter, tokens: Tensor
    ) -> None:
        """A tokenizer draws nothing, and an image's tokens are not those of its neighbours."""
        side = adapter.variant.resolution
        pixels = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))
        with wrapped(adapter) as model, model.borrowed():
            first, again, alone = (model.tokenize(one) for one in (pixels, pixels, pixels[2:]))
            images, once_more = model.decode(tokens), model.decode(tokens)
            last = model.decode(tokens[-1:])
        assert torch.equal(first, again), "tokenize gives other tokens the second time"
        share = float((first[2:] != alone).double().mean())
        assert share <= NEAR_TIES, f"{share:.0%} of an image's tokens depend on its batch"
        assert torch.equal(images, once_more), "decode gives other images the second time"
        torch.testing.assert_close(images[-1:], last, rtol=1e-3, atol=1e-3)

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
                alone = moved[:, block].any(dim=1).any(dim=0).nonzero().flatten().tolist()
                assert alone == [neuron], f"edited neuron {neuron} of {block}, changed {alone}"
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
                    share = misses(edited, begin, condition)
                    assert share <= NEAR_TIES, unlike(share, begin.shape[1])

    def test_law_7_guidance_goes_from_the_model_that_is_told_nothing(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Its logits are (1 + g) * told - g * untold, and untold is the same for all images."""
        if not isinstance(adapter, TokenByToken) or not type(adapter).conditions:
            pytest.skip("no family of token by token that is told something")
        given, prefix = declared(adapter, condition), tokens[:, : adapter.variant.prefix_tokens]
        told, untold = (next_logits(adapter, given, prefix, one) for one in (False, True))
        other = next_logits(adapter, other_first(given, adapter.variant.num_classes), prefix, True)
        alike = bool(moves(untold, other).max() < ROUNDING)
        assert alike, "unconditional=True still depends on the condition"
        assert not torch.equal(untold, told), "unconditional=True changes nothing"
        share = guided_misses(adapter, prefix, given)
        assert share <= NEAR_TIES, (
            f"{share:.0%} of the tokens of a guided completion are not the likeliest of full "
            "passes: see inputs(unconditional=True), step, caches"
        )

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
        assert torch.equal(first, again), "the same seed draws other tokens"
        assert not torch.equal(first, other), "another seed draws the same tokens"
        assert not torch.equal(first, greedy), "drawn tokens are those of greedy completion"

    def test_law_8_variant_layout_and_network_agree(self, adapter: Adapter, tokens: Tensor) -> None:
        """Blocks, neurons, parameters, tokens, scales and prefix are those of the network."""
        variant, layout = adapter.variant, adapter.layout
        assert (variant.family, layout.family) == (adapter.name, adapter.name), "name is the family"
        assert (variant.blocks, variant.neurons) == (layout.num_blocks, layout.neurons_per_block)
        assert variant.parameters == sum(one.numel() for one in adapter.network.parameters())
        assert len(layout.predicting) == tokens.shape[1]
        assert len(set(layout.predicting)) == tokens.shape[1]
        assert all(scale.tokens[-1] < tokens.shape[1] for scale in layout.scales)
        assert 0 <= variant.prefix_tokens < tokens.shape[1]
        beyond = {path.format(block=layout.num_blocks) for path in layout.mlp.paths}
        more = beyond & {name for name, _ in adapter.network.named_modules()}
        assert more == set(), f"num_blocks is {layout.num_blocks}, and the network has these, too"

    def test_law_9_it_matches_its_own_networks_alone(self, adapter: Adapter) -> None:
        """What it takes for its own is wrapped, and would give wrong numbers."""
        assert type(adapter).matches(adapter.network), "its own network is not matched"
        others = {type(one).__name__: type(adapter).matches(one) for one in strangers()}
        taken = [name for name, matched in others.items() if matched]
        assert taken == [], "matches takes what has parts of usual names, and no more, for its own"

    def test_law_9_its_variants_are_described(self, adapter: Adapter) -> None:
        """Each under its own name, of its family, with sizes that there can be."""
        variants = type(adapter).variants()
        assert all(isinstance(variant, Variant) for variant in variants.values())
        for name, variant in variants.items():
            assert (variant.name, variant.family) == (name, adapter.name)
            sizes = (variant.blocks, variant.neurons, variant.parameters, variant.resolution)
            assert min(sizes) > 0 <= variant.prefix_tokens, name
