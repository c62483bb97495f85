"""Statistics: intervals, paired tests and random controls of counts, and distances of sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.errors import InputError

BLOCKS = 10  # of KID's jackknife
MOST = 20_000  # images a side of which KID takes all pairs: a minute or two of Inception's features


class McNemar(NamedTuple):
    """An exact paired comparison of the same candidates before and after an intervention.

    Attributes:
        lost: candidates extracted before and not after.
        gained: candidates extracted after and not before.
        p_value: two-sided, in (0, 1]; 1 where nothing changed.
    """

    lost: int
    gained: int
    p_value: float


class Threshold(NamedTuple):
    """A threshold, and how sure it is.

    Attributes:
        value: strictly above it lies at most the share of the pictures that was asked for.
        low: lower end of the 95% interval for the value above which just that share of *all* such
            pictures lies; None where these are too few to tell.
        high: upper end; likewise.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Return the interval in words."""
        if self.low is None and self.high is None:
            return "too few for a 95% interval of the threshold"
        if self.low is None:
            return f"95% interval of the threshold: {self.high:.3f} or lower"
        end = "or higher" if self.high is None else f"to {self.high:.3f}"
        return f"95% interval of the threshold: {self.low:.3f} {end}"


def smallest_threshold(
    measure: str, values: Sequence[float] | np.ndarray, rate: float
) -> Threshold:
    """Return the smallest value above which at most a share of all values lies.

    Args:
        measure: what the values are of, for messages.
        values: at least one, all finite.
        rate: the share, in [0, 1); of n values floor(rate * n) may lie strictly above.

    Returns:
        the threshold, with the interval between two of the sorted values that covers the quantile
        1 - rate of all such values with 95% or more, whatever their distribution: of n drawn
        values Binomial(n, rate) lie above that quantile.

    Raises:
        InputError: without values, with values that are not finite, or with another rate.

    Reference:
        Thompson 1936 (intervals between order statistics).

    >>> smallest_threshold("similarity", [0.1, 0.4, 0.3, 0.2], rate=0.25).value
    0.3
    """
    found = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if found.size == 0 or not np.isfinite(found).all():
        raise InputError(
            f"cannot calibrate {measure!r} on {found.size} values, "
            f"{np.count_nonzero(~np.isfinite(found))} of them not finite; "
            "give the similarities of at least one picture"
        )
    if not 0 <= rate < 1:
        raise InputError(f"rate {rate} is outside [0, 1); 0.01 lets one in a hundred be extracted")
    allowed = math.floor(Fraction(str(rate)) * found.size)  # exact: 0.29 * 100 is 28.99...
    return Threshold(float(found[-1 - allowed]), *_around_quantile(found, rate))


def _around_quantile(
    values: np.ndarray, rate: float, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Return the two of the sorted values between which the quantile 1 - rate of all lies."""
    from scipy.stats import binom

    tail, count = (1 - confidence) / 2, len(values)
    most, fewest = (int(binom.ppf(one, count, rate)) for one in (1 - tail, tail))
    low = float(values[count - 1 - most]) if most < count else None
    return low, float(values[count - fewest]) if fewest else None


def wilson(extracted: int, candidates: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share.

    The candidates are a selection, so this is uncertainty over candidates, not over a population.

    Args:
        extracted: how many were extracted, 0 to `candidates`.
        candidates: how many were tried, at least 1.
        confidence: coverage of the interval, in (0, 1).

    Returns:
        lower and upper end, both in [0, 1].

    Raises:
        InputError: without candidates, or with an impossible count or confidence.

    Reference:
        Wilson (1927), without continuity correction.

    >>> [round(end, 3) for end in wilson(672, 5000)]
    [0.125, 0.144]
    """
    return _interval(extracted, candidates, confidence, "wilson")


def clopper_pearson(counted: int, candidates: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share, which covers it at least as often as it says.

    Args:
        counted: how many were counted, 0 to `candidates`.
        candidates: how many were tried, at least 1.
        confidence: coverage of the interval, in (0, 1).

    Returns:
        lower and upper end, both in [0, 1].

    Raises:
        InputError: without candidates, or with an impossible count or confidence.

    Reference:
        Clopper and Pearson (1934).

    >>> [round(end, 3) for end in clopper_pearson(3, 300)]
    [0.002, 0.029]
    """
    return _interval(counted, candidates, confidence, "exact")


def _interval(counted: int, candidates: int, confidence: float, method: str) -> tuple[float, float]:
    from scipy.stats import binomtest

    if not 0 <= counted <= candidates or candidates == 0:
        raise InputError(
            f"cannot give an interval for {counted} of {candidates} candidates; "
            "at least one candidate is needed, and no more extracted than there are"
        )
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is outside (0, 1); 0.95 is usual")
    found = binomtest(counted, candidates).proportion_ci(confidence, method=method)
    return float(found.low), float(found.high)


def mcnemar(before: Sequence[bool] | np.ndarray, after: Sequence[bool] | np.ndarray) -> McNemar:
    """Test whether extraction changed, on the same candidates in the same order.

    Args:
        before: bool, one for each candidate: extracted from the unmodified model.
        after: bool, one for each candidate: extracted from the modified model.

    Returns:
        both kinds of change, and p = min(1, 2 * BinomCDF(min(lost, gained); lost + gained, 1/2)).

    Raises:
        InputError: where the two do not match.

    Reference:
        McNemar (1947), the exact binomial form.

    >>> mcnemar([True] * 6 + [False], [False] * 7)
    McNemar(lost=6, gained=0, p_value=0.03125)
    """
    from scipy.stats import binomtest

    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"before has shape {first.shape} and after {second.shape}; "
            "a paired test needs one value each for the same candidates"
        )
    lost = int(np.count_nonzero(first & ~second))
    gained = int(np.count_nonzero(~first & second))
    changed = lost + gained
    return McNemar(lost, gained, float(binomtest(lost, changed).pvalue) if changed else 1.0)


def control_p_value(observed: int, controls: Sequence[int] | np.ndarray) -> float:
    """Return how often random neurons did at least as well as the selected ones.

    Args:
        observed: extracted candidates after editing the selected neurons; fewer is better.
        controls: the same for each set of random neurons, R of them.

    Returns:
        (1 + number of controls <= observed) / (R + 1), in (0, 1]; with R = 5 never below 1/6.

    Raises:
        InputError: without controls.

    >>> control_p_value(3, [9, 10, 11, 10, 9])
    0.16666666666666666
    """
    values = np.asarray(controls, dtype=np.float64)
    if values.size == 0:
        raise InputError("no random sets were given; a p-value needs at least one, better 20")
    return float((1 + np.count_nonzero(values <= observed)) / (values.size + 1))


def kernel_distance(
    generated: Float64[np.ndarray, "generated feature"],
    reference: Float64[np.ndarray, "reference feature"],
) -> tuple[float, float]:
    """Return KID and its standard error.

    KID is the unbiased estimate of the squared MMD over all pairs, with the kernel
    (x y / features + 1)^3. Each of ten blocks, every tenth image in the order given, is left out of
    both sides once for the error, sqrt(9/10 sum((KID without it - their mean)^2)): pictures that
    are sorted by class thus lose some of every class.

    Of more than 20 000 images a side, as many are taken, evenly spaced.

    Returns:
        both in float64.

    Reference:
        Binkowski et al. 2018 (KID); Shao and Tu 1995 (the grouped jackknife).
    """
    sides = _at_most(generated), _at_most(reference)
    sizes = [[len(side[block::BLOCKS]) for block in range(BLOCKS)] for side in sides]
    within = [_kernel_sums(side, side) - np.diag(_kernel_traces(side)) for side in sides]
    between = _kernel_sums(*sides)

    def estimate(kept: np.ndarray) -> float:
        among = np.ix_(kept, kept)
        m, n = (float(np.array(size)[kept].sum()) for size in sizes)
        same = within[0][among].sum() / (m * (m - 1)) + within[1][among].sum() / (n * (n - 1))
        return float(same - 2 * between[among].sum() / (m * n))

    blocks = np.arange(BLOCKS)
    without = np.array([estimate(np.delete(blocks, block)) for block in blocks])
    spread = np.square(without - without.mean()).sum() * (BLOCKS - 1) / BLOCKS
    return estimate(blocks), float(np.sqrt(spread))


def _at_most(features: np.ndarray) -> np.ndarray:
    """Return the rows that KID is computed of: all, or evenly spaced ones of many."""
    if len(features) <= MOST:
        return features
    rows: np.ndarray = features[np.linspace(0, len(features) - 1, MOST).round().astype(int)]
    return rows


def _kernel_sums(one: np.ndarray, other: np.ndarray) -> Float64[np.ndarray, "block other_block"]:
    """Return the kernel's sum over all pairs of images of each two blocks."""
    parts = [[side[block::BLOCKS] for block in range(BLOCKS)] for side in (one, other)]
    return np.array([[_cubed(a @ b.T / a.shape[1] + 1).sum() for b in parts[1]] for a in parts[0]])


def _kernel_traces(images: np.ndarray) -> Float64[np.ndarray, " block"]:
    """Return the kernel's sum over each block's images with themselves."""
    own = _cubed(np.square(images).sum(axis=1) / images.shape[1] + 1)
    return np.array([own[block::BLOCKS].sum() for block in range(BLOCKS)])


def _cubed(values: np.ndarray) -> np.ndarray:
    cubes: np.ndarray = values * values * values  # many times faster than a power
    return cubes
