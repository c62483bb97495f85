"""How one token a place is chosen from logits, at random or not; the same in every family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_plugin.errors import InputError, NonFiniteLogitsError
from iarmem_plugin.interfaces import Sampling

NUMBERS_PER_DRAW = 1024  # drawn at once for an image; more than a released model has tokens


def choose(
    logits: Float[Tensor, "image place vocab"],
    sampling: Sampling,
    generator: torch.Generator | Draws | None,
) -> Int[Tensor, "image place"]:
    """Return one token a place, the likeliest or, if not greedy, drawn at random.

    Noise comes first, then temperature, then top-k, then top-p on what is left.
    Random tokens of all images and places take one draw of the generator, or each image's own.

    Args:
        logits: unnormalised log-probabilities.
        sampling: noise, temperature, top-k and top-p, or greedy.
        generator: source of random numbers; None for the global generator.
    """
    logits = with_noise(logits, sampling, generator)
    if sampling.greedy:
        return logits.argmax(2)
    rows = logits.flatten(0, 1)
    if sampling.temperature != 1:
        rows = rows / sampling.temperature
    if sampling.top_k > 0:
        rows = _keep_top_k(rows, sampling.top_k)
    if sampling.top_p > 0:
        rows = _keep_top_p(rows, sampling.top_p)
    if isinstance(generator, Draws):
        return generator.choose(rows.softmax(1).view_as(logits))
    drawn = torch.multinomial(rows.softmax(1), 1, replacement=True, generator=generator)
    return drawn.view(logits.shape[:2])


def with_noise(
    logits: Float[Tensor, "image place vocab"],
    sampling: Sampling,
    generator: torch.Generator | Draws | None,
) -> Float[Tensor, "image place vocab"]:
    """Return logits with the normal noise that is asked for; `choose` does so by itself.

    Args:
        logits: unnormalised log-probabilities; what is masked with -inf stays so.
        sampling: says how much noise; without any, the logits are returned as they are.
        generator: source of random numbers, see `choose`.
    """
    if sampling.logit_noise == 0:
        return logits
    if isinstance(generator, Draws):
        noise = generator.normal(logits.shape)
    else:
        noise = torch.randn(logits.shape, generator=generator, device=logits.device)
    return logits + sampling.logit_noise * noise.to(logits.dtype)


def _keep_top_k(rows: Float[Tensor, "row vocab"], top_k: int) -> Float[Tensor, "row vocab"]:
    """Set every logit below the k-th largest of its row to -inf."""
    least = rows.topk(min(top_k, rows.shape[1]), dim=1).values[:, -1:]
    return rows.masked_fill(rows < least, -math.inf)


def _keep_top_p(rows: Float[Tensor, "row vocab"], top_p: float) -> Float[Tensor, "row vocab"]:
    """Set the least likely logits, of 1 - top_p together, to -inf, but never the largest."""
    ascending, order = rows.sort(dim=1)
    dropped = ascending.softmax(1).cumsum(1) <= 1 - top_p
    dropped[:, -1] = False
    return rows.masked_fill(dropped.scatter(1, order, dropped), -math.inf)


class Draws:
    """One stream of uniform random numbers an image, the same on every device, and one of normal.

    Args:
        seeds: one seed for each image's stream.
        device: device on which tokens are chosen.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._seeds = tuple(seeds)
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._uniform = torch.empty(len(self._streams), 0, dtype=torch.float64, device=device)

    def choose(
        self, probabilities: Float[Tensor, "image place vocab"]
    ) -> Int[Tensor, "image place"]:
        """Draw one token a place: the first whose cumulated probability exceeds the number.

        A token without probability is never drawn. Sums are float64.

        Raises:
            InputError: there are not as many images as seeds.
        """
        images, places, _ = probabilities.shape
        self._check(images)
        cumulated = probabilities.cumsum(2, dtype=torch.float64)
        total = cumulated[..., -1:]
        below = torch.nextafter(total, torch.zeros_like(total))
        drawn = torch.minimum(self._next(places).unsqueeze(2) * total, below)
        found = torch.searchsorted(cumulated, drawn, right=True).squeeze(2)
        return found.clamp_(max=probabilities.shape[2] - 1)  # NaN is above all, as for argmax

    def normal(self, shape: Sequence[int]) -> Float[Tensor, "image place vocab"]:
        """Return the next normal numbers of each image, float32; uniform ones stay what they are.

        Args:
            shape: numbers of images, places and tokens.

        Raises:
            InputError: there are not as many images as seeds.
        """
        images, *rest = shape
        self._check(images)
        rows = [torch.randn(rest, generator=one) for one in self._noise]
        return torch.stack(rows).to(self._uniform.device)

    @cached_property
    def _noise(self) -> list[torch.Generator]:
        mixed = (np.random.SeedSequence((seed, 1)).generate_state(1) for seed in self._seeds)
        return [torch.Generator().manual_seed(int(state[0])) for state in mixed]

    def _check(self, images: int) -> None:
        if images != len(self._seeds):
            raise InputError(f"got {len(self._seeds)} seeds for {images} images; give one each")

    def _next(self, places: int) -> Float[Tensor, "image place"]:
        """Return the next numbers of each stream, in [0, 1)."""
        while self._uniform.shape[1] < places:
            self._uniform = torch.cat((self._uniform, self._draw()), dim=1)
        numbers, self._uniform = self._uniform[:, :places], self._uniform[:, places:]
        return numbers

    def _draw(self) -> Float[Tensor, "image number"]:
        rows = [
            torch.rand(NUMBERS_PER_DRAW, generator=one, dtype=torch.float64)
            for one in self._streams
        ]
        return torch.stack(rows).to(self._uniform.device)


def seeded_generator(sampling: Sampling, device: torch.device) -> torch.Generator | Draws | None:
    """Return where random numbers come from; None where none are drawn, or from the global one."""
    if not sampling.draws or sampling.seed is None:
        return None
    if isinstance(sampling.seed, tuple):
        return Draws(sampling.seed, device)
    return torch.Generator(device).manual_seed(sampling.seed)


def guided(
    logits: Float[Tensor, "row place vocab"], weight: float | Tensor, *, as_sum: bool = False
) -> Float[Tensor, "image place vocab"]:
    """Return logits on the line from those without a class through those with it.

    Families go along the same line and round differently; each keeps its own rounding.

    Args:
        logits: the logits of all images given their classes, then of all images given none.
        weight: place on the line: 0 without the class, 1 with it, more for what sets it apart.
        as_sum: compute the sum as written, as RAR does, and not by `torch.lerp`, as VAR does.
    """
    with_class, without = logits.chunk(2)
    if as_sum:
        return without + (with_class - without) * weight
    return torch.lerp(without, with_class, weight)


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings out of range.

    Raises:
        InputError: temperature, guidance power, noise, top-k or top-p is out of range.
    """
    if not sampling.logit_noise >= 0:
        raise InputError(f"logit_noise must be 0 or more, got {sampling.logit_noise}")
    if not sampling.temperature > 0:
        raise InputError(f"temperature must be positive, got {sampling.temperature}")
    if not sampling.guidance_power >= 0:
        raise InputError(f"guidance_power must be 0 or more, got {sampling.guidance_power}")
    if sampling.top_k < 0 or not 0 <= sampling.top_p <= 1:
        raise InputError(
            f"top_k must be 0 or more and top_p in [0, 1], got {sampling.top_k}, {sampling.top_p}"
        )


class LogitsWatch:
    """Notices logits that are not finite, and waits for the device only once, in the end.

    The likeliest of NaN is some token, too, so nobody would see it in the tokens. A part of a
    vocabulary may be masked with -inf, as long as a finite logit is left at every place.

    Args:
        sampling: how tokens are chosen.
        first: position of the first token that is chosen, from 0.
        at_once: whether every step is checked for itself, since what chooses tokens ends badly on
            NaN; by default where torch draws from one generator.
    """

    def __init__(self, sampling: Sampling, first: int, *, at_once: bool | None = None) -> None:
        by_torch = not sampling.greedy and not isinstance(sampling.seed, tuple)
        self._at_once = by_torch if at_once is None else at_once
        self._first = first
        self._largest: list[Tensor] = []

    def see(self, logits: Float[Tensor, "image place vocab"]) -> None:
        """Take the logits of the next places, before tokens are chosen from them.

        Raises:
            NonFiniteLogitsError: some are not finite, and every step is checked.
        """
        self._largest.append(logits.amax(2))
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Look at all logits that were seen.

        Raises:
            NonFiniteLogitsError: some were not finite.
        """
        if self._largest:
            _refuse(torch.cat(self._largest, dim=1), self._first)


def check_logits(logits: Float[Tensor, "image place vocab"]) -> None:
    """Refuse logits that are not finite; -inf masks tokens, and is refused where it masks all.

    Args:
        logits: of all tokens, from the first.

    Raises:
        NonFiniteLogitsError: some are not finite.
    """
    _refuse(logits.amax(2), 0)


def check_likelihood(log_likelihood: Float[Tensor, "image token"]) -> None:
    """Refuse log-likelihoods that come from logits which are not finite.

    Args:
        log_likelihood: of all tokens, from the first; -inf where a model masks the true token.

    Raises:
        NonFiniteLogitsError: some are NaN or infinite.
    """
    _refuse(log_likelihood.clamp(min=0), 0)  # NaN stays


def _refuse(largest: Float[Tensor, "image place"], first: int) -> None:
    broken = ~largest.isfinite()
    if not bool(broken.any()):
        return
    rows = tuple(broken.any(dim=1).nonzero().flatten().tolist())
    position = first + int(broken.any(dim=0).nonzero()[0])
    raise NonFiniteLogitsError(
        f"the logits of {len(rows)} of {len(largest)} images are not finite, from token position "
        f"{position} on; check the weights, or use a wider dtype than float16",
        rows,
        position,
    )
