"""The half of an adapter that every model shares which predicts one token after another."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_plugin.borrowing import evaluating
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Adapter, Condition, ForwardInputs, Sampling
from iarmem_plugin.models.sampling import (
    LogitsWatch,
    check_sampling,
    choose,
    guided,
    seeded_generator,
)
from iarmem_plugin.plugins.blame import author


class TokenByToken(Adapter):
    """A model whose ``forward`` predicts the next token at its last position.

    A family adds its layout, `inputs`, `tokenize` and `decode`; sampling, a seed for each image,
    guidance and caches are here. All passes are calls of the network, so edits act at each.

    Attributes:
        caches: whether ``forward`` takes ``use_cache`` and ``past_key_values`` and returns the
            latter, as models of transformers do; otherwise every pass reads all tokens again.
    """

    caches: ClassVar[bool] = False

    @abstractmethod
    def inputs(
        self,
        condition: Condition,
        tokens: Int[Tensor, "image prefix"],
        *,
        unconditional: bool = False,
    ) -> ForwardInputs:
        """Return the arguments with which ``forward`` predicts the token after some tokens.

        Args:
            condition: what the model is told of each image.
            tokens: first tokens of each image; all but the last one in teacher forcing.
            unconditional: whether the model is told nothing, for guidance.
        """

    def step(
        self,
        condition: Condition,
        tokens: Int[Tensor, "image prefix"],
        *,
        unconditional: bool = False,
    ) -> ForwardInputs:
        """Return the arguments for the last token alone, where a cache holds the others.

        By default these are those of `inputs`, ``input_ids`` and ``inputs_embeds`` cut to their
        last position; other arguments, such as masks, stay whole.

        Args:
            condition: what the model is told of each image.
            tokens: first tokens of each image, the new one last.
            unconditional: as for `inputs`.

        Raises:
            PluginError: there is nothing to cut, so all tokens would be read again.
        """
        whole = self.inputs(condition, tokens, unconditional=unconditional)
        cut = {name: whole.kwargs[name][:, -1:] for name in _READ if name in whole.kwargs}
        if not cut:
            raise PluginError(
                f"{type(self).__name__}.caches of {author(self)} is True, and inputs has none of "
                f"{', '.join(_READ)} by name to cut to the last token; pass one, or write step"
            )
        return ForwardInputs(whole.args, {**whole.kwargs, **cut})

    def next_logits(self, output: Any) -> Float[Tensor, "image 1 vocab"]:
        """Return the logits of the next token: the last of the output, or of its ``logits``."""
        logits: Tensor = getattr(output, "logits", output)
        return logits[:, -1:]

    def guidance_weight(self, sampling: Sampling, token: int) -> float:
        """Return the weight of the condition at a token, see `guided`; by default the same.

        Args:
            sampling: how tokens are chosen.
            token: number of the token, from 0.
        """
        return 1 + sampling.guidance

    def teacher_forced(
        self, tokens: Int[Tensor, "image token"], condition: Condition
    ) -> ForwardInputs:
        """Return the arguments with which ``forward`` predicts every token from those before.

        Raises:
            InputError: not all tokens of an image.
        """
        self._check_count(tokens, exactly=True)
        return self.inputs(condition, tokens[:, :-1])

    def complete(
        self, prefix: Int[Tensor, "image prefix"], condition: Condition, sampling: Sampling
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of any length, token by token.

        Raises:
            InputError: a prefix longer than an image, or sampling settings out of range.
            NonFiniteLogitsError: tokens would be chosen from logits that are not finite.
        """
        check_sampling(sampling)
        self._check_count(prefix, exactly=False)
        generator = seeded_generator(sampling, prefix.device)
        watch, tokens = LogitsWatch(sampling, prefix.shape[1]), prefix.clone()
        runs = [_Run(self, condition, unconditional=False)]
        if sampling.guidance != 0 and self.conditions:
            runs.append(_Run(self, condition, unconditional=True))
        with torch.no_grad(), evaluating(self.modules.values()):
            for token in range(prefix.shape[1], self._count):
                logits = torch.cat([run.logits(tokens) for run in runs])
                if len(runs) == 2:
                    logits = guide(logits, self.guidance_weight(sampling, token))
                watch.see(logits)
                chosen = choose(logits, sampling, generator).to(tokens.dtype)
                tokens = torch.cat((tokens, chosen), dim=1)
            watch.check()
        return tokens

    @property
    def _count(self) -> int:
        return len(self.layout.predicting)

    def _check_count(self, tokens: Tensor, *, exactly: bool) -> None:
        given = tokens.shape[1]
        if given > self._count or (exactly and given < self._count):
            most = "" if exactly else "at most "
            raise InputError(f"got {given} tokens an image, expected {most}{self._count}")


_READ = ("input_ids", "inputs_embeds")


class _Run:
    """Passes over the growing tokens of some images, and what is kept between them."""

    def __init__(self, family: TokenByToken, condition: Condition, *, unconditional: bool) -> None:
        self._family, self._condition = family, condition
        self._unconditional = unconditional
        self._cache: Any = None

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits of the token after these."""
        family = self._family
        read = family.inputs if self._cache is None else family.step
        inputs = read(self._condition, tokens, unconditional=self._unconditional)
        kept = {"use_cache": True, "past_key_values": self._cache} if family.caches else {}
        output = family.network(*inputs.args, **inputs.kwargs, **kept)
        if family.caches:
            self._cache = output.past_key_values
        return family.next_logits(output).float()


def guide(logits: Tensor, weight: float) -> Tensor:
    """Guide, and keep masked what is masked: of -inf and -inf, the line gives NaN.

    Args:
        logits: those of the model that is told, and then those of the model that is not.
        weight: weight of the former, see `guided`.
    """
    masked = logits.chunk(2)[0] == -torch.inf
    return guided(logits, weight).masked_fill(masked, -torch.inf)
