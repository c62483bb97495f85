"""Figures of arms show what they were given, up to forty of them, and none looks like another."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from iarmem_plugin.report import arm_figures
from iarmem_plugin.report.figures import png

HOSTILE = r"<script>$\frac{</script> 猫"
ARMS = ["original", "highest", "random 1", "random 2"]
COLUMNS = {"original": ["original"], "highest": ["highest"], "random": ["random 1", "random 2"]}


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


def drawn_bars(axes: Axes) -> list[ErrorbarContainer]:
    return [one for one in axes.containers if isinstance(one, ErrorbarContainer)]


def test_points_lie_at_the_share_extracted() -> None:
    counts = make_counts(ARMS, ["canary 1360", "held-out"])
    axes = arm_figures.extraction_by_group(counts, COLUMNS).axes[0]
    drawn = [one.lines[0].get_ydata() for one in drawn_bars(axes)]
    np.testing.assert_allclose(drawn, [[0, 0.05], [0.1, 0.15], [0.2, 0.25], [0.3, 0.35]])


def test_whiskers_end_at_the_interval() -> None:
    counts = make_counts(ARMS, ["canary 1360"])
    axes = arm_figures.extraction_by_group(counts, COLUMNS).axes[0]
    last = drawn_bars(axes)[-1]
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


def test_names_of_arms_and_groups_are_never_read_as_mathematics() -> None:
    arms = [HOSTILE, f"{HOSTILE} 2"]
    counts = make_counts(arms, [HOSTILE, "$"])
    columns = {HOSTILE: [arms[0]], "$$": [arms[1]]}
    quality = xr.DataArray([[1.0], [2.0]], {"arm": arms, "label": [HOSTILE]})
    neurons = xr.DataArray(
        np.ones((2, 3, 4), dtype=bool), {"arm": arms, "block": range(3)}, ("arm", "block", "neuron")
    )
    png(arm_figures.extraction_by_group(counts, columns))
    png(arm_figures.extraction_against_quality(counts.isel(group=0), quality, columns))
    png(arm_figures.selected_by_block(neurons))


FORTY = ["original", *(f"_arm {place} of a longer name" for place in range(39))]


@pytest.fixture(scope="module")
def by_group() -> Figure:
    figure = arm_figures.extraction_by_group(
        make_counts(FORTY, ["canary 1360", "held-out"]), {name: [name] for name in FORTY}
    )
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def against_quality() -> Figure:
    values = np.arange(40.0)[:, None]
    quality = xr.DataArray(values, {"arm": FORTY, "label": ["FID"]}, ("arm", "label"))
    counts = make_counts(FORTY, ["all"]).isel(group=0)
    figure = arm_figures.extraction_against_quality(
        counts, quality, {name: [name] for name in FORTY}
    )
    figure.draw_without_rendering()
    return figure


def test_each_of_forty_arms_has_a_line_beside_its_name(by_group: Figure) -> None:
    first, second = by_group.axes
    assert [label.get_text() for label in first.get_yticklabels()] == FORTY
    for axes in (first, second):
        assert [one.lines[0].get_ydata().item() for one in drawn_bars(axes)] == list(range(40))
    share = drawn_bars(second)[7].lines[0].get_xdata().item()
    assert share == 15 / 20  # arm 7 of the second group: 7 * 2 + 1


def test_of_forty_arms_no_name_leaves_the_figure(by_group: Figure, against_quality: Figure) -> None:
    for label in by_group.axes[0].get_yticklabels():
        assert label.get_window_extent().x0 >= 0
    (legend,) = against_quality.legends
    box = legend.get_window_extent()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= against_quality.bbox.x1
    assert box.y1 <= against_quality.bbox.y1
    assert len(legend.get_texts()) == 40


def test_of_forty_arms_each_point_has_its_number(against_quality: Figure) -> None:
    (axes,) = against_quality.axes
    numbers = {text.get_text(): text.xy[0] for text in axes.texts}
    assert numbers == {f"{place + 1}": float(place) for place in range(40)}
    (legend,) = against_quality.legends
    assert legend.get_texts()[4].get_text() == f"5 {FORTY[4]}"


@pytest.mark.parametrize("arms", [2, 7, 8, 40, 84])
def test_no_arm_looks_like_another_or_like_the_original(arms: int) -> None:
    styles = arm_figures._styles({f"{place}": [f"{place}"] for place in range(arms)})
    assert len({tuple(style.items()) for style in styles}) == arms
    assert [style["color"] for style in styles].count(styles[0]["color"]) == 1


def test_sets_of_controls_that_differ_look_different() -> None:
    columns = {"original": ["o"], "a (2 sets)": ["1", "2"], "b (2 sets)": ["3", "4"]}
    assert arm_figures._styles(columns)[1] != arm_figures._styles(columns)[2]


def test_a_legend_of_long_names_is_not_clipped() -> None:
    names = ["original", *(f"an arm whose name is rather long {place}" for place in range(6))]
    figure = arm_figures.extraction_by_group(
        make_counts(names, ["a", "b"]), {name: [name] for name in names}
    )
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1
