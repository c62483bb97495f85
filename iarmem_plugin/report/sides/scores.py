"""Whether several scores lead to the same neurons: rank correlations, and overlaps of the top."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from iarmem_plugin.errors import InputError
from iarmem_plugin.neurons.selectors import by_number, check_fraction, check_valid
from iarmem_plugin.report.document import plain
from iarmem_plugin.report.grid.csv_tables import csv_file
from iarmem_plugin.report.sides.folder import write_folder
from iarmem_plugin.table import TextTable

FILES = ("score_comparison.json", "score_comparison.csv", "heatmaps.png")
MEAN = "mean over scales"
COLUMNS = ("scores", "scale", "neurons", "rank correlation", "shared of top", "share", "by chance")


@dataclass(frozen=True, slots=True)
class ScorePair:
    """Two scores of the same neurons, at one scale or over all.

    Attributes:
        first: name of the first scores.
        second: name of the second.
        scale: name of the scale, or ``"mean over scales"``, where a score that is not valid
            counts 0, as selectors have it.
        neurons: how many are valid in both; the others are left out.
        correlation: Spearman's rank correlation in [-1, 1], ties at their mean rank; None where
            one side has a single value.
        top: how many the top is, ceil(fraction x neurons).
        shared: how many neurons are in the top of both; ties as selectors have it.
        share: shared / top; None without neurons.
        chance: what is expected of `share` where the two have nothing in common.
        chance_low: lower end of the central 95% of `share` there (hypergeometric).
        chance_high: upper end.
    """

    first: str
    second: str
    scale: str
    neurons: int
    correlation: float | None
    top: int
    shared: int
    share: float | None
    chance: float | None
    chance_low: float | None
    chance_high: float | None


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """Scores of the same neurons, pair by pair.

    Attributes:
        fraction: share of the neurons that is called the top.
        metrics: the metric of each, by name.
        pairs: each pair at each scale, the mean over the scales first.
        scores: the scores, by name.
    """

    fraction: float
    metrics: Mapping[str, str]
    pairs: tuple[ScorePair, ...]
    scores: Mapping[str, xr.Dataset] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        pairs = [asdict(one) for one in self.pairs]
        found: dict[str, Any] = plain(
            {"fraction": self.fraction, "metrics": self.metrics, "pairs": pairs}
        )
        return found

    def table(self) -> TextTable:
        """Return a row a pair and scale, to print."""
        rows = (
            (
                f"{one.first} – {one.second}",
                one.scale,
                str(one.neurons),
                _said(one.correlation),
                f"{one.shared}/{one.top}",
                _said(one.share),
                f"{_said(one.chance)} [{_said(one.chance_low)}, {_said(one.chance_high)}]",
            )
            for one in self.pairs
        )
        title = f"Scores of the same neurons, and the top {100 * self.fraction:g}% of each"
        note = "by chance: what two unrelated scores would share, with the central 95%"
        return TextTable(title, COLUMNS, rows, numbers=COLUMNS[2:], notes=[note])

    def save(self, folder: str | Path) -> Path:
        """Write ``score_comparison.json``, the same as CSV, and ``heatmaps.png``, or nothing.

        Returns:
            the folder.

        Raises:
            InputError: the folder holds other files.
            DiskFullError: there is no room.
        """
        from iarmem_plugin.report.figures import png
        from iarmem_plugin.report.sides.figure import heatmaps

        document = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        header = list(ScorePair.__dataclass_fields__)
        contents = {
            FILES[0]: document.encode(),
            FILES[1]: csv_file(header, [list(asdict(one).values()) for one in self.pairs]),
            FILES[2]: png(heatmaps(self.scores)),
        }
        return write_folder(Path(folder), contents, FILES)


def compare_scores(scores: Mapping[str, xr.Dataset], *, fraction: float = 0.1) -> ScoreComparison:
    """Compare scores of the same neurons, such as those made from several sets of images.

    Args:
        scores: two or more of what `localize` or `load_scores` returned, by what they are called.
        fraction: share of the neurons that is called the top, in (0, 1].

    Raises:
        InputError: fewer than two, of other blocks, scales or neurons, or another fraction.
    """
    check_fraction(fraction)
    if len(scores) < 2:
        raise InputError(f"{len(scores)} scores were given; give two or more")
    made = {name: _layout(name, one) for name, one in scores.items()}
    first, *others = made
    for name in others:
        if made[name] != made[first]:
            raise InputError(
                f"{name} has {_words(made[name])}, and {first} {_words(made[first])}; scores of "
                "the same neurons at the same scales can be compared"
            )
    pairs = [
        pair
        for one, other in combinations(scores, 2)
        for pair in _pairs((one, scores[one]), (other, scores[other]), fraction)
    ]
    metrics = {name: str(one.attrs.get("metric", "score")) for name, one in scores.items()}
    return ScoreComparison(fraction, metrics, tuple(pairs), dict(scores))


Layout = tuple[int, int, tuple[str, ...]]  # blocks, neurons, names of the scales


def _layout(name: str, scores: xr.Dataset) -> Layout:
    if "score" not in scores or set(scores["score"].dims) != {"block", "scale", "neuron"}:
        raise InputError(f"{name} has no variable 'score' with dims block, scale, neuron")
    check_valid(scores)
    return scores.sizes["block"], scores.sizes["neuron"], tuple(_scales(scores))


def _scales(scores: xr.Dataset) -> list[str]:
    names: list[str] = scores.coords.get("scale_name", scores["scale"]).values.astype(str).tolist()
    return names


def _words(layout: Layout) -> str:
    blocks, neurons, scales = layout
    few = ", ".join(scales[:4]) + (", …" if len(scales) > 4 else "")
    return f"{blocks} blocks of {neurons} neurons at {len(scales)} scales ({few})"


def _pairs(
    first: tuple[str, xr.Dataset], second: tuple[str, xr.Dataset], fraction: float
) -> Iterator[ScorePair]:
    names = (first[0], second[0])
    ours, theirs = (list(_by_scale(scores)) for _, scores in (first, second))
    for scale, (one, one_valid), (other, other_valid) in zip(
        (MEAN, *_scales(first[1])), ours, theirs, strict=True
    ):
        both = one_valid & other_valid
        yield _pair((*names, scale), one[both], other[both], fraction)


def _by_scale(
    scores: xr.Dataset,
) -> Iterator[tuple[Float64[np.ndarray, " neuron"], Bool[np.ndarray, " neuron"]]]:
    """Yield the scores of all neurons, block by block, and which are valid; the mean first."""
    found = by_number(scores["score"])
    valid = found.coords.get("valid", xr.ones_like(found, bool)).broadcast_like(found)
    shape = (found.sizes["scale"], -1)
    values, allowed = (
        one.transpose("scale", "block", "neuron").to_numpy().reshape(shape)
        for one in (found.where(valid, 0).astype(np.float64), valid.astype(bool))
    )
    yield values.mean(axis=0), np.asarray(allowed.any(axis=0))
    yield from zip(values, allowed, strict=True)


def _pair(
    names: tuple[str, str, str],
    one: Float64[np.ndarray, " neuron"],
    other: Float64[np.ndarray, " neuron"],
    fraction: float,
) -> ScorePair:
    """Compare two scores of the same valid neurons; names are those of both and of the scale."""
    from scipy.stats import hypergeom, spearmanr

    neurons = len(one)
    if not neurons:
        return ScorePair(*names, 0, None, 0, 0, None, None, None, None)
    spread = min(np.ptp(one), np.ptp(other)) > 0
    correlation = float(spearmanr(one, other).statistic) if spread else None
    top = math.ceil(Fraction(str(fraction)) * neurons)
    first, second = (np.argsort(-side, kind="stable")[:top] for side in (one, other))
    shared = len(np.intersect1d(first, second))
    low, high = (float(end) / top for end in hypergeom.interval(0.95, neurons, top, top))
    overlap = (shared, shared / top, top / neurons)
    return ScorePair(*names, neurons, correlation, top, *overlap, low, high)


def _said(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
