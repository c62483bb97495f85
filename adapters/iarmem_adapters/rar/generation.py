"""Completion of token prefixes, token by token, with a key/value cache."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.models.sampling import (
    Draws,
    LogitsWatch,
    check_sampling,
    choose,
    guided,
    seeded_generator,
)

from .attention import KeyValueCache
from .transformer import RARTransformer, expand_rows

ROWS_AHEAD = 128
"""Rows (conditions times elements) for which modulations are computed in one product.

Each such product reads weights as large as a block's attention and half its MLP; so many rows
share one reading, and more would cost memory for nothing.
"""


def complete(
    transformer: RARTransformer,
    prefix: Int[Tensor, "image prefix"],
    labels: Int[Tensor, " image"],
    sampling: Sampling,
) -> Int[Tensor, "image token"]:
    """Return each prefix with all the later tokens chosen by the transformer.

    The prefix is read in one pass; then each token but the first new one takes one.
    All passes are calls of the blocks' modules, and leave nothing behind in them.
    Where `sampling.guidance` is 0, guidance is off and costs nothing.

    Args:
        transformer: gives the logits.
        prefix: the first tokens of each image; 0 tokens to generate freely.
        labels: class of each image; `num_classes` means no class.
        sampling: how tokens are chosen.

    Returns:
        int64 tokens of each image, the prefix first.

    Raises:
        InputError: the prefix is longer than an image, or the sampling settings are out of range.
        NonFiniteLogitsError: tokens would be chosen from logits that are not finite.

    Reference: arXiv 2411.00776; guidance as in its released code.
    """
    known, total = prefix.shape[1], transformer.config.num_tokens
    check_prefix(prefix, total)
    check_sampling(sampling)
    tokens = prefix.new_empty((prefix.shape[0], total))
    tokens[:, :known] = prefix
    if known < total:
        with torch.no_grad():
            run = _Run(transformer, labels, sampling, known)
            run.fill(tokens, known)
            run.watch.check()
    return tokens


def guidance_weights(tokens: int, guidance: float, power: float) -> Float[Tensor, " token"]:
    """Return how strongly each token is guided.

    The strength goes from 1 at the first token to nearly `guidance` at the last one along half
    a cosine of (place / tokens) ** power; with power 0 it is `guidance` everywhere.

    Computed in float32, 0 ** 0 being 1.

    Reference: arXiv 2411.00776; guidance as in its released code.
    """
    places = (torch.arange(tokens, dtype=torch.float32) / tokens) ** power
    return (guidance - 1) * (1 - torch.cos(math.pi * places)) / 2 + 1


class _Run:
    """The state of one completion: caches, what does not change, the random generator."""

    def __init__(
        self,
        transformer: RARTransformer,
        labels: Int[Tensor, " image"],
        sampling: Sampling,
        known: int,
    ) -> None:
        config, device = transformer.config, labels.device
        self.transformer, self.sampling = transformer, sampling
        self.watch = LogitsWatch(sampling, known)
        self.guided = sampling.guidance != 0
        self.generator = published_generator(sampling, labels)
        self.weights = guidance_weights(
            config.num_tokens, sampling.guidance, sampling.guidance_power
        ).to(device)
        if self.guided:
            labels = torch.cat((labels, torch.full_like(labels, config.num_classes)))
        self.every, (self.labels, self.rows) = labels, transformer.distinct(labels)
        self.positions = transformer.positions()
        self.caches = [KeyValueCache(config.num_tokens + 1) for _ in transformer.blocks]

    def fill(self, tokens: Int[Tensor, "image token"], known: int) -> None:
        """Choose all tokens after the first `known`, which stand in `tokens` already."""
        tokens[:, known] = self._read(tokens[:, :known])
        last = tokens.shape[1] + 1
        span = max(1, ROWS_AHEAD // len(self.labels))
        for begin in range(known + 2, last, span):
            end = min(begin + span, last)
            *blocks, head = self._ahead(begin, end)
            for element in range(begin, end):
                now = slice(element - begin, element - begin + 1)
                x = self._embed(tokens[:, element - 2 : element - 1], element)
                modulations = (expand_rows(one[:, now], self.rows) for one in blocks)
                x = self.transformer.run_blocks(x, modulations, self.caches)
                last_norm = expand_rows(head[:, now], self.rows)
                tokens[:, element - 1] = self._choose(x, last_norm, element - 1)

    def _read(self, prefix: Int[Tensor, "image prefix"]) -> Int[Tensor, " image"]:
        """Fill the caches from the prefix in one pass, and choose the token after it."""
        known = torch.cat((prefix, prefix)) if self.guided else prefix
        x = self.transformer.embed(self.every, known)
        condition = self.transformer.condition(self.labels, 0, x.shape[1])
        modulations = (
            expand_rows(one, self.rows) for one in self.transformer.modulations(condition)
        )
        x = self.transformer.run_blocks(x, modulations, self.caches)
        head = expand_rows(self.transformer.head_modulation(condition[:, -1:]), self.rows)
        return self._choose(x[:, -1:], head, prefix.shape[1])

    def _ahead(self, begin: int, end: int) -> list[Tensor]:
        """Return each class's modulations of all blocks and of the head, for some elements."""
        condition = self.transformer.condition(self.labels, begin, end)
        head = self.transformer.head_modulation(condition)
        return [*self.transformer.modulations(condition), head]

    def _embed(self, chosen: Int[Tensor, "image 1"], element: int) -> Tensor:
        x: Tensor = self.transformer.embeddings(chosen)
        x = x + self.positions[:, element : element + 1]
        return torch.cat((x, x)) if self.guided else x

    def _choose(self, x: Tensor, head: Tensor, token: int) -> Int[Tensor, " image"]:
        logits = self.transformer.logits(x, head)
        if self.guided:
            logits = guided(logits, self.weights[token], as_sum=True)
        self.watch.see(logits)
        return choose(logits, self.sampling, self.generator)[:, 0]


def published_generator(sampling: Sampling, labels: Tensor) -> torch.Generator | Draws | None:
    """Return where random numbers come from, past the one that the published sampler skips.

    That sampler draws one number an image before the first token, to drop labels in training.
    """
    generator = seeded_generator(sampling, labels.device)
    if not sampling.greedy and not isinstance(generator, Draws):
        torch.rand(labels.shape, generator=generator, device=labels.device)
    return generator


def check_prefix(prefix: Int[Tensor, "image prefix"], num_tokens: int) -> None:
    """Refuse a prefix that is longer than an image.

    Raises:
        InputError: it has more than `num_tokens` tokens.
    """
    if prefix.shape[1] > num_tokens:
        raise InputError(f"got a prefix of {prefix.shape[1]} tokens, expected at most {num_tokens}")
