"""Frozen facts about one model: its blocks, its neurons, and the scales that are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.mlp import MLP


@dataclass(frozen=True, slots=True)
class Scale:
    """One scored part of the generation.

    Attributes:
        name: name of the scale, such as ``"0"`` or ``"last token"``.
        tokens: tokens of an image that belong to it, counted from 0, ascending; a layout's
            `positions` says where a block predicts them.

    Raises:
        InputError: there are no tokens, a negative one, or they are not ascending.
    """

    name: str
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the tokens."""
        if not self.tokens:
            raise InputError(f"scale {self.name!r} has no tokens; give at least one")
        ascending = all(one < other for one, other in pairwise(self.tokens))
        if self.tokens[0] < 0 or not ascending:
            raise InputError(
                f"scale {self.name!r} has the tokens {self.tokens[:5]}...; "
                "give each once, in ascending order, from 0"
            )


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """Where the neurons of one model are.

    Attributes:
        family: name of the model family, such as ``"var"``.
        num_blocks: number of transformer blocks.
        neurons_per_block: number of inputs of the MLP's outgoing map.
        scales: scored scales in order.
        mlp: maps into and out of a block's neurons.
        predicting: position in the token dimension of a block's teacher-forced pass that predicts
            each token of an image, in the tokens' order.
        ranked_tokens: number of an image's last tokens that count when candidates are ranked; None
            for those of the last scale.

    Raises:
        InputError: there are no blocks, neurons, tokens or scales; a position is negative or comes
            twice; two scales have one name, or one has tokens that an image does not have.
    """

    family: str
    num_blocks: int
    neurons_per_block: int
    scales: tuple[Scale, ...]
    mlp: MLP
    predicting: Sequence[int]
    ranked_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers against each other."""
        counts = (self.num_blocks, self.neurons_per_block, len(self.predicting))
        if min(counts) < 1:
            raise InputError(
                f"a layout of {counts[0]} blocks with {counts[1]} neurons, for images of "
                f"{counts[2]} tokens; each must be 1 or more"
            )
        if min(self.predicting) < 0 or len(set(self.predicting)) < counts[2]:
            raise InputError(
                f"predicting is {list(self.predicting[:5])}...; give the position that predicts "
                "each token, from 0, each once"
            )
        self._check_scales()
        if self.ranked_tokens is not None and not 1 <= self.ranked_tokens <= counts[2]:
            raise InputError(
                f"ranked_tokens is {self.ranked_tokens}; an image has {counts[2]} tokens"
            )

    def positions(self, scale: Scale) -> tuple[int, ...]:
        """Return where a block predicts the tokens of a scale.

        Returns:
            positions in the token dimension of a block's teacher-forced pass, ascending.
        """
        return tuple(sorted(self.predicting[token] for token in scale.tokens))

    def band(self, name: str, tokens: Iterable[int]) -> Scale:
        """Return the scale of some tokens of an image.

        Args:
            name: name of the scale.
            tokens: numbers of the tokens, counted from 1 in the order of generation.

        Raises:
            InputError: there are no such tokens.
        """
        numbers, last = sorted(set(tokens)), len(self.predicting)
        if not numbers or numbers[0] < 1 or numbers[-1] > last:
            raise InputError(f"band {name!r} has {numbers[:5]}...; give tokens from 1 to {last}")
        return Scale(name, tuple(number - 1 for number in numbers))

    def with_scales(self, scales: Sequence[Scale]) -> ModelLayout:
        """Return this layout with other scales.

        Args:
            scales: at least one scale, each with a name of its own.

        Raises:
            InputError: there are no scales, two of one name, or tokens that an image does not
                have.
        """
        return replace(self, scales=tuple(scales))

    def _check_scales(self) -> None:
        names = [scale.name for scale in self.scales]
        if not names or len(set(names)) < len(names):
            raise InputError(f"scales need different names, and there must be some; got {names}")
        last = len(self.predicting) - 1
        for scale in self.scales:
            if scale.tokens[-1] > last:
                raise InputError(
                    f"scale {scale.name!r} has the tokens {spans(scale.tokens)}; those of an image "
                    f"are 0 to {last}"
                )


def spans(numbers: Sequence[int]) -> str:
    """Return ascending numbers in short.

    >>> spans((*range(1, 17), 256))
    '1-16,256'
    """
    known = set(numbers)
    starts = [one for one in numbers if one - 1 not in known]
    ends = [one for one in numbers if one + 1 not in known]
    pairs = zip(starts, ends, strict=True)
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in pairs)
