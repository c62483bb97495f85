"""Scores to neurons: the highest, the lowest, or random ones, over the model or in each block."""

from __future__ import annotations

import math
from abc import abstractmethod
from fractions import Fraction
from typing import TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from iarmem_plugin.checks import check_integer, check_kind, check_number
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Selector
from iarmem_plugin.plugins.blame import author, blamed
from iarmem_plugin.plugins.create import create
from iarmem_plugin.plugins.hookspecs import hookimpl

POOLS = ("model", "block")
JOINS = ("mean", "sum", "max")
NEURONS = ("block", "neuron")

Scores = TypeVar("Scores", xr.Dataset, xr.DataArray)


def select(
    scores: xr.Dataset | xr.DataArray,
    *,
    fraction: float,
    selector: str | Selector = "highest",
    seed: int = 0,
) -> xr.DataArray:
    """Pick a fraction of the neurons by their scores.

    Args:
        scores: scores that `localize` or a metric's `compute` returned.
        fraction: share of all neurons to select, in (0, 1].
        selector: name of a selector, be it with options (``"highest:pool=block"``), or an
            instance.
        seed: seed for selectors that draw at random.

    Returns:
        which neurons are selected, bool, dims (block, neuron).

    Raises:
        InputError: if the fraction is outside (0, 1] or the scores cannot be used.
        UnknownNameError: if no selector has that name.
        PluginError: if the selector returns something else than a fraction of the neurons.
    """
    check_kind("scores", scores, (xr.Dataset, xr.DataArray), "what localize returned")
    check_fraction(fraction)
    check_integer("the seed", seed, least=0)
    chosen = create("selector", selector) if isinstance(selector, str) else selector
    check_kind("the selector", chosen, Selector, "a selector, or the name of one")
    data = scores if isinstance(scores, xr.Dataset) else scores.to_dataset(name="score")
    with blamed(chosen):
        selected = chosen.select(data.copy(deep=True), fraction=fraction, seed=seed)
    return _checked(chosen, selected, data, fraction)


class _Pooled(Selector):
    """Joins the scales, ranks the neurons of each pool, and takes the first of each.

    Args:
        pool: neurons that are ranked together: ``"model"`` for all, ``"block"`` for those of each
            block.
        scales: way of joining a neuron's scales: ``"mean"``, ``"sum"``, ``"max"``, or the names of
            the scales whose mean is taken. A score that is not valid counts 0.
        by: variable that ranks the neurons, ``"score"`` or ``"mean_activation"``.

    Raises:
        InputError: the pool or the scales are none of these.
    """

    def __init__(
        self, pool: str = "model", scales: str | tuple[str, ...] = "mean", by: str = "score"
    ) -> None:
        check_pool(pool)
        joins = f"one of {', '.join(JOINS)}, or a tuple of scale names"
        check_kind("scales", scales, (str, tuple, list), joins)
        if isinstance(scales, str) and scales not in JOINS:
            raise InputError(f"scales {scales!r} was given; expected {joins}")
        for name in () if isinstance(scales, str) else scales:
            check_kind("the name of a scale", name, str, "a text")
        check_kind("by", by, str, "the name of a variable of the scores")
        self.pool, self.by = pool, by
        self.scales = scales if isinstance(scales, str) else tuple(scales)

    def select(self, scores: xr.Dataset, *, fraction: float, seed: int) -> xr.DataArray:
        """Pick ceil(fraction x n) of the n neurons of each pool, never one that is not valid.

        Args:
            scores: variables with dims (block, scale, neuron) and the coordinate ``valid``.
            fraction: share of all neurons to select, in (0, 1].
            seed: seed for `Random`.

        Returns:
            which neurons are selected, bool, dims (block, neuron). Ties go to the lower block,
            then the lower neuron.

        Raises:
            InputError: if the fraction is outside (0, 1], the seed is negative, or the scores lack
                what is asked for.
        """
        check_fraction(fraction)
        check_integer("the seed", seed, least=0)
        joined, valid = self._join(scores)
        rows = (1, -1) if self.pool == "model" else (joined.sizes["block"], -1)
        values, selectable = joined.to_numpy().reshape(rows), valid.to_numpy().reshape(rows)
        chosen = np.zeros(values.shape, bool)
        for pool, (value, allowed) in enumerate(zip(values, selectable, strict=True)):
            order = self._order(value, np.random.default_rng([seed, pool]))
            chosen[pool, order[allowed[order]][: _count(fraction, value.size)]] = True
        if not chosen.any():
            raise InputError("no neuron is valid, so none can be selected; capture more images")
        return joined.copy(data=chosen.reshape(joined.shape)).rename("selected")

    @abstractmethod
    def _order(
        self, values: Float[np.ndarray, " neuron"], random: np.random.Generator
    ) -> Int[np.ndarray, " neuron"]:
        """Return the positions of a pool's neurons, first choice first."""

    def _join(self, scores: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
        if self.by not in scores:
            raise InputError(
                f"the scores have no {self.by!r}; they have {sorted(map(str, scores))}"
            )
        check_valid(scores, self.by)
        score = self._used(by_number(scores[self.by]))
        valid = score["valid"] if "valid" in score.coords else xr.ones_like(score, bool)
        valid = valid.broadcast_like(score)
        score = score.where(valid, 0).drop_vars(["valid", "top_image"], errors="ignore")
        if not np.isfinite(score.to_numpy()).all():
            raise InputError(f"{self.by!r} is not finite for some valid neurons; score them again")
        join = "mean" if not isinstance(self.scales, str) else self.scales
        joined = getattr(score.transpose(*NEURONS, "scale"), join)("scale")
        return joined, valid.any("scale").transpose(*NEURONS)

    def _used(self, score: xr.DataArray) -> xr.DataArray:
        if isinstance(self.scales, str):
            return score
        coordinate = "scale_name" if "scale_name" in score.coords else "scale"
        names = [str(name) for name in score[coordinate].to_numpy()]
        unknown = [name for name in self.scales if name not in names]
        if unknown or not self.scales:
            raise InputError(f"no scale is named {unknown}; there are {', '.join(names)}")
        return score.isel(scale=[names.index(name) for name in self.scales])


class Highest(_Pooled):
    """Select the neurons with the highest scores: the paper's choice.

    Nested: a smaller fraction's neurons are among those of a larger one.
    """

    name = "highest"

    def _order(
        self, values: Float[np.ndarray, " neuron"], random: np.random.Generator
    ) -> Int[np.ndarray, " neuron"]:
        return np.argsort(-values, kind="stable")


class Lowest(_Pooled):
    """Select the neurons with the lowest scores: a control. Nested, as `Highest`."""

    name = "lowest"

    def _order(
        self, values: Float[np.ndarray, " neuron"], random: np.random.Generator
    ) -> Int[np.ndarray, " neuron"]:
        return np.argsort(values, kind="stable")


class Random(_Pooled):
    """Select neurons at random by seed, among those that are valid: a control.

    Nested for one seed: a fraction's neurons are the first of one permutation.
    """

    name = "random"

    def _order(
        self, values: Float[np.ndarray, " neuron"], random: np.random.Generator
    ) -> Int[np.ndarray, " neuron"]:
        return random.permutation(values.size)


class RandomMatched(Selector):
    """Select neurons at random that are as active as those another selector takes: a control.

    Neurons are put into bins by quantiles of their mean activation, over the model or in each
    block. From each bin as many are drawn as the other selector takes there, among all that are
    valid, those it takes included: so these sets ask what it adds to knowing how active neurons
    are. Nested for one seed, where the other selector is: a bin's neurons are the first of one
    permutation.

    Args:
        to: the other selector, be it with options, such as ``"highest:pool=block"``.
        bins: number of bins, or of bins a block; neurons of equal activity share one.
        pool: what quantiles are of: ``"model"`` for all neurons, ``"block"`` for each block's.

    Raises:
        InputError: no bins, another pool, or a selector that cannot be made.
        UnknownNameError: no selector has that name.
    """

    name = "random-matched"

    def __init__(self, to: str = "highest", bins: int = 20, pool: str = "model") -> None:
        check_kind("to", to, str, "the name of a selector")
        check_integer("bins", bins, least=1)
        check_pool(pool)
        create("selector", to)
        self.to, self.bins, self.pool = to, bins, pool

    def select(self, scores: xr.Dataset, *, fraction: float, seed: int) -> xr.DataArray:
        """Draw as many neurons of each bin as the other selector takes there.

        Args:
            scores: as for any selector, with ``mean_activation``.
            fraction: share of all neurons to select, in (0, 1].
            seed: seed for drawing; the other selector gets it, too.

        Raises:
            InputError: the scores hold no mean activation, or lack what the other one needs.
            PluginError: the other selector returns something else than a fraction of the neurons.
        """
        mean, valid = Highest(by="mean_activation")._join(scores)
        taken = select(scores, fraction=fraction, selector=self.to, seed=seed).to_numpy()
        bins = self._bins(mean.to_numpy(), valid.to_numpy())
        order = np.random.default_rng(seed).permutation(mean.size)
        chosen = np.zeros(mean.size, bool)
        for place in np.unique(bins[taken]):
            there = bins == place
            drawn = order[(there & valid.to_numpy()).ravel()[order]]
            chosen[drawn[: int((there & taken).sum())]] = True
        return mean.copy(data=chosen.reshape(mean.shape)).rename("selected")

    def _bins(
        self, mean: Float[np.ndarray, "block neuron"], valid: Bool[np.ndarray, "block neuron"]
    ) -> Int[np.ndarray, "block neuron"]:
        """Return the number of each neuron's bin, no two blocks' alike where each has its own."""
        cuts = np.linspace(0, 1, self.bins + 1)[1:-1]
        shape = (1, -1) if self.pool == "model" else (len(mean), -1)
        pools = zip(mean.reshape(shape), valid.reshape(shape), strict=True)
        found = [
            place * self.bins + np.searchsorted(_cut(values[own], cuts), values, "right")
            for place, (values, own) in enumerate(pools)
        ]
        return np.stack(found).reshape(mean.shape)


def _cut(
    values: Float[np.ndarray, " valid"], cuts: Float[np.ndarray, " cut"]
) -> Float[np.ndarray, " cut"]:
    """Return quantiles; a block without valid neurons has some, too."""
    found: np.ndarray = np.quantile(values if values.size else 0.0, cuts)
    return found


def check_pool(pool: object) -> None:
    """Refuse what is no way of pooling neurons.

    Raises:
        InputError: naming it, and those there are.
    """
    if pool not in POOLS:
        raise InputError(f"the pool {pool!r} was given; expected one of {', '.join(POOLS)}")


def _checked(
    selector: Selector, selected: object, scores: xr.Dataset, fraction: float
) -> xr.DataArray:
    """Return what a selector selected, in the order of the neurons' numbers.

    Raises:
        PluginError: other neurons than there are, no truth values, another number than the
            fraction, or neurons that are not valid.
    """
    dims = {dim: scores.sizes[dim] for dim in NEURONS}
    if not isinstance(selected, xr.DataArray):
        found = f"a {type(selected).__name__}"
    elif dict(selected.sizes) != dims:
        found = f"sizes {dict(selected.sizes)}"
    elif selected.dtype != bool:
        found = f"values of type {selected.dtype}"
    else:
        return _of_those(selector, selected, scores, fraction)
    raise PluginError(f"{author(selector)} returned {found}; expected bool with sizes {dims}")


def _of_those(
    selector: Selector, selected: xr.DataArray, scores: xr.Dataset, fraction: float
) -> xr.DataArray:
    try:
        selected, scores = by_number(selected), by_number(scores)
    except InputError as error:
        raise PluginError(f"{author(selector)}: {error}") from error
    selected = selected.transpose(*NEURONS)
    allowed = _selectable(scores).transpose(*NEURONS).to_numpy()
    count, exact = int(selected.sum()), Fraction(repr(float(fraction))) * selected.size
    share = exact / len(allowed)
    fewest = sum(min(share, block.sum().item()) for block in allowed)
    if not fewest <= count < exact + len(allowed):
        raise PluginError(
            f"{author(selector)} selected {count} of {selected.size} neurons for the fraction "
            f"{fraction}; expected {math.ceil(exact)}, or less than one a block more"
        )
    if wrong := int((selected.to_numpy() & ~allowed).sum()):
        raise PluginError(f"{author(selector)} selected {wrong} neurons that are not valid")
    return selected


def _selectable(scores: xr.Dataset) -> xr.DataArray:
    """Return which neurons are valid at some scale."""
    every = xr.ones_like(next(iter(scores.data_vars.values())), bool)
    valid = every if "valid" not in scores.coords else scores["valid"].broadcast_like(every)
    return valid.any([dim for dim in valid.dims if dim not in NEURONS])


def by_number(scores: Scores) -> Scores:
    """Return scores or selections with their blocks and neurons in the order of their numbers.

    Args:
        scores: anything with the dims (block, neuron); what has no such coordinates is in order.

    Raises:
        InputError: a number is no whole number, or comes twice, or one is missing.
    """
    for dim in NEURONS:
        if dim not in scores.coords or dim not in scores.dims:
            continue
        numbers = scores[dim].to_numpy()
        if numbers.dtype.kind not in "iu" or (numbers < 0).any():
            raise InputError(
                f"the numbers of {dim}s are not whole numbers from 0; score them again"
            )
        found, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            raise InputError(
                f"{dim} {found[counts > 1][0]} is there {counts.max()} times; give each once"
            )
        if (largest := int(numbers.max(initial=-1))) != len(numbers) - 1:
            raise InputError(
                f"{dim} {largest} is there, but only {len(numbers)} {dim}s; give all from 0, each "
                "once"
            )
        if (found != numbers).any():
            scores = scores.sortby(dim)
    return scores


def check_valid(scores: xr.Dataset, by: str = "score") -> None:
    """Refuse a coordinate ``valid`` that does not say of each score whether it is one.

    Args:
        scores: scores that may have the coordinate.
        by: name of the variable that it is about.

    Raises:
        InputError: it is not of truth values, or has other dims.
    """
    valid, dims = scores.coords.get("valid"), scores[by].dims
    if valid is not None and not (valid.dtype == bool and set(valid.dims) <= set(dims)):
        raise InputError(
            f"the coordinate 'valid' is {valid.dtype} with dims {valid.dims}; expected bool with "
            f"dims {dims}"
        )


def check_fraction(fraction: float) -> None:
    """Refuse a fraction that does not select a share of the neurons.

    Args:
        fraction: share of all neurons.

    Raises:
        InputError: if it is outside (0, 1].
    """
    check_number("the fraction", fraction)
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction {fraction} was given; expected one in (0, 1]")


def _count(fraction: float, neurons: int) -> int:
    # exact in decimals: 0.1 x 30 neurons are 3, not the 4 that binary rounding would give
    return math.ceil(Fraction(repr(float(fraction))) * neurons)


@hookimpl
def provide_selectors() -> list[type[Selector]]:
    """Provide the highest, the lowest and random neurons, and those matched on activity."""
    return [Highest, Lowest, Random, RandomMatched]
