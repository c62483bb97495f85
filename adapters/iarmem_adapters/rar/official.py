"""Drive the official RAR objects, which a user hands over, through their documented names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_adapters.official import attributes_set, evaluating, generators_kept
from iarmem_adapters.sampling import check_sampling, choose
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import ForwardInputs, Sampling

from .adapter import RARAdapter, layout_of, own_variant
from .generation import guidance_strengths, seeded_generator
from .official_checks import check_order, check_tokenizer, check_transformer, is_official

__all__ = ["OfficialRARAdapter", "is_official"]


class OfficialRARAdapter(RARAdapter):
    """The official RAR transformer with its official tokenizer.

    Their own modules compute everything; nothing is copied, and no flag stays changed.

    Reference: arXiv 2411.00776.
    """

    network: Any
    tokenizer: Any

    def __init__(self, network: nn.Module, tokenizer: nn.Module | None) -> None:
        """Check the objects.

        Args:
            network: the transformer, out of every wrapper.
            tokenizer: the tokenizer, out of every wrapper.

        Raises:
            InputError: something in them would give wrong numbers.
        """
        self.config = check_transformer(network)
        check_tokenizer(network, self.config, tokenizer)
        self.network = network
        self.tokenizer = tokenizer
        patch = 2 ** (len(self.tokenizer.encoder.down) - 1)
        self.variant = own_variant(network, self.config, patch)
        self.layout = layout_of(self.config)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Switch off caches and checkpointing; all comes back, see `Adapter`.

        ``forward`` draws from Python's random numbers even where it keeps the order of tokens.

        Raises:
            InputError: `random_ratio` is not 0.
        """
        check_order(self.network)
        device = self.network.cls_token.device
        with generators_kept(device), self._flags(caching=False):
            yield

    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens, in float32.

        Raises:
            InputError: the images are of another size than the model's.
        """
        with self._tokenizer_flags():
            return super().tokenize(images)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1], in float32."""
        with self._tokenizer_flags():
            return super().decode(tokens)

    def teacher_forced(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return tokens and conditions, which are the labels put behind the codes.

        Raises:
            InputError: a label outside the model's classes, or not all tokens of an image.
        """
        ours = super().teacher_forced(tokens, labels)
        return ForwardInputs((ours.args[1], self._condition(labels)))

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of any length, with the object's own cache.

        Raises:
            InputError: a label outside the model's classes, or a prefix longer than an image.
        """
        self._check_labels(labels)
        check_sampling(sampling)
        known, total = prefix.shape[1], self.config.num_tokens
        if known > total:
            raise InputError(f"got a prefix of {known} tokens, expected at most {total}")
        if known == total:
            return prefix.clone()
        with torch.no_grad(), self._flags(caching=True):
            return self._fill(prefix, labels, sampling)

    def _fill(self, tokens: Tensor, labels: Tensor, sampling: Sampling) -> Tensor:
        config, guided = self.config, sampling.guidance != 0
        generator = seeded_generator(sampling, labels)
        strengths = guidance_strengths(
            config.num_tokens, sampling.guidance, sampling.guidance_power
        ).to(labels.device)
        condition = self._condition(labels)
        if guided:
            no_class = self._condition(torch.full_like(labels, config.num_classes))
            condition = torch.cat((condition, no_class))
        for token in range(tokens.shape[1], config.num_tokens):
            rows = torch.cat((tokens, tokens)) if guided else tokens
            logits = self.network.forward_fn(rows, condition, is_sampling=True)[:, -1:].float()
            if guided:
                with_class, without = logits.chunk(2)
                logits = without + (with_class - without) * strengths[token]
            tokens = torch.cat((tokens, choose(logits, sampling, generator)), dim=1)
        return tokens

    def _condition(self, labels: Tensor) -> Tensor:
        return labels + self.config.vocab_size + 1

    @contextmanager
    def _flags(self, *, caching: bool) -> Iterator[None]:
        changes = [*evaluating(self.network), (self.network, "use_checkpoint", False)]
        for block in self.network.blocks:
            changes += [(block.attn, "kv_cache", caching)]
            changes += [(block.attn, name, None) for name in ("k_cache", "v_cache")]
        with attributes_set(changes):
            yield

    @contextmanager
    def _tokenizer_flags(self) -> Iterator[None]:
        kind = self.network.cls_token.device.type
        with attributes_set(evaluating(self.tokenizer)), torch.autocast(kind, enabled=False):
            yield
