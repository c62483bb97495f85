"""Frozen facts about one model: its blocks, scales and module paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from iarmem_plugin.errors import InputError


@dataclass(frozen=True, slots=True)
class Scale:
    """One scored part of the generation.

    Attributes:
        name: name of the scale, such as ``"0"`` or ``"last token"``.
        tokens: positions of this scale in the token dimension of a block's teacher-forced pass,
            ascending.

    Raises:
        InputError: there are no positions, a negative one, or they are not ascending.
    """

    name: str
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the positions."""
        if not self.tokens:
            raise InputError(f"scale {self.name!r} has no tokens; give at least one position")
        ascending = all(one < other for one, other in pairwise(self.tokens))
        if self.tokens[0] < 0 or not ascending:
            raise InputError(
                f"scale {self.name!r} has the positions {self.tokens[:5]}...; "
                "give each once, in ascending order, from 0"
            )

    @property
    def spans(self) -> str:
        """Return the positions in short, such as ``"1-16,256"``."""
        known = set(self.tokens)
        starts = [one for one in self.tokens if one - 1 not in known]
        ends = [one for one in self.tokens if one + 1 not in known]
        pairs = zip(starts, ends, strict=True)
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in pairs)


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """Where the neurons of one model are.

    Attributes:
        family: name of the model family, such as ``"var"``.
        num_blocks: number of transformer blocks.
        neurons_per_block: number of output features of ``fc1``.
        scales: scored scales in order.
        fc1: path of the linear layer whose weight rows an intervention edits, with ``{block}``.
        activation: path of the module whose output is captured (after GELU), with ``{block}``.
        fc2: path of the linear layer that reads the neurons, with ``{block}``.
        predicting: positions that predict the tokens of an image, in the tokens' order; None
            where the adapter does not tell, and then there are no bands.
        ranked_tokens: number of an image's last tokens that count when candidates are ranked; None
            for those of the last scale.
    """

    family: str
    num_blocks: int
    neurons_per_block: int
    scales: tuple[Scale, ...]
    fc1: str
    activation: str
    fc2: str
    predicting: range | None = None
    ranked_tokens: int | None = None

    def band(self, name: str, tokens: Iterable[int]) -> Scale:
        """Return the scale whose positions predict some tokens of an image.

        Args:
            name: name of the scale.
            tokens: numbers of the tokens, counted from 1 in the order of generation.

        Raises:
            InputError: there are no such tokens.

        Example:
            >>> layout = ModelLayout("rar", 1, 1, (), "", "", "", predicting=range(1, 257))
            >>> layout.band("last token", [256])
            Scale(name='last token', tokens=(256,))
        """
        if self.predicting is None:
            raise InputError(f"the {self.family!r} adapter does not say where tokens are predicted")
        numbers, last = sorted(set(tokens)), len(self.predicting)
        if not numbers or numbers[0] < 1 or numbers[-1] > last:
            raise InputError(f"band {name!r} has {numbers[:5]}...; give tokens from 1 to {last}")
        return Scale(name, tuple(self.predicting[number - 1] for number in numbers))

    def with_scales(self, scales: Sequence[Scale]) -> ModelLayout:
        """Return this layout with other scales.

        Args:
            scales: at least one scale, each with a name of its own.

        Raises:
            InputError: there are no scales, two of one name, or positions that do not predict a
                token of an image.
        """
        names = [scale.name for scale in scales]
        if not scales or len(set(names)) < len(names):
            raise InputError(f"scales need different names, and there must be some; got {names}")
        for scale in scales:
            if self.predicting is not None and not set(scale.tokens) <= set(self.predicting):
                first, last = self.predicting[0], self.predicting[-1]
                raise InputError(
                    f"scale {scale.name!r} has the positions {scale.spans}; "
                    f"those that predict tokens are {first} to {last}"
                )
        return replace(self, scales=tuple(scales))
