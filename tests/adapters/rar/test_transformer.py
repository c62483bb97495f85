from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_adapters.rar.transformer import RARConfig, RARTransformer

LABELS = torch.tensor([0, 4, 9])
CONFIG = RARConfig(3, 32, 4, 48, num_tokens=16, vocab_size=64, num_classes=9)


@pytest.fixture(scope="module")
def small(fill: ModuleType) -> RARTransformer:
    """A transformer for sixteen tokens; do not change it."""
    return fill.fill_state_dict(RARTransformer(CONFIG).eval())


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("training", [False, True])
def test_passes_are_bit_equal_and_draw_nothing_in_either_mode(
    training: bool, small: RARTransformer, tokens: Tensor
) -> None:
    before = torch.get_rng_state()
    small.train(training)
    with torch.no_grad():
        first, second = (small(LABELS, tokens) for _ in range(2))
    small.eval()
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_logits_depend_on_earlier_tokens_alone(small: RARTransformer, tokens: Tensor) -> None:
    for changed in (0, 7, 15):
        others = tokens.clone()
        others[:, changed] = (others[:, changed] + 7) % 64
        with torch.no_grad():
            first, second = small(LABELS, tokens), small(LABELS, others)
        same = (first == second).flatten(2).all(2)
        assert same[:, : changed + 1].all()  # those that predict tokens up to the changed one
        assert not same[:, changed + 1 :].any()


@pytest.mark.parametrize("known", [0, 1, 9])
def test_a_prefix_gives_the_first_of_the_logits(
    known: int, small: RARTransformer, tokens: Tensor
) -> None:
    with torch.no_grad():
        whole, part = small(LABELS, tokens), small(LABELS, tokens[:, :known])
    assert part.shape == (3, known + 1, 64)
    # float32 rounding of sums in another order
    torch.testing.assert_close(part, whole[:, : known + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("labels", [[5, 5, 5], [9, 2, 9], [8, 1, 3]])
def test_classes_are_modulated_once_each_and_change_no_image(
    labels: list[int], small: RARTransformer, tokens: Tensor
) -> None:
    rows: list[int] = []
    first = small.blocks[0].adaLN_modulation
    hook = first.register_forward_hook(lambda _m, _i, out: rows.append(len(out)))
    with torch.no_grad():
        together = small(torch.tensor(labels), tokens)
        hook.remove()
        alone = [small(torch.tensor(labels[i : i + 1]), tokens[i : i + 1]) for i in range(3)]
    assert rows == [len(set(labels))]
    # float32 rounding of sums in another order
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def by_hand(model: RARTransformer, label: int, tokens: list[int]) -> tuple[Tensor, list[Tensor]]:
    """Return the last element's logits and its activations in each block, all written out.

    In float64, element by element, from the weights alone.
    """
    weights = {name: value.double() for name, value in model.state_dict().items()}
    config, width = model.config, model.config.width
    classes = weights["embeddings.weight"][config.vocab_size + 1 :]
    content = [weights["cls_token"][0, 0], classes[label]]
    content += [weights["embeddings.weight"][token] for token in tokens]
    states, conditions = [], []
    for index, value in enumerate(content):
        own = weights["pos_embed"][0, index]
        target = weights["target_aware_pos_embed"][0, index + 1]
        aimed = 1 <= index <= config.num_tokens
        states.append(value + own + target if aimed else value + own)
        conditions.append(F.silu(classes[label] + weights["timesteps_embeddings"][0, index]))
    activations = []
    for block in range(config.depth):
        own = {
            name.removeprefix(f"blocks.{block}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{block}.")
        }
        parts = [
            linear(own, "adaLN_modulation.1", condition).view(6, width) for condition in conditions
        ]
        normed = [
            layer_norm(own, "norm1", x) * (1 + m[1]) + m[0]
            for x, m in zip(states, parts, strict=True)
        ]
        read = attend(own, normed, config.heads)
        states = [x + m[2] * r for x, m, r in zip(states, parts, read, strict=True)]
        neurons = []
        for place, (x, m) in enumerate(zip(states, parts, strict=True)):
            hidden = linear(own, "mlp.fc1", layer_norm(own, "norm2", x) * (1 + m[4]) + m[3])
            neurons.append(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
            states[place] = x + m[5] * linear(own, "mlp.fc2", neurons[-1])
        activations.append(neurons[-1])
    scale, shift = linear(weights, "adaln_before_head.adaLN_modulation.1", conditions[-1]).chunk(2)
    last = F.layer_norm(states[-1], (width,), eps=1e-6) * (1 + scale) + shift
    return linear(weights, "lm_head", last), activations


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def layer_norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def attend(weights: dict[str, Tensor], elements: list[Tensor], heads: int) -> list[Tensor]:
    split = [linear(weights, "attn.qkv", x).view(3, heads, -1) for x in elements]
    queries = [[layer_norm(weights, "attn.q_norm", x) for x in one[0]] for one in split]
    keys = [[layer_norm(weights, "attn.k_norm", x) for x in one[1]] for one in split]
    read = []
    for place, query in enumerate(queries):
        parts = []
        for head in range(heads):
            seen = range(place + 1)
            scores = torch.stack([query[head] @ keys[other][head] for other in seen])
            weight = (scores / math.sqrt(len(query[head]))).softmax(0)
            parts.append(sum(weight[other] * split[other][2, head] for other in seen))
        read.append(linear(weights, "attn.proj", torch.cat(parts)))
    return read


@pytest.mark.parametrize("known", [0, 3, 15, 16])
def test_logits_and_activations_equal_the_formulas_written_out(
    known: int, small: RARTransformer, tokens: Tensor
) -> None:
    seen: list[Tensor] = []
    hooks = [
        block.mlp.act.register_forward_hook(lambda _m, _i, out: seen.append(out))
        for block in small.blocks
    ]
    with torch.no_grad():
        logits = small(LABELS, tokens)
    for hook in hooks:
        hook.remove()
    for image in range(3):
        expected, activations = by_hand(small, int(LABELS[image]), tokens[image, :known].tolist())
        # float32 rounding against float64
        torch.testing.assert_close(logits[image, known].double(), expected, rtol=0, atol=1e-4)
        actual = torch.stack([block[image, known + 1] for block in seen]).double()
        torch.testing.assert_close(actual, torch.stack(activations), rtol=0, atol=1e-4)


def test_more_tokens_than_an_image_has_are_refused(small: RARTransformer) -> None:
    with pytest.raises(ValueError, match="got 17 tokens an image, expected at most 16"):
        small(LABELS, torch.zeros(3, 17, dtype=torch.int64))


def test_every_weight_that_an_image_needs_gets_a_gradient_from_a_fresh_model() -> None:
    model = RARTransformer(RARConfig(2, 16, 2, 32, num_tokens=4, vocab_size=32, num_classes=9))
    logits = model(torch.tensor([1, 9]), torch.randint(0, 32, (2, 4)))
    logits.square().mean().backward()
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert dead == []


def test_fresh_model_starts_near_the_uniform_distribution() -> None:
    model = RARTransformer(RARConfig(4, 64, 4, 256, num_tokens=16, vocab_size=512))
    tokens = torch.randint(0, 512, (2, 16))
    with torch.no_grad():
        logits = model(torch.tensor([0, 1]), tokens)[:, :-1]
    # cross entropy of uniform guessing is ln 512 = 6.24
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    assert abs(loss.item() - math.log(512)) < 0.7


def test_half_precision_gives_logits_in_float32(fill: ModuleType, tokens: Tensor) -> None:
    model = fill.fill_state_dict(RARTransformer(CONFIG).eval()).bfloat16()
    with torch.no_grad():
        assert model(LABELS, tokens).dtype == torch.float32


def test_sizes_that_make_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="got width 10, heads 3"):
        RARTransformer(RARConfig(1, 10, 3, 16))
    with pytest.raises(ValueError, match="num_tokens must be 1 or more, got 0"):
        RARTransformer(RARConfig(1, 8, 2, 16, num_tokens=0))
