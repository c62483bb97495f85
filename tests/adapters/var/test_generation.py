from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from iarmem_adapters.var.attention import KeyValueCache
from iarmem_adapters.var.generation import complete
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARTransformer
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.models.sampling import choose

Pair = tuple[VARTransformer, MultiScaleVQVAE]
LABELS = torch.tensor([0, 4, 8])
GREEDY = Sampling()
RANDOM = Sampling(guidance=1.5, temperature=1.2, top_k=100, top_p=0.9, greedy=False, seed=5)


def uncached(pair: Pair, prefix: Tensor, labels: Tensor, sampling: Sampling) -> Tensor:
    """Choose scale by scale from full teacher-forced passes, later tokens being anything."""
    transformer, tokenizer = pair
    edges = (0, *transformer.config.ends)
    generator = torch.Generator().manual_seed(sampling.seed or 0)
    tokens = torch.zeros(len(labels), edges[-1], dtype=torch.int64)
    tokens[:, : prefix.shape[1]] = prefix
    nobody = torch.full_like(labels, transformer.config.num_classes)
    for scale in range(len(edges) - 1):
        begin, end = edges[scale], edges[scale + 1]
        if begin < prefix.shape[1]:
            continue
        with torch.no_grad():
            x_in = tokenizer.teacher_input(tokens)
            with_class = transformer(labels, x_in)[:, begin:end]
            without = transformer(nobody, x_in)[:, begin:end]
        strength = sampling.guidance * scale / (len(edges) - 2)
        logits = (1 + strength) * with_class - strength * without
        tokens[:, begin:end] = choose(logits, sampling, generator)
    return tokens


@pytest.mark.parametrize("sampling", [GREEDY, replace(GREEDY, guidance=2.0), RANDOM])
@pytest.mark.parametrize("known", [0, 1, 3, 5])
def test_cached_completion_equals_full_passes_without_a_cache(
    known: int, sampling: Sampling, small_var: Pair, small_tokens: Tensor
) -> None:
    prefix = small_tokens[:, : (0, *small_var[0].config.ends)[known]]
    expected = uncached(small_var, prefix, LABELS, sampling)
    assert torch.equal(expected, complete(*small_var, prefix, LABELS, sampling))


def test_completion_starts_with_its_prefix_and_a_full_prefix_is_all(
    small_var: Pair, small_tokens: Tensor
) -> None:
    for end in small_var[0].config.ends:
        tokens = complete(*small_var, small_tokens[:, :end], LABELS, GREEDY)
        assert tokens.shape == small_tokens.shape
        assert tokens.dtype == torch.int64
        assert torch.equal(small_tokens[:, :end], tokens[:, :end])


def test_completion_of_an_image_does_not_depend_on_the_others(
    small_var: Pair, small_tokens: Tensor
) -> None:
    prefix = small_tokens[:, :14]
    together = complete(*small_var, prefix, LABELS, GREEDY)
    alone = [complete(*small_var, prefix[i : i + 1], LABELS[i : i + 1], GREEDY) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_prefix_that_ends_inside_a_scale_is_refused(small_var: Pair, small_tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="got 3 tokens, expected one of 0, 1, 5, 14, 30, 66, 130"):
        complete(*small_var, small_tokens[:, :3], LABELS, GREEDY)


def test_tokenizer_of_other_scales_is_refused(small_var: Pair) -> None:
    other = MultiScaleVQVAE(VQVAEConfig((1, 2), ch=8, ch_mult=(1, 1)))
    with pytest.raises(ValueError, match=r"transformer has the scales .* tokenizer \(1, 2\)"):
        complete(small_var[0], other, torch.empty(3, 0, dtype=torch.int64), LABELS, GREEDY)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(temperature=0.0), "temperature must be positive, got 0.0"),
        (Sampling(top_k=-1), "got -1, 0.0"),
        (Sampling(top_p=1.5), "got 0, 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(
    sampling: Sampling, message: str, small_var: Pair, small_tokens: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        complete(*small_var, small_tokens[:, :5], LABELS, sampling)


def test_same_seed_same_tokens_and_the_global_generator_is_left_alone(
    small_var: Pair, small_tokens: Tensor
) -> None:
    before = torch.get_rng_state()
    first, second, third = (
        complete(*small_var, small_tokens[:, :5], LABELS, replace(RANDOM, seed=seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(before, torch.get_rng_state())


def test_no_seed_draws_from_the_global_generator(small_var: Pair, small_tokens: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = complete(*small_var, small_tokens[:, :5], LABELS, replace(RANDOM, seed=1))
        actual = complete(*small_var, small_tokens[:, :5], LABELS, replace(RANDOM, seed=None))
    assert torch.equal(expected, actual)


@pytest.fixture
def visits(small_var: Pair) -> Iterator[list[tuple[str, int, int]]]:
    """Name, rows and tokens of every call of block 1's MLP modules, in order."""
    seen: list[tuple[str, int, int]] = []

    def note(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(
            lambda _m, _i, out: seen.append((name, out.shape[0], out.shape[1]))
        )

    mlp = small_var[0].blocks[1].ffn
    hooks = [note(name, mlp.get_submodule(name)) for name in ("fc1", "act", "fc2")]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("known", "tokens"),
    [(0, [1, 4, 9, 16, 36, 64]), (1, [1, 4, 9, 16, 36, 64]), (3, [14, 16, 36, 64]), (6, [])],
)
def test_every_pass_visits_the_mlp_modules_in_order_with_the_tokens_of_a_scale(
    known: int,
    tokens: list[int],
    small_var: Pair,
    small_tokens: Tensor,
    visits: list[tuple[str, int, int]],
) -> None:
    prefix = small_tokens[:, : (0, *small_var[0].config.ends)[known]]
    complete(*small_var, prefix, LABELS, GREEDY)
    assert visits == [(name, 3, count) for count in tokens for name in ("fc1", "act", "fc2")]


def test_guidance_doubles_the_rows(
    small_var: Pair, small_tokens: Tensor, visits: list[tuple[str, int, int]]
) -> None:
    complete(*small_var, small_tokens[:, :66], LABELS, replace(GREEDY, guidance=1.0))
    assert [rows for _, rows, _ in visits] == [6] * 6


def test_an_exception_in_the_middle_leaves_nothing_behind(
    small_var: Pair, small_tokens: Tensor
) -> None:
    prefix, calls = small_tokens[:, :5], []

    def fail(_module: nn.Module, _inputs: object, _output: Tensor) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("stop here")

    expected = complete(*small_var, prefix, LABELS, GREEDY)
    before = {name: dict(vars(module)) for name, module in small_var[0].named_modules()}
    hook = small_var[0].blocks[0].ffn.act.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop here"):
        complete(*small_var, prefix, LABELS, GREEDY)
    hook.remove()
    after = {name: dict(vars(module)) for name, module in small_var[0].named_modules()}
    assert before.keys() == after.keys()
    assert all(before[name].keys() == after[name].keys() for name in before)
    assert torch.equal(expected, complete(*small_var, prefix, LABELS, GREEDY))


def test_greedy_takes_the_likeliest_token() -> None:
    logits = torch.tensor([[[0.0, 3.0, 1.0], [2.0, 2.0, 1.0]]])
    assert choose(logits, GREEDY, None).tolist() == [[1, 0]]


def drawn(sampling: Sampling) -> set[int]:
    """Which of four tokens, of probabilities 0.4, 0.3, 0.2, 0.1, are drawn in 400 draws."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(1, 400, 4)
    tokens = choose(logits, sampling, torch.Generator().manual_seed(0))
    return set(tokens.flatten().tolist())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.65}, {0, 1}),  # 0.1 + 0.2 is at most 1 - 0.65 = 0.35, 0.6 is not
        ({"top_p": 0.05}, {0}),  # the likeliest always stays
        ({"top_k": 3, "top_p": 0.7}, {0, 1}),  # of 4/9, 3/9, 2/9: the last is at most 0.3
        ({"temperature": 0.08}, {0, 1}),  # the odds 4:3 become 36:1, 4:2 become 5793:1
    ],
)
def test_only_the_tokens_that_the_settings_leave_are_drawn(
    settings: dict[str, float], expected: set[int]
) -> None:
    assert drawn(replace(Sampling(greedy=False), **settings)) == expected


def test_cache_refuses_more_tokens_than_it_was_made_for() -> None:
    cache = KeyValueCache(3)
    two = torch.ones(1, 1, 2, 4)
    assert cache.extend(two, two)[0].shape == (1, 1, 2, 4)
    with pytest.raises(ValueError, match="made for 3 tokens, got 4"):
        cache.extend(two, two)
