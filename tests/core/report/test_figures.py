"""The figures show what they were given, whatever the names, and touch no global state."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.container import ErrorbarContainer
from PIL import Image

from iarmem_plugin.report import arm_figures
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


def make_counts(arms: list[str], groups: list[str]) -> xr.Dataset:
    extracted = np.arange(len(arms) * len(groups)).reshape(len(arms), len(groups))
    share = extracted / 20
    table = {
        "extracted": extracted,
        "candidates": np.full(share.shape, 20),
        "low": (share - 0.1).clip(0),
        "high": (share + 0.1).clip(max=1),
    }
    coords = {"arm": arms, "group": groups}
    return xr.Dataset({name: (("arm", "group"), value) for name, value in table.items()}, coords)


ARMS = ["original", "highest", "random 1", "random 2"]
COLUMNS = {"original": ["original"], "highest": ["highest"], "random": ["random 1", "random 2"]}


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
    ("scales", "chosen"), [(1, (0,)), (3, (0, 1, 2)), (6, (1, 2, 4, 5)), (10, (1, 4, 6, 9))]
)
def test_up_to_four_scales_are_chosen_spread_up_to_the_last(
    scales: int, chosen: tuple[int, ...]
) -> None:
    assert plots.spread_scales(make_scores(1, scales, 2)) == chosen


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


def test_points_lie_at_the_share_extracted() -> None:
    counts = make_counts(ARMS, ["canary x64", "held-out"])
    axes = arm_figures.extraction_by_group(counts, COLUMNS).axes[0]
    drawn = [
        container.lines[0].get_ydata()
        for container in axes.containers
        if isinstance(container, ErrorbarContainer)
    ]
    np.testing.assert_allclose(drawn, [[0, 0.05], [0.1, 0.15], [0.2, 0.25], [0.3, 0.35]])


def test_whiskers_end_at_the_interval() -> None:
    counts = make_counts(ARMS, ["canary x64"])
    axes = arm_figures.extraction_by_group(counts, COLUMNS).axes[0]
    last = [item for item in axes.containers if isinstance(item, ErrorbarContainer)][-1]
    np.testing.assert_allclose(last.lines[2][0].get_segments()[0][:, 1], [0.05, 0.25])


def test_quality_is_drawn_on_one_panel_a_label_and_skips_what_is_missing() -> None:
    counts = make_counts(ARMS, ["all"]).isel(group=0)
    values = np.array([[1.0, 9.0], [2.0, np.nan], [3.0, 7.0], [4.0, 6.0]])
    quality = xr.DataArray(values, {"arm": ARMS, "label": ["FID (a)", "KID (b)"]})
    panels = arm_figures.extraction_against_quality(counts, quality, COLUMNS).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["FID (a)", "KID (b)"]
    random = panels[0].containers[2].lines[0]
    np.testing.assert_allclose(random.get_xdata(), [3.0, 4.0])
    np.testing.assert_allclose(random.get_ydata(), [0.1, 0.15])


def test_the_share_of_edited_neurons_is_drawn_by_arm_and_block() -> None:
    neurons = xr.DataArray(
        np.zeros((1, 2, 4), dtype=bool), {"arm": ["a"]}, ("arm", "block", "neuron")
    )
    neurons[0, 1, 0] = True
    drawn = arm_figures.selected_by_block(neurons.assign_coords(block=[0, 1])).axes[0].images[0]
    np.testing.assert_array_equal(drawn.get_array(), [[0.0, 0.25]])


def test_names_from_data_are_never_read_as_mathematics() -> None:
    arms = [HOSTILE, f"{HOSTILE} 2"]
    counts = make_counts(arms, [HOSTILE, "$"])
    columns = {HOSTILE: [arms[0]], "$$": [arms[1]]}
    quality = xr.DataArray([[1.0], [2.0]], {"arm": arms, "label": [HOSTILE]})
    scores = make_scores()
    scores.attrs["metric"] = HOSTILE
    neurons = xr.DataArray(
        np.ones((2, 3, 4), dtype=bool), {"arm": arms, "block": range(3)}, ("arm", "block", "neuron")
    )
    plots.png(arm_figures.extraction_by_group(counts, columns))
    plots.png(arm_figures.extraction_against_quality(counts.isel(group=0), quality, columns))
    plots.png(plots.heatmap(scores))
    plots.png(arm_figures.selected_by_block(neurons))


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
