"""Drive the official VAR objects, which a user hands over, through their documented names."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_adapters.class_conditional import Driver
from iarmem_adapters.layers.precision import full_float32
from iarmem_adapters.official import attributes_set, evaluating, generators_kept
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import ForwardInputs, Sampling
from iarmem_plugin.models.sampling import (
    LogitsWatch,
    check_sampling,
    choose,
    guided,
    seeded_generator,
)

from .generation import guidance_weight, known_scales
from .official_checks import check_tokenizer, check_transformer, is_official
from .transformer import VARConfig

DEPRECATED = r"`torch\.(cuda|cpu)\.amp\.autocast"


class OfficialVARDriver(Driver):
    """The official VAR transformer with the tokenizer that it holds.

    Their own modules compute everything; nothing is copied, and no flag stays changed.

    Args:
        network: the transformer, out of every wrapper.
        tokenizer: None, or the one that the transformer holds, or one of equal weights.

    Raises:
        InputError: something in them would give wrong numbers.

    Reference: arXiv 2404.02905.
    """

    config: VARConfig

    def __init__(self, network: nn.Module, tokenizer: nn.Module | None) -> None:
        self.config = check_transformer(network)
        self.network = network
        self.tokenizer = check_tokenizer(network, self.config, tokenizer)
        self.side = self.config.patch_nums[-1] * 2 ** (len(self.tokenizer.encoder.down) - 1)
        self.num_tokens = self.config.tokens

    @property
    def classes(self) -> tuple[nn.Embedding, int]:
        """Return the class embeddings."""
        return self.network.class_emb, 0

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model has the parts of the official VAR transformer."""
        return is_official(model)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Switch off what makes ``forward`` random or shorter; all comes back, see `Adapter`.

        ``forward`` draws a random number an image even where no label is dropped, and uses a
        deprecated spelling of autocast.
        """
        changes = [(self.network, "cond_drop_rate", 0.0), (self.network, "prog_si", -1)]
        with (
            generators_kept(self.network.pos_1LC.device),
            self._flags(caching=False),
            attributes_set(changes),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", DEPRECATED, FutureWarning)
            yield

    def encode(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens of all scales."""
        with self._tokenizer_flags():
            return torch.cat(self.tokenizer.img_to_idxBl(images * 2 - 1), dim=1)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens of all scales into RGB images in [0, 1].

        Raises:
            InputError: the tokens are not those of all scales.
        """
        with self._tokenizer_flags():
            images = self.tokenizer.idxBl_to_img(self._split(tokens), True, last_one=True)
        return cast(Tensor, (images + 1) / 2)

    def inputs(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> ForwardInputs:
        """Return labels and, for every position, the sum of the scales before it."""
        with self._tokenizer_flags():
            x_in = self.tokenizer.quantize.idxBl_to_var_input(self._split(tokens))
        return ForwardInputs(kwargs={"label_B": labels, "x_BLCv_wo_first_l": x_in})

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of whole scales; blocks see one scale a pass, the given ones too.

        So every pass is one that the official sampler makes: with its cache and without a mask.

        Raises:
            InputError: a prefix that does not end where a scale ends, or sampling settings out
                of range.
            NonFiniteLogitsError: tokens would be chosen from logits that are not finite.
        """
        check_sampling(sampling)
        known = known_scales(prefix.shape[1], (0, *self.config.ends))
        if known == len(self.config.patch_nums):
            return prefix.clone()
        reading = attributes_set([(self.tokenizer.quantize, "prog_si", -1)])
        with torch.no_grad(), self._flags(caching=True), reading:
            return _Run(self.network, self.tokenizer, labels, sampling).complete(prefix)

    @contextmanager
    def _flags(self, *, caching: bool) -> Iterator[None]:
        changes = evaluating(self.network)
        for block in self.network.blocks:
            changes += [(block.attn, "caching", caching)]
            changes += [(block.attn, name, None) for name in ("cached_k", "cached_v")]
            changes += [(block.ffn, "fused_mlp_func", None)]  # else fc1 and act are never called
        with attributes_set(changes):
            yield

    @contextmanager
    def _tokenizer_flags(self) -> Iterator[None]:
        """Read and write all scales, in float32: under autocast the distances fail."""
        changes = [*evaluating(self.tokenizer), (self.tokenizer.quantize, "prog_si", -1)]
        device = self.network.pos_1LC.device
        with attributes_set(changes), full_float32(device):
            yield

    def _split(self, tokens: Tensor) -> list[Tensor]:
        sizes = [side * side for side in self.config.patch_nums]
        if tokens.shape[1] != sum(sizes):
            raise InputError(f"got {tokens.shape[1]} tokens an image, expected {sum(sizes)}")
        return list(tokens.split(sizes, dim=1))


class _Run:
    """One completion by the object's blocks, whose caches are on and empty."""

    def __init__(self, network: Any, tokenizer: Any, labels: Tensor, sampling: Sampling) -> None:
        self.network, self.quantizer, self.sampling = network, tokenizer.quantize, sampling
        self.generator = seeded_generator(sampling, labels.device)
        self.guided = sampling.guidance != 0
        if self.guided:
            labels = torch.cat(
                (labels, torch.full_like(labels, network.class_emb.num_embeddings - 1))
            )
        self.condition = network.class_emb(labels)
        self.shared = network.shared_ada_lin(self.condition)
        self.positions = network.lvl_embed(network.lvl_1L) + network.pos_1LC

    def complete(self, prefix: Int[Tensor, "image prefix"]) -> Int[Tensor, "image token"]:
        """Return the tokens of all scales, the prefix first."""
        sides = self.quantizer.v_patch_nums
        ends = [0, *itertools.accumulate(side * side for side in sides)]
        codes = self.quantizer.embedding.weight
        fhat = codes.new_zeros(len(prefix), codes.shape[1], sides[-1], sides[-1])
        x = self.condition.unsqueeze(1) + self.network.pos_start
        chosen = []
        self.watch = LogitsWatch(self.sampling, prefix.shape[1])
        for scale, (begin, end) in enumerate(itertools.pairwise(ends)):
            seen = self._blocks(x + self.positions[:, begin:end])
            given = prefix[:, begin:end]
            chosen.append(given if given.shape[1] else self._choose(seen, scale))
            if end < ends[-1]:
                fhat, x = self._next(fhat, chosen[-1], scale)
        self.watch.check()
        return torch.cat(chosen, dim=1)

    def _blocks(self, x: Tensor) -> Tensor:
        for block in self.network.blocks:
            x = block(x=x, cond_BD=self.shared, attn_bias=None)
        return x

    def _choose(self, seen: Tensor, scale: int) -> Tensor:
        logits = self.network.get_logits(seen, self.condition).float()
        if self.guided:
            scales = len(self.quantizer.v_patch_nums)
            logits = guided(logits, guidance_weight(self.sampling, scale, scales))
        self.watch.see(logits)
        return choose(logits, self.sampling, self.generator)

    def _next(self, fhat: Tensor, tokens: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """Return the sum of the code maps, in float32 under autocast too, and the next input."""
        sides = self.quantizer.v_patch_nums
        codes = self.quantizer.embedding(tokens).mT.unflatten(2, (sides[scale], sides[scale]))
        with full_float32(fhat.device):
            fhat, following = self.quantizer.get_next_autoregressive_input(
                scale, len(sides), fhat, codes
            )
        x = self.network.word_embed(following.flatten(2).mT)
        return fhat, torch.cat((x, x)) if self.guided else x
