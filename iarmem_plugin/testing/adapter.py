"""What every adapter must do, tried on a tiny model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iarmem_plugin.errors import NonFiniteLogitsError
from iarmem_plugin.interfaces import Adapter, Condition, Sampling, Site
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.neurons.slices import check_maps
from iarmem_plugin.testing.laws import NEAR_TIES, AdapterLaws
from iarmem_plugin.testing.passes import misses, unlike


class AdapterTests(AdapterLaws):
    """Subclass it and give the fixture `adapter`: a tiny model in float32 on the CPU."""

    images = 3

    @pytest.fixture
    def adapter(self) -> Adapter:
        """Return the adapter under test."""
        raise NotImplementedError("give the fixture `adapter`")

    @pytest.fixture
    def tokens(self, adapter: Adapter) -> Tensor:
        """Return the tokens of random images."""
        side = adapter.variant.resolution
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return adapter.tokenize(torch.rand(self.images, 3, side, side, generator=generator))

    @pytest.fixture
    def condition(self, adapter: Adapter) -> Condition:
        """Return what the model is told of each image: its first two classes, and a caption."""
        text = [f"picture {number}" for number in range(self.images)]
        return Condition.of(
            torch.arange(self.images) % min(2, adapter.variant.num_classes), text=text
        )

    @pytest.fixture
    def weights(self) -> Path | None:
        """Return a file of the transformer's weights; None where the adapter exports nothing."""
        return None

    def test_a_checkpoint_is_the_network_on_the_tensors_of_its_file(
        self, adapter: Adapter, weights: Path | None
    ) -> None:
        """An edit of the network is one of the content, and the file stays as it is."""
        if weights is None:
            return
        name = adapter.name if adapter.infers_sizes else adapter.variant.name
        before = weights.read_bytes()
        found = type(adapter).checkpoint(name, weights)
        assert found.layout == adapter.layout
        assert list(found.state) == list(found.network.state_dict())
        key = f"{found.layout.mlp.first_read.format(block=0)}.weight"
        weight = found.network.get_parameter(key)
        with torch.no_grad():
            weight.zero_()
        assert not found.state[key].any(), f"{key} of the state is another tensor"
        held = [one for one in tensors_in(found.content) if one is found.state[key]]
        assert len(held) == 1, f"{key} of the state is not in the content"
        assert weights.read_bytes() == before, "the file was changed"
        assert found.facts["sha256"] == hashlib.sha256(before).hexdigest()

    def test_the_layout_names_modules_of_the_stated_sizes(self, adapter: Adapter) -> None:
        """Every map into and out of the neurons is there, and has a row or column for each."""
        layout = adapter.layout
        check_maps(adapter.network, layout)
        assert "{block}" in str(layout.mlp.site)
        assert (layout.num_blocks, layout.neurons_per_block) == (
            adapter.variant.blocks,
            adapter.variant.neurons,
        )

    def test_what_is_captured_equals_plain_pytorch(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """The mean over a scale's tokens of the absolute activation, bit for bit."""
        expected = captured_by_hooks(adapter, tokens, condition)
        assert torch.equal(captured(adapter, tokens, condition), expected)

    def test_the_neurons_are_what_the_outgoing_map_reads(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Wherever the layout's site is, the same numbers are there."""
        layout = adapter.layout
        found = captured_by_hooks(adapter, tokens, condition)
        read = captured_by_hooks(adapter, tokens, condition, Site(layout.mlp.writes.path, "input"))
        alike = found.shape == read.shape and torch.allclose(found, read, rtol=1e-3, atol=1e-5)
        assert alike, f"{layout.mlp.site} holds other numbers than {layout.mlp.writes.path} reads"

    def test_two_captures_of_one_batch_are_identical(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """No label is dropped, and nothing is drawn at random."""
        first, second = (captured(adapter, tokens, condition) for _ in range(2))
        assert torch.equal(first, second)

    def test_no_class_is_a_condition_of_its_own(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Where an adapter takes it: other predictions than any class's, whatever that was."""
        if not adapter.without_class:
            return
        untold, classes = condition.without_class(), torch.ones_like(condition.label)
        found = predicted(adapter, tokens, untold)
        assert found.isfinite().any()
        for label in range(min(adapter.variant.num_classes, 10)):
            told = Condition(classes * label, condition.image, condition.text)
            assert not torch.equal(found, predicted(adapter, tokens, told)), f"class {label}"

    def test_a_captured_neuron_acts_on_the_output(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Scaling what is captured changes what is predicted: the path is causal."""
        before = predicted(adapter, tokens, condition)
        with hooked(adapter, 0, lambda values: values * 3):
            assert not torch.equal(predicted(adapter, tokens, condition), before)

    def test_zeros_beside_the_class_change_nothing(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Neither predictions nor completions; and no hook stays."""
        zeros, before = beside_the_class(adapter, self.images, 0.0), snapshot(adapter)
        plain, added = (answers(adapter, tokens, condition, one) for one in (None, zeros))
        torch.testing.assert_close(added[0], plain[0], rtol=1e-3, atol=1e-4)
        assert torch.equal(added[1], plain[1])
        assert all(same(value, before[name]) for name, value in snapshot(adapter).items())

    def test_a_vector_beside_the_class_acts_on_its_own_image_alone(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Also where images are of one class, and no less in completions than in passes."""
        one_class = replace(condition, label=torch.zeros_like(condition.label))
        vectors = beside_the_class(adapter, self.images, 3.0)
        for row in range(self.images):
            own = torch.zeros_like(vectors)
            own[row] = vectors[row]
            plain, added = (answers(adapter, tokens, one_class, one) for one in (None, own))
            others = [one for one in range(self.images) if one != row]
            torch.testing.assert_close(added[0][others], plain[0][others], rtol=1e-3, atol=1e-4)
            assert torch.equal(added[1][others], plain[1][others])
            moved = (added[0][row] - plain[0][row]).nan_to_num().abs().max()  # of -inf, masked
            assert moved > 1e-3, f"image {row} is predicted as without its vector"
        with wrapped(adapter) as model, model.borrowed(), adapter.condition_embedding(vectors):
            share = misses(model, tokens[:, :0], one_class)
        assert share <= NEAR_TIES, f"completed otherwise than predicted: {unlike(share, 0)}"

    def test_gradients_arrive_at_a_vector_beside_the_class(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Those of an image's own predictions, and of no other's."""
        vectors = beside_the_class(adapter, self.images, 1.0).requires_grad_()
        with wrapped(adapter) as model, model.borrowed(), torch.enable_grad():
            with adapter.condition_embedding(vectors):
                of_last = model.logits(tokens, condition)[-1].log_softmax(-1)
            true = tokens[-1].long().unsqueeze(-1)
            (found,) = torch.autograd.grad(of_last.gather(-1, true).sum(), vectors)
        assert bool(found.isfinite().all())
        assert bool(found[-1].any()), "no gradient reaches the vector"
        assert not bool(found[:-1].any()), "other images' vectors have a part in it"

    def test_a_full_prefix_comes_back(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Nothing is left to complete."""
        with wrapped(adapter) as model, model.borrowed():
            completed = model.complete(tokens, condition, Sampling())
        assert torch.equal(completed, tokens)

    def test_an_empty_prefix_is_generation(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """All tokens are drawn, the same ones for the same seed."""
        sampling = Sampling(greedy=False, seed=5)
        empty = tokens[:, :0]
        with wrapped(adapter) as model, model.borrowed():
            first, second = (model.complete(empty, condition, sampling) for _ in range(2))
        assert first.shape == tokens.shape
        assert torch.equal(first, second)

    def test_an_image_with_a_seed_of_its_own_is_drawn_alike_in_any_batch(
        self, adapter: Adapter, tokens: Tensor, condition: Condition
    ) -> None:
        """Draws of other images leave its tokens alone; guidance or not."""
        seeds = tuple(range(self.images))
        together = Sampling(greedy=False, guidance=2.0, seed=seeds)
        alone = Sampling(greedy=False, guidance=2.0, seed=seeds[-1:])
        empty = tokens[:, :0]
        with wrapped(adapter) as model, model.borrowed():
            expected = model.complete(empty, condition, together)[-1:]
            assert torch.equal(model.complete(empty[-1:], condition[-1:], alone), expected)

    @pytest.mark.parametrize("greedy", [True, False])
    def test_logits_that_are_not_finite_choose_no_token(
        self, adapter: Adapter, tokens: Tensor, condition: Condition, greedy: bool
    ) -> None:
        """The likeliest of NaN is some token, too: the image would count as not extracted."""
        layout = adapter.layout
        fc2 = adapter.network.get_submodule(
            layout.mlp.writes.path.format(block=layout.num_blocks - 1)
        )
        weight = fc2.get_parameter("weight")
        before = weight.detach().clone()
        sampling = Sampling(greedy=greedy, seed=tuple(range(self.images)))
        with torch.no_grad():
            weight.fill_(torch.nan)
        try:
            with wrapped(adapter) as model, model.borrowed(), pytest.raises(NonFiniteLogitsError):
                model.complete(tokens[:, :0], condition, sampling)
        finally:
            with torch.no_grad():
                weight.copy_(before)

    @pytest.mark.parametrize("call", ["capture", "complete", "decode"])
    @pytest.mark.parametrize("training", [True, False])
    def test_the_model_comes_back_as_it_was(
        self, adapter: Adapter, tokens: Tensor, condition: Condition, call: str, training: bool
    ) -> None:
        """Weights, buffers, hooks, mode, random state, and no shadowed `forward`."""
        adapter.network.train(training)
        before = snapshot(adapter)
        with wrapped(adapter) as model, model.borrowed():
            use(model, call, tokens, condition)
        after = snapshot(adapter)
        assert after.keys() == before.keys()
        assert [name for name, value in before.items() if not same(value, after[name])] == []


def beside_the_class(adapter: Adapter, images: int, size: float) -> Tensor:
    """Return random vectors to add to class embeddings, if there are any; else skip the test."""
    if not adapter.condition_width:
        pytest.skip("the adapter says of no embedding of a class")
    generator = torch.Generator().manual_seed(0)
    return size * torch.randn(images, adapter.condition_width, generator=generator)


def answers(
    adapter: Adapter, tokens: Tensor, condition: Condition, added: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the logits of tokens, and a greedy completion of none; with vectors, or without."""
    beside = nullcontext() if added is None else adapter.condition_embedding(added)
    with wrapped(adapter) as model, model.borrowed(), beside:
        return (
            model.logits(tokens, condition),
            model.complete(tokens[:, :0], condition, Sampling()),
        )


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield every tensor in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(one)


def use(model: ImageARModel, call: str, tokens: Tensor, condition: Condition) -> None:
    """Make one call on a wrapped model."""
    if call == "capture":
        model.read_neurons(model.adapter.teacher_forced(tokens, condition))
    elif call == "complete":
        model.complete(tokens[:, :0], condition, Sampling(greedy=False, seed=1))
    else:
        model.decode(tokens)


def captured(adapter: Adapter, tokens: Tensor, condition: Condition) -> Tensor:
    """Capture through nnsight: (image, block, scale, neuron)."""
    with wrapped(adapter) as model, model.borrowed():
        return model.read_neurons(adapter.teacher_forced(tokens, condition)).clone()


def captured_by_hooks(
    adapter: Adapter, tokens: Tensor, condition: Condition, site: Site | None = None
) -> Tensor:
    """Capture through plain torch hooks, at the layout's site: (image, block, scale, neuron)."""
    found: list[Tensor] = []

    def keep(values: Tensor) -> Tensor:
        found.append(values)
        return values

    layout = adapter.layout
    with ExitStack() as stack:
        for block in range(layout.num_blocks):
            stack.enter_context(hooked(adapter, block, keep, site))
        predicted(adapter, tokens, condition)
    positions = [list(layout.positions(scale)) for scale in layout.scales]
    means = [[values[:, one].abs().mean(1) for one in positions] for values in found]
    return torch.stack([torch.stack(row, 1) for row in means], 1)


def predicted(adapter: Adapter, tokens: Tensor, condition: Condition) -> Tensor:
    """Run the plain network on ground-truth tokens, and return the logits of each."""
    inputs = adapter.teacher_forced(tokens, condition)
    mode = adapter.network.training
    adapter.network.eval()
    try:
        with adapter.prepared(), torch.inference_mode():
            output = adapter.network(*inputs.args, **inputs.kwargs)
    finally:
        adapter.network.train(mode)
    return adapter.logits(output, tokens)


@contextmanager
def hooked(
    adapter: Adapter, block: int, change: Callable[[Tensor], Tensor], site: Site | None = None
) -> Iterator[None]:
    """Change the neurons of a block for a while, by a hook of torch."""
    site = site or adapter.layout.mlp.site
    module = adapter.network.get_submodule(site.path.format(block=block))
    if site.side == "input":
        handle = module.register_forward_pre_hook(
            lambda _module, inputs: (change(inputs[0]), *inputs[1:])
        )
    else:
        handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def snapshot(adapter: Adapter) -> dict[str, Any]:
    """Return everything about the model that must not change, by name."""
    found: dict[str, Any] = {"random state": torch.get_rng_state()}
    found |= {"Python's": random.getstate(), "numpy's": str(np.random.get_state())}
    for part, root in adapter.modules.items():
        tensors = [*root.named_parameters(), *root.named_buffers()]
        found |= {f"{part} {name}": tensor.detach().clone() for name, tensor in tensors}
        found |= {f"{part} {name} grad": tensor.requires_grad for name, tensor in tensors}
        for name, module in root.named_modules():
            hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
            found[f"{part} {name} mode"] = module.training
            found[f"{part} {name} hooks"] = [list(one) for one in hooks]
            found[f"{part} {name} own names"] = sorted(module.__dict__)
    return found


def same(first: Any, second: Any) -> bool:
    """Compare two values of a snapshot, tensors bit for bit."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    return bool(first == second)
