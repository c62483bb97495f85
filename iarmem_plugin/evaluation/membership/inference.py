"""Dataset inference: how many pictures it takes to show that a model was trained on a set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.checks import check_integer
from iarmem_plugin.errors import InputError

LEVEL, DRAWS, FEWEST = 0.01, 200, 4  # p, random subsets, pictures a side


@dataclass(frozen=True, slots=True)
class DatasetInference:
    """What a set of pictures shows together that each of them does not.

    Attributes:
        smallest: number of members from which on the median p over random subsets is below 0.01;
            None where all that were tested do not suffice.
        p: p-value of all tested members, in [0, 1].
        members: number of members that were tested; as many or one fewer fixed the weights.
        others: number of other pictures that were tested; likewise.
    """

    smallest: int | None
    p: float
    members: int
    others: int

    def __str__(self) -> str:
        """Return the number, or that it is not reached."""
        if self.smallest is None:
            return f"not reached with n={self.members} (p = {self.p:.2g})"
        return f"{self.smallest} of {self.members}"


def dataset_inference(
    members: Float64[np.ndarray, "member signal"],
    others: Float64[np.ndarray, "other signal"],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> DatasetInference | None:
    """Return how many members show that a model takes their set for a part of its training.

    Either side is halved at random. On the first halves signals are standardised, and weighted by
    least squares with no weight below 0: what is less member-like is never counted for members.
    The weighted sums of the second halves are compared by Welch's t test, one-sided: members above
    the others. For each n the test is made of `draws` random subsets of n members against all the
    others, and p is their median; the number is the smallest n at which, and at every larger one,
    p is below 0.01. So a set without any difference has a number no more often than all of its
    second half is below 0.01 by chance: 1%, over sets and seeds.

    A set that has one differs from the others to the model. That it is training which tells them
    apart follows only where they are alike in all else.

    Args:
        members: signals of pictures that may be members, finite; larger is more member-like.
        others: signals of pictures that are none.
        seed: seed for drawing halves and subsets.
        draws: number of random subsets of each size.

    Returns:
        the number with its p; None where a side has fewer than 4 pictures. p is 1 where no weighted
        sum differs from another, as where no signal is larger for members.

    Raises:
        InputError: signals that are not finite, or fewer than 1 draw.

    Reference:
        Maini et al. 2024, arXiv 2406.06443 (dataset inference); Kowalczuk et al. 2025,
        arXiv 2502.02514 (of image autoregressive models).
    """
    check_integer("draws", draws, least=1)
    for side in (members, others):
        if not np.isfinite(side).all():
            raise InputError("some of the signals are not finite; measure them on sound logits")
    if min(len(members), len(others)) < FEWEST:
        return None
    random = np.random.default_rng(seed)
    (fitted, tested), (fitted_others, tested_others) = (
        np.array_split(random.permutation(side), [len(side) // 2]) for side in (members, others)
    )
    weights = _weights(fitted, fitted_others)
    ours, theirs = tested @ weights, tested_others @ weights
    p = _median_p(ours, theirs, draws, random)
    enough = 2 + int(np.max(np.flatnonzero(p >= LEVEL), initial=-1)) + 1
    smallest = enough if enough <= len(ours) else None
    return DatasetInference(smallest, float(p[-1]), len(ours), len(theirs))


def _weights(
    members: Float64[np.ndarray, "member signal"], others: Float64[np.ndarray, "other signal"]
) -> Float64[np.ndarray, " signal"]:
    """Return weights of 0 or more under which members are above the others, by least squares.

    Without that bound they are those of linear discriminant analysis.
    """
    from scipy.optimize import nnls

    every = np.concatenate((members, others))
    spread = every.std(axis=0)
    spread[np.ptp(every, axis=0) == 0] = 1.0  # a signal that tells nothing
    sides = np.repeat([1.0, 0.0], [len(members), len(others)])
    found, _ = nnls((every - every.mean(axis=0)) / spread, sides - sides.mean())
    return np.asarray(found / spread)


def _median_p(
    members: Float64[np.ndarray, " member"],
    others: Float64[np.ndarray, " other"],
    draws: int,
    random: np.random.Generator,
) -> Float64[np.ndarray, " size"]:
    """Return the median p-value of random subsets of 2, 3, … and all members.

    Subsets of one draw are nested, so that sums of all sizes are made at once.
    """
    from scipy.stats import ttest_ind_from_stats

    sizes = np.arange(1, len(members) + 1)
    drawn = random.permuted(np.tile(members - members.mean(), (draws, 1)), axis=1)
    means = drawn.cumsum(axis=1) / sizes
    squares = np.square(drawn).cumsum(axis=1) - sizes * np.square(means)
    spread = np.sqrt(np.maximum(squares[:, 1:], 0) / (sizes[1:] - 1))
    with np.errstate(all="ignore"):  # nothing varies: NaN
        found = ttest_ind_from_stats(
            *(means[:, 1:], spread, sizes[1:]),
            *(others.mean() - members.mean(), others.std(ddof=1), len(others)),
            equal_var=False,
            alternative="greater",
        )
    return np.asarray(np.median(np.nan_to_num(found.pvalue, nan=1.0), axis=0))
