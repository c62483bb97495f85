"""Completion of token prefixes, scale by scale, with a key/value cache."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.models.sampling import (
    LogitsWatch,
    check_sampling,
    choose,
    guided,
    seeded_generator,
)

from .attention import KeyValueCache
from .tokenizer import MultiScaleVQVAE
from .transformer import VARTransformer


def complete(
    transformer: VARTransformer,
    tokenizer: MultiScaleVQVAE,
    prefix: Int[Tensor, "image prefix"],
    labels: Int[Tensor, " image"],
    sampling: Sampling,
) -> Int[Tensor, "image token"]:
    """Return each prefix with all the later scales chosen by the transformer.

    A non-empty prefix is read in one pass; then each later scale takes one.
    All passes are calls of the blocks' modules, and leave nothing behind in them.
    Guidance grows linearly from 0 at the first scale to `sampling.guidance` at the last.

    Args:
        transformer: gives the logits.
        tokenizer: turns chosen tokens into the next scale's input.
        prefix: tokens of the first scales, whole scales only; 0 tokens to generate freely.
        labels: class of each image; `num_classes` means no class.
        sampling: how tokens are chosen; `guidance_power` has no meaning for VAR.

    Returns:
        int64 tokens of all scales, the prefix first.

    Raises:
        InputError: the prefix does not end where a scale ends, the two parts have different
            scales, or the sampling settings are out of range.
        NonFiniteLogitsError: tokens would be chosen from logits that are not finite.

    Reference: arXiv 2404.02905, figure 4; guidance as in its section 5.1.
    """
    known = known_scales(prefix.shape[1], (0, *transformer.config.ends))
    _check(transformer, tokenizer, sampling)
    with torch.no_grad():
        run = _Run(transformer, tokenizer, labels, sampling)
        run.read(prefix, known)
        chosen = [run.step(scale) for scale in range(known, len(transformer.config.patch_nums))]
        run.watch.check()
        return torch.cat((prefix, *chosen), dim=1)


class _Run:
    """The state of one completion: caches, the sum of the code maps, the random generator."""

    def __init__(
        self,
        transformer: VARTransformer,
        tokenizer: MultiScaleVQVAE,
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> None:
        self.transformer, self.quantizer, self.sampling = transformer, tokenizer.quantize, sampling
        self.starts = (0, *transformer.config.ends)
        self.guided = sampling.guidance != 0
        self.generator = seeded_generator(sampling, labels.device)
        if self.guided:
            no_class = torch.full_like(labels, transformer.config.num_classes)
            labels = torch.cat((labels, no_class))
        self.condition = transformer.condition(labels)
        self.positions = transformer.positions()
        tokens = transformer.config.tokens
        self.caches = [KeyValueCache(tokens) for _ in transformer.blocks]
        self.fhat = self.quantizer.empty(labels.shape[0] // (1 + self.guided))
        self.next = transformer.start(self.condition)

    def read(self, prefix: Int[Tensor, "image prefix"], known: int) -> None:
        """Fill the caches from the tokens of the first `known` scales, in one pass."""
        self.watch = LogitsWatch(self.sampling, prefix.shape[1])
        inputs = []
        for scale in range(known):
            inputs.append(self.next)
            self._take(prefix[:, self.starts[scale] : self.starts[scale + 1]], scale)
        if 0 < known < len(self.starts) - 1:
            self._blocks(torch.cat(inputs, dim=1), 0, self.starts[1 : known + 1])

    def step(self, scale: int) -> Int[Tensor, "image place"]:
        """Choose the tokens of the next scale."""
        seen = self._blocks(self.next, self.starts[scale])
        logits = self.transformer.logits(seen, self.condition)
        if self.guided:
            logits = guided(logits, guidance_weight(self.sampling, scale, len(self.starts) - 1))
        self.watch.see(logits)
        tokens = choose(logits, self.sampling, self.generator)
        if scale < len(self.starts) - 2:
            self._take(tokens, scale)
        return tokens

    def _blocks(self, x: Tensor, start: int, ends: tuple[int, ...] | None = None) -> Tensor:
        x = x + self.positions[:, start : start + x.shape[1]]
        return self.transformer.run_blocks(x, self.condition, ends, self.caches)

    def _take(self, tokens: Tensor, scale: int) -> None:
        """Add a scale's code map and embed the next scale's input; nothing follows the last."""
        codes = self.quantizer.embed(tokens, scale)
        if scale == len(self.starts) - 2:
            return
        self.fhat = self.quantizer.accumulate(self.fhat, codes, scale)
        rows = self.transformer.embed(self.quantizer.next_input(self.fhat, scale))
        self.next = torch.cat((rows, rows)) if self.guided else rows


def guidance_weight(sampling: Sampling, scale: int, scales: int) -> float:
    """Return the weight of the class, see `guided`: from 1 at the first scale, linearly."""
    return 1 + sampling.guidance * scale / max(scales - 1, 1)


def known_scales(tokens: int, ends: tuple[int, ...]) -> int:
    """Return how many scales a prefix of so many tokens holds.

    Raises:
        InputError: it does not end where a scale ends; `ends` starts with 0.
    """
    if tokens not in ends:
        allowed = ", ".join(map(str, ends))
        raise InputError(
            f"a prefix must end where a scale ends: got {tokens} tokens, expected one of {allowed}"
        )
    return ends.index(tokens)


def _check(transformer: VARTransformer, tokenizer: MultiScaleVQVAE, sampling: Sampling) -> None:
    scales, others = transformer.config.patch_nums, tokenizer.config.patch_nums
    if scales != others:
        raise InputError(f"the transformer has the scales {scales}, the tokenizer {others}")
    check_sampling(sampling)
