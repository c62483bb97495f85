"""The figures show what they were given, whatever the names, and touch no global state."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from iarmem_plugin.report import figures as plots
from iarmem_plugin.report.results import block_sums

HOSTILE = r"<script>$\frac{</script> 猫"


def make_scores(block: int = 3, scale: int = 5, neuron: int = 16) -> xr.Dataset:
    score = np.random.default_rng(0).random((block, scale, neuron)).astype("float32")
    return xr.Dataset(
        {"score": (("block", "scale", "neuron"), score)},
        coords={
            "block": range(block),
            "scale": range(scale),
            "neuron": range(neuron),
            "scale_name": ("scale", [f"s{place}" for place in range(scale)]),
            "valid": (("block", "scale", "neuron"), np.ones(score.shape, dtype=bool)),
        },
        attrs={"metric": "unitmem"},
    )


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def test_the_heatmap_shows_block_sums_with_scales_by_name() -> None:
    scores = make_scores()
    axes = plots.heatmap(scores).axes[0]
    expected = scores["score"].sum("neuron").values
    np.testing.assert_allclose(axes.images[0].get_array(), expected, rtol=1e-6)  # float32 sums
    assert [label.get_text() for label in axes.get_xticklabels()] == ["s0", "s1", "s2", "s3", "s4"]


def test_a_neuron_that_is_not_valid_counts_nothing_in_the_sum() -> None:
    scores = make_scores(1, 1, 3)
    scores["score"][:] = np.array([[[0.25, np.nan, 0.5]]])
    scores["valid"][:] = np.array([[[True, False, False]]])
    assert block_sums(scores).item() == 0.25


def test_sums_are_the_same_whatever_the_order_of_dimensions() -> None:
    scores = make_scores()
    turned = scores.transpose("neuron", "scale", "block")
    xr.testing.assert_allclose(block_sums(turned), block_sums(scores))


def test_rar_with_its_single_scale_is_drawn() -> None:
    scores = make_scores(40, 1, 64)
    scores = scores.assign_coords(scale_name=("scale", ["last token"]))
    assert len(plots.neurons_by_block(scores).axes) == 2  # one picture and the colour bar
    assert plots.heatmap(scores).axes[0].get_xticklabels()[0].get_text() == "last token"
    plots.png(plots.histogram(scores))


@pytest.mark.parametrize(
    ("scales", "chosen"), [(1, (0,)), (3, (0, 1, 2)), (6, (1, 2, 3, 5)), (10, (1, 3, 6, 9))]
)
def test_up_to_four_scales_are_chosen_spread_up_to_the_last(
    scales: int, chosen: tuple[int, ...]
) -> None:
    assert plots.spread_scales(make_scores(1, scales, 2)) == chosen


def test_sorted_neurons_fall_from_left_to_right_and_invalid_ones_come_last() -> None:
    scores = make_scores(3, 1, 40)
    scores["valid"][1, 0, :5] = False
    drawn = plots.neurons_sorted(scores).axes[0].images[0].get_array()
    assert isinstance(drawn, np.ma.MaskedArray)
    assert drawn.mask[1].tolist() == [False] * 35 + [True] * 5
    assert (np.diff(drawn[0]) <= 0).all()
    assert drawn[1, 0] == scores["score"].where(scores["valid"])[1].max()


def test_of_many_sorted_neurons_the_highest_of_each_column_is_shown() -> None:
    scores = make_scores(2, 1, 7680)
    figure = plots.neurons_sorted(scores)
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert drawn.shape == (2, 960)
    falling = np.sort(scores["score"].values[:, 0])[:, ::-1]
    np.testing.assert_array_equal(drawn, falling[:, ::8])
    assert "highest of 8" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize("scales", [1, 4])
def test_bars_are_block_sums_and_means_over_scales(scales: int) -> None:
    scores = make_scores(5, scales, 8)
    axes = plots.sums_by_block(scores).axes[0]
    heights = [one.get_height() for one in axes.patches]
    expected = scores["score"].where(scores["valid"], 0).sum("neuron").mean("scale")
    np.testing.assert_allclose(heights, expected.values, rtol=1e-6)
    assert ("mean over scales" in axes.get_ylabel().replace("\n", " ")) == (scales > 1)


def test_a_single_high_neuron_of_a_wide_block_stays_visible() -> None:
    scores = make_scores(2, 1, 7680)
    scores["score"][:] = 0.1
    scores["score"][1, 0, 4321] = 0.9
    drawn = plots.neurons_by_block(scores).axes[0].images[0].get_array()
    assert drawn.shape == (2, 960)
    assert np.argwhere(np.asarray(drawn) > 0.5).tolist() == [[1, 540]]  # 4321 // 8


def test_invalid_neurons_are_left_out_of_the_picture_and_the_histogram() -> None:
    scores = make_scores(1, 1, 4)
    scores["score"][:] = np.array([[[0.1, 0.2, 0.3, np.nan]]])
    scores["valid"][0, 0, 3] = False
    drawn = plots.neurons_by_block(scores).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(drawn).tolist() == [[False, False, False, True]]
    counts, _, _ = plots.histogram(scores).axes[0].patches[0].get_data()
    assert counts.sum() == 3


def test_scores_without_any_valid_neuron_are_drawn() -> None:
    scores = make_scores()
    scores["valid"][:] = False
    for draw in (plots.heatmap, plots.neurons_by_block, plots.histogram):
        plots.png(draw(scores))


def test_names_from_data_are_never_read_as_mathematics() -> None:
    scores = make_scores()
    scores.attrs["metric"] = HOSTILE
    named = scores.assign_coords(scale_name=("scale", [HOSTILE, "$", "_$$", "$x$", r"\alpha$"]))
    for draw in (plots.heatmap, plots.neurons_by_block, plots.histogram):
        plots.png(draw(named))


def test_bands_of_long_names_are_all_in_the_legend() -> None:
    scores = make_scores(1, 30, 4)
    names = [f"_band of a long name {place}" for place in range(30)]
    figure = plots.histogram(scores.assign_coords(scale_name=("scale", names)))
    plots.png(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"scale {name}" for name in names]
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_a_picture_is_png_on_white_and_the_same_each_time() -> None:
    first, second = (plots.png(plots.heatmap(make_scores())) for _ in range(2))
    assert first == second
    assert pixels(first)[0, 0].tolist() == [255, 255, 255]


def test_drawing_changes_no_setting_of_matplotlib() -> None:
    before = dict(mpl.rcParams)
    plots.png(plots.heatmap(make_scores()))
    assert dict(mpl.rcParams) == before


def test_drawing_needs_no_pyplot_and_the_report_no_matplotlib() -> None:
    code = (
        "import sys, iarmem_plugin.report.report; assert 'matplotlib' not in sys.modules; "
        "import iarmem_plugin.report.figures; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_large_sums_are_written_out_in_the_heatmap() -> None:
    scores = make_scores(1, 2, 4)
    scores["score"][:] = np.array([[[308.0] * 4, [0.125] * 4]])
    written = [text.get_text() for text in plots.heatmap(scores).axes[0].texts]
    assert written == ["1232", "0.5"]
