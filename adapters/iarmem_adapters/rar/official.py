"""Drive the official RAR objects, which a user hands over, through their documented names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_adapters.class_conditional import Driver
from iarmem_adapters.layers.precision import full_float32
from iarmem_adapters.official import attributes_set, evaluating, generators_kept
from iarmem_plugin.interfaces import ForwardInputs, Sampling
from iarmem_plugin.models.sampling import LogitsWatch, check_sampling, choose, guided

from .generation import check_prefix, guidance_weights, published_generator
from .official_checks import check_order, check_tokenizer, check_transformer, is_official
from .transformer import RARConfig


class OfficialRARDriver(Driver):
    """The official RAR transformer with its official tokenizer.

    Their own modules compute everything; nothing is copied, and no flag stays changed.

    Args:
        network: the transformer, out of every wrapper.
        tokenizer: the tokenizer, out of every wrapper.

    Raises:
        InputError: something in them would give wrong numbers.

    Reference: arXiv 2411.00776.
    """

    config: RARConfig

    def __init__(self, network: nn.Module, tokenizer: nn.Module | None) -> None:
        self.config = check_transformer(network)
        check_tokenizer(network, self.config, tokenizer)
        self.network = network
        self.tokenizer = tokenizer
        self.num_tokens = self.config.num_tokens
        self.side = math.isqrt(self.num_tokens) * 2 ** (len(self.tokenizer.encoder.down) - 1)

    @property
    def classes(self) -> tuple[nn.Embedding, int]:
        """Return the embeddings, where classes stand behind the codes and the mask."""
        return self.network.embeddings, self.config.vocab_size + 1

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model has the parts of the official RAR transformer."""
        return is_official(model)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Switch off caches and checkpointing for a while; all comes back, see `Adapter`.

        ``forward`` draws from Python's random numbers even where it keeps the order of tokens.

        Raises:
            InputError: `random_ratio` is not 0.
        """
        check_order(self.network)
        device = self.network.cls_token.device
        with generators_kept(device), self._flags(caching=False):
            yield

    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens, in float32."""
        with self._tokenizer_flags():
            return cast(Tensor, self.tokenizer.encode(images))

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1], in float32."""
        with self._tokenizer_flags():
            return cast(Tensor, self.tokenizer.decode(tokens))

    def inputs(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return tokens and conditions, which are the labels put behind the codes."""
        return ForwardInputs((tokens, self._condition(labels)))

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of any length, with the object's own cache.

        Raises:
            InputError: a prefix longer than an image, or sampling settings out of range.
            NonFiniteLogitsError: tokens would be chosen from logits that are not finite.
        """
        check_sampling(sampling)
        check_prefix(prefix, self.num_tokens)
        if prefix.shape[1] == self.num_tokens:
            return prefix.clone()
        with torch.no_grad(), self._flags(caching=True):
            return self._fill(prefix, labels, sampling)

    def _fill(self, tokens: Tensor, labels: Tensor, sampling: Sampling) -> Tensor:
        guide, total = sampling.guidance != 0, self.num_tokens
        generator = published_generator(sampling, labels)
        watch = LogitsWatch(sampling, tokens.shape[1])
        weights = guidance_weights(total, sampling.guidance, sampling.guidance_power)
        weights = weights.to(labels.device)
        condition = self._condition(labels)
        if guide:
            no_class = self._condition(torch.full_like(labels, self.config.num_classes))
            condition = torch.cat((condition, no_class))
        for token in range(tokens.shape[1], total):
            rows = torch.cat((tokens, tokens)) if guide else tokens
            logits = self.network.forward_fn(rows, condition, is_sampling=True)[:, -1:].float()
            if guide:
                logits = guided(logits, weights[token], as_sum=True)
            watch.see(logits)
            tokens = torch.cat((tokens, choose(logits, sampling, generator)), dim=1)
        watch.check()
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
        device = self.network.cls_token.device
        with attributes_set(evaluating(self.tokenizer)), full_float32(device):
            yield
