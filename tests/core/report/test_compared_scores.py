"""Scores of the same neurons, compared: rank correlation and overlap, by hand and by a law."""

from __future__ import annotations

import csv
import json
from io import BytesIO
from math import comb
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from iarmem_plugin import InputError, compare_scores
from iarmem_plugin.report.figures import png
from iarmem_plugin.report.sides.figure import heatmaps

from .conftest import HOSTILE, make_scores


def scores_of(*scales: list[float], valid: list[bool] | None = None) -> xr.Dataset:
    """Return scores of two blocks of half the neurons each, a list a scale."""
    values = np.array(scales, np.float64).reshape(len(scales), 2, -1).transpose(1, 0, 2)
    allowed = np.ones(values.shape, bool)
    if valid is not None:
        allowed[:] = np.array(valid).reshape(2, 1, -1)
    names = [f"scale {place}" for place in range(len(scales))]
    return xr.Dataset(
        {"score": (("block", "scale", "neuron"), values)},
        coords={
            "scale_name": ("scale", names),
            "valid": (("block", "scale", "neuron"), allowed),
        },
        attrs={"metric": "unitmem"},
    )


def test_ranks_and_overlaps_are_those_worked_by_hand() -> None:
    one = scores_of([1.0, 2, 3, 4, 5, 6], [0.0] * 6)
    other = scores_of([2.0, 1, 3, 4, 6, 5], [1.0, 2, 3, 4, 5, 6])
    joined, first, second = compare_scores({"a": one, "b": other}, fraction=0.5).pairs
    # three swaps of neighbours: 1 - 6 * 4 / (6 * 35)
    assert (first.scale, first.neurons, first.top) == ("scale 0", 6, 3)
    assert first.correlation == pytest.approx(1 - 6 * 4 / 210)
    assert (first.shared, first.share, first.chance) == (3, 1.0, 0.5)
    assert second.correlation is None  # a single value has no ranks
    assert second.shared == 0  # ties go to the first neurons, as selectors have it
    # joined: [0.5, 1, 1.5, ...] and [1.5, 1.5, 3, 4, 5.5, 5.5]; ties at their mean rank
    assert (joined.first, joined.second, joined.scale) == ("a", "b", "mean over scales")
    ranks = np.corrcoef([1, 2, 3, 4, 5, 6], [1.5, 1.5, 3, 4, 5.5, 5.5])[0, 1]
    assert joined.correlation == pytest.approx(ranks)


def test_chance_is_that_of_drawing_without_putting_back() -> None:
    values = np.arange(20.0).tolist()
    (pair, _) = compare_scores(
        {"a": scores_of(values), "b": scores_of(values)}, fraction=0.25
    ).pairs
    assert (pair.top, pair.chance) == (5, pytest.approx(0.25))
    chances = [comb(5, k) * comb(15, 5 - k) / comb(20, 5) for k in range(6)]
    below = np.cumsum(chances)
    assert pair.chance_low == np.argmax(below >= 0.025) / 5
    assert pair.chance_high == np.argmax(below >= 0.975) / 5


def test_neurons_that_are_not_valid_in_both_are_left_out() -> None:
    one = scores_of([9.0, 1, 2, 3], valid=[False, True, True, True])
    other = scores_of([0.0, 1, 2, 9], valid=[True, True, True, False])
    for pair in compare_scores({"a": one, "b": other}, fraction=0.5).pairs:
        assert (pair.neurons, pair.top, pair.shared) == (2, 1, 1)
        assert pair.correlation == pytest.approx(1)
    nobody = scores_of([0.0, 1, 2, 9], valid=[False] * 4)
    pair, _ = compare_scores({"a": one, "b": nobody}).pairs
    assert (pair.neurons, pair.correlation, pair.share, pair.chance) == (0, None, None, None)


def test_the_order_of_blocks_in_the_file_is_no_matter() -> None:
    scores = make_scores()
    turned = scores.isel(block=[3, 1, 0, 2], neuron=slice(None, None, -1))
    for pair in compare_scores({"a": scores, "b": turned}).pairs:
        assert pair.correlation == pytest.approx(1)
        assert pair.share == 1


def test_unrelated_scores_share_what_chance_says() -> None:
    random = np.random.default_rng(0)
    names = [f"{place}" for place in range(12)]
    found = compare_scores({name: scores_of(random.random(1000).tolist()) for name in names})
    pairs = found.pairs[1::2]
    assert len(pairs) == 66
    assert np.mean([pair.share or 0.0 for pair in pairs]) == pytest.approx(0.1, abs=0.01)
    inside = [
        (pair.chance_low or 0) <= (pair.share or 0.0) <= (pair.chance_high or 0) for pair in pairs
    ]
    assert np.mean(inside) >= 0.9


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_scores().isel(neuron=slice(3)), "4 blocks of 3 neurons at 6 scales"),
        (make_scores().isel(scale=slice(2)), r"at 2 scales \(0, 1\)"),
        (make_scores().isel(scale=[1, 0, 2, 3, 4, 5]), r"scales \(1, 0, 2, 3, …\)"),
        (make_scores().isel(block=0), "b has no variable 'score' with dims block, scale, neuron"),
    ],
    ids=["neurons", "scales", "names", "dims"],
)
def test_scores_of_other_neurons_are_refused(other: xr.Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_scores({"a": make_scores(), "b": other})


def test_one_alone_and_other_fractions_are_refused() -> None:
    with pytest.raises(InputError, match="1 scores were given; give two or more"):
        compare_scores({"a": make_scores()})
    with pytest.raises(InputError, match=r"expected one in \(0, 1\]"):
        compare_scores({"a": make_scores(), "b": make_scores()}, fraction=0.0)


def test_it_is_written_as_json_a_table_and_heatmaps(tmp_path: Path) -> None:
    found = compare_scores({HOSTILE: make_scores(), "b": make_scores()})
    folder = found.save(found.save(tmp_path / "compared"))
    assert json.loads((folder / "score_comparison.json").read_text()) == found.to_dict()
    with (folder / "score_comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["scale"] for row in rows] == ["mean over scales", *map(str, range(6))]
    assert float(rows[0]["share"]) == 1
    with Image.open(folder / "heatmaps.png") as image:
        assert image.width > image.height
    assert "mean over scales" in str(found.table())


def test_heatmaps_stand_side_by_side_in_rows_of_three() -> None:
    def size(count: int) -> tuple[int, int]:
        with Image.open(
            BytesIO(png(heatmaps({str(n): make_scores() for n in range(count)})))
        ) as one:
            return one.size

    wide, high = size(3)
    assert size(2)[0] == pytest.approx(2 * wide / 3, abs=2)
    assert size(4) == (wide, 2 * high)
