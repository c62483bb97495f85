"""Logits that tokens are chosen from: finite, or refused by image and position."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin.errors import NonFiniteLogitsError
from iarmem_plugin.interfaces import Sampling


class LogitsWatch:
    """Notices logits that are not finite, and waits for the device only once, in the end.

    The likeliest of NaN is some token, too, so nobody would see it in the tokens.

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
        self._sums: list[Tensor] = []

    def see(self, logits: Float[Tensor, "image place vocab"]) -> None:
        """Take the logits of the next places, before tokens are chosen from them.

        Raises:
            NonFiniteLogitsError: some are not finite, and every step is checked.
        """
        self._sums.append(logits.sum(2, dtype=torch.float32))
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Look at all logits that were seen.

        Raises:
            NonFiniteLogitsError: some were not finite.
        """
        if self._sums:
            _refuse(torch.cat(self._sums, dim=1), self._first)


def check_logits(logits: Float[Tensor, "image place vocab"]) -> None:
    """Refuse logits that are not finite.

    Args:
        logits: of all tokens, from the first.

    Raises:
        NonFiniteLogitsError: some are not finite.
    """
    _refuse(logits.sum(2, dtype=torch.float32), 0)


def _refuse(sums: Float[Tensor, "image place"], first: int) -> None:
    broken = ~sums.isfinite()
    if not bool(broken.any()):
        return
    rows = tuple(broken.any(dim=1).nonzero().flatten().tolist())
    position = first + int(broken.any(dim=0).nonzero()[0])
    raise NonFiniteLogitsError(
        f"the logits of {len(rows)} of {len(sums)} images are not finite, from token position "
        f"{position} on; check the weights, or use a wider dtype than float16",
        rows,
        position,
    )
