from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import iarmem_adapters.rar.generation as generation
from iarmem_adapters.rar.attention import KeyValueCache
from iarmem_adapters.rar.generation import complete, guidance_weights
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_plugin.interfaces import Sampling

LABELS = torch.tensor([0, 4, 8])
GREEDY = Sampling()
GUIDED = Sampling(guidance=6.0, guidance_power=2.0)
RANDOM = Sampling(guidance=3.0, temperature=1.2, greedy=False, seed=5)
NOBODY = 9


@pytest.fixture(scope="module")
def small(fill: ModuleType) -> RARTransformer:
    """A transformer for sixteen tokens of nine classes; do not change it."""
    config = RARConfig(3, 32, 4, 48, num_tokens=16, vocab_size=64, num_classes=NOBODY)
    return fill.fill_state_dict(RARTransformer(config).eval())


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(3))


def uncached(model: RARTransformer, prefix: Tensor, labels: Tensor, sampling: Sampling) -> Tensor:
    """Choose token by token from full passes, by torch.multinomial and the formulas."""
    random = torch.Generator().manual_seed(sampling.seed or 0)
    torch.rand(len(labels), generator=random)  # the published sampler's label dropping
    tokens = prefix
    for step in range(prefix.shape[1], 16):
        with torch.no_grad():
            logits = model(labels, tokens)[:, -1]
            without = model(torch.full_like(labels, NOBODY), tokens)[:, -1]
        if sampling.guidance:
            cosine = math.cos(math.pi * (step / 16) ** sampling.guidance_power)
            strength = (sampling.guidance - 1) * (1 - cosine) / 2 + 1
            logits = without + strength * (logits - without)
        if sampling.greedy:
            chosen = logits.argmax(1, keepdim=True)
        else:
            shares = (logits / sampling.temperature).softmax(1)
            chosen = torch.multinomial(shares, 1, generator=random)
        tokens = torch.cat((tokens, chosen), dim=1)
    return tokens


@pytest.mark.parametrize("sampling", [GREEDY, GUIDED, RANDOM, replace(RANDOM, guidance=0.0)])
@pytest.mark.parametrize("known", [0, 1, 7, 14, 15])
def test_cached_completion_equals_full_passes_without_a_cache(
    known: int, sampling: Sampling, small: RARTransformer, tokens: Tensor
) -> None:
    prefix = tokens[:, :known]
    expected = uncached(small, prefix, LABELS, sampling)
    assert torch.equal(expected, complete(small, prefix, LABELS, sampling))


@pytest.mark.parametrize("sampling", [GREEDY, GUIDED])
@pytest.mark.parametrize("classes", [[5, 5, 5], [4, 0, 4]])
def test_images_of_one_class_share_its_modulations(
    classes: list[int], sampling: Sampling, small: RARTransformer, tokens: Tensor
) -> None:
    rows: list[int] = []
    watched = small.adaln_before_head.adaLN_modulation.register_forward_hook(
        lambda _module, given, _output: rows.append(len(given[0]))
    )
    found = complete(small, tokens[:, :7], torch.tensor(classes), sampling)
    watched.remove()
    assert set(rows) == {len(set(classes)) + (sampling.guidance != 0)}
    assert torch.equal(found, uncached(small, tokens[:, :7], torch.tensor(classes), sampling))


@pytest.mark.parametrize("ahead", [1, 12, 10_000])
def test_how_many_modulations_are_computed_ahead_does_not_matter(
    ahead: int, small: RARTransformer, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = complete(small, tokens[:, :3], LABELS, GUIDED)
    monkeypatch.setattr(generation, "ROWS_AHEAD", ahead)
    assert torch.equal(expected, complete(small, tokens[:, :3], LABELS, GUIDED))


def test_completion_starts_with_its_prefix_and_a_full_prefix_is_all(
    small: RARTransformer, tokens: Tensor
) -> None:
    for known in (0, 5, 16):
        completed = complete(small, tokens[:, :known], LABELS, GREEDY)
        assert completed.shape == tokens.shape
        assert completed.dtype == torch.int64
        assert torch.equal(tokens[:, :known], completed[:, :known])


@pytest.mark.parametrize("sampling", [GREEDY, GUIDED])
def test_completion_of_an_image_does_not_depend_on_the_others(
    sampling: Sampling, small: RARTransformer, tokens: Tensor
) -> None:
    prefix = tokens[:, :5]
    together = complete(small, prefix, LABELS, sampling)
    alone = [complete(small, prefix[i : i + 1], LABELS[i : i + 1], sampling) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_guidance_grows_along_half_a_cosine_from_1_at_the_first_token() -> None:
    # (1 - cos(pi * (k / 4)**1)) / 2 = 0, 0.1464, 0.5, 0.8536; times 10, plus 1
    expected = torch.tensor([1.0, 2.4645, 6.0, 9.5355])
    torch.testing.assert_close(guidance_weights(4, 11.0, 1.0), expected, rtol=0, atol=1e-4)


def test_guidance_of_power_0_is_the_same_at_every_token() -> None:
    assert guidance_weights(4, 11.0, 0.0).tolist() == [11.0] * 4  # 0 ** 0 is 1


def test_same_seed_same_tokens_and_the_global_generator_is_left_alone(
    small: RARTransformer, tokens: Tensor
) -> None:
    before = torch.get_rng_state()
    first, second, third = (
        complete(small, tokens[:, :5], LABELS, replace(RANDOM, seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(before, torch.get_rng_state())


def test_no_seed_draws_from_the_global_generator(small: RARTransformer, tokens: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = complete(small, tokens[:, :5], LABELS, replace(RANDOM, seed=1))
        actual = complete(small, tokens[:, :5], LABELS, replace(RANDOM, seed=None))
    assert torch.equal(expected, actual)


def test_of_one_kept_token_the_likeliest_is_drawn(small: RARTransformer, tokens: Tensor) -> None:
    expected = complete(small, tokens[:, :5], LABELS, GUIDED)
    only = replace(GUIDED, greedy=False, top_k=1)
    assert torch.equal(expected, complete(small, tokens[:, :5], LABELS, only))


@pytest.fixture
def visits(small: RARTransformer) -> Iterator[list[tuple[str, int, int]]]:
    """Name, rows and elements of every call of block 1's MLP modules, in order."""
    seen: list[tuple[str, int, int]] = []

    def note(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(
            lambda _m, _i, out: seen.append((name, out.shape[0], out.shape[1]))
        )

    mlp = small.blocks[1].mlp
    hooks = [note(name, mlp.get_submodule(name)) for name in ("fc1", "act", "fc2")]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("known", "elements"),
    [(0, [2, *[1] * 15]), (1, [3, *[1] * 14]), (14, [16, 1]), (15, [17]), (16, [])],
)
def test_the_prefix_takes_one_pass_and_every_later_token_one(
    known: int,
    elements: list[int],
    small: RARTransformer,
    tokens: Tensor,
    visits: list[tuple[str, int, int]],
) -> None:
    complete(small, tokens[:, :known], LABELS, GREEDY)
    assert visits == [(name, 3, count) for count in elements for name in ("fc1", "act", "fc2")]


def test_guidance_doubles_the_rows(
    small: RARTransformer, tokens: Tensor, visits: list[tuple[str, int, int]]
) -> None:
    complete(small, tokens[:, :14], LABELS, GUIDED)
    assert [rows for _, rows, _ in visits] == [6] * 6


def test_an_exception_in_the_middle_leaves_nothing_behind(
    small: RARTransformer, tokens: Tensor
) -> None:
    prefix, calls = tokens[:, :5], []

    def fail(_module: nn.Module, _inputs: object, _output: Tensor) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("stop here")

    expected = complete(small, prefix, LABELS, GREEDY)
    before = {name: dict(vars(module)) for name, module in small.named_modules()}
    hook = small.blocks[0].mlp.act.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop here"):
        complete(small, prefix, LABELS, GREEDY)
    hook.remove()
    after = {name: dict(vars(module)) for name, module in small.named_modules()}
    assert all(before[name].keys() == after[name].keys() for name in before)
    assert torch.equal(expected, complete(small, prefix, LABELS, GREEDY))


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(temperature=0.0), "temperature must be positive, got 0.0"),
        (Sampling(guidance_power=-1.0), "guidance_power must be 0 or more, got -1.0"),
        (Sampling(top_k=-1), "got -1, 0.0"),
        (Sampling(top_p=1.5), "got 0, 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(
    sampling: Sampling, message: str, small: RARTransformer, tokens: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        complete(small, tokens[:, :5], LABELS, sampling)


def test_a_prefix_longer_than_an_image_is_refused(small: RARTransformer) -> None:
    with pytest.raises(ValueError, match="a prefix of 17 tokens, expected at most 16"):
        complete(small, torch.zeros(3, 17, dtype=torch.int64), LABELS, GREEDY)


def test_cache_takes_a_prefix_and_then_one_element_at_a_time() -> None:
    cache = KeyValueCache(4)
    random = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 1, 1, 4, 3, generator=random)
    cache.extend(keys[:, :, :2], values[:, :, :2])
    seen = cache.extend(keys[:, :, 2:3], values[:, :, 2:3])
    assert torch.equal(seen[0], keys[:, :, :3])
    assert torch.equal(seen[1], values[:, :, :3])


def test_cache_refuses_what_would_be_computed_wrongly() -> None:
    two = torch.ones(1, 1, 2, 4)
    cache = KeyValueCache(9)
    cache.extend(two, two)
    with pytest.raises(ValueError, match="got 2 elements after 2, expected one at a time"):
        cache.extend(two, two)
    with pytest.raises(ValueError, match="made for 1 elements, got 2"):
        KeyValueCache(1).extend(two, two)
