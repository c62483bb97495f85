"""Selection against the reference vector, hand-worked sets, and its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Selector
from iarmem_plugin.neurons.selectors import Highest, Lowest, Random, RandomMatched, select

DIMS = ("block", "scale", "neuron")
SELECTORS = pytest.mark.parametrize("selector", [Highest, Lowest, Random])


def scored(values: object, valid: object = True, **more: object) -> xr.Dataset:
    """Return scores with dims (block, scale, neuron); scales are named a, b, ..."""
    score = np.asarray(values, float)
    names = [chr(ord("a") + s) for s in range(score.shape[1])]
    data = xr.Dataset({"score": (DIMS, score)} | {k: (DIMS, np.array(v)) for k, v in more.items()})
    flags = np.broadcast_to(valid, score.shape).copy()
    return data.assign_coords(
        block=range(score.shape[0]),
        scale=range(score.shape[1]),
        neuron=range(score.shape[2]),
        scale_name=("scale", names),
        valid=(DIMS, flags),
    )


def picked(selection: xr.DataArray) -> list[tuple[int, int]]:
    return [(int(b), int(n)) for b, n in zip(*selection.to_numpy().nonzero(), strict=True)]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [("model", "top10_global_by_mean"), ("block", "top10_per_block_by_mean")],
)
def test_the_highest_tenth_equals_the_reference(pool: str, expected: str) -> None:
    path = Path(__file__).parents[2] / "golden" / "reference_unitmem.npz"
    with np.load(path, allow_pickle=False) as golden:
        scores = scored(golden["unitmem"], golden["valid"])
        chosen = select(scores, fraction=0.1, selector=Highest(pool=pool))
        assert np.array_equal(golden[expected], np.flatnonzero(chosen))


def test_a_selection_names_its_neurons() -> None:
    chosen = select(scored([[[3, 1]], [[2, 4]]]), fraction=0.5)
    assert chosen.dims == ("block", "neuron")
    assert chosen.dtype == bool
    assert picked(chosen) == [(0, 0), (1, 1)]
    assert chosen.sel(block=1, neuron=1).item()


@pytest.mark.parametrize(
    ("scales", "expected"),
    [("mean", (0, 1)), ("sum", (0, 1)), ("max", (0, 0)), (("a",), (0, 0)), (("b", "c"), (0, 2))],
)
def test_scales_are_joined_as_asked(scales: str | tuple[str, ...], expected: tuple) -> None:
    scores = scored([[[5, 4, 0], [0, 2, 3], [0, 2, 2.5]]])
    assert picked(select(scores, fraction=0.2, selector=Highest(scales=scales))) == [expected]


def test_ties_go_to_the_lower_block_then_the_lower_neuron() -> None:
    scores = scored(np.ones((2, 1, 3)))
    for selector in (Highest(), Lowest()):
        chosen = select(scores, fraction=0.5, selector=selector)
        assert picked(chosen) == [(0, 0), (0, 1), (0, 2)]


def test_the_lowest_are_the_lowest_valid_ones() -> None:
    scores = scored([[[0, 3, 1, 2]]], valid=[[[False, True, True, True]]])
    assert picked(select(scores, fraction=0.5, selector="lowest")) == [(0, 2), (0, 3)]


def test_neurons_can_be_ranked_by_their_mean_activation() -> None:
    scores = scored([[[9, 1]]], mean_activation=[[[1.0, 9.0]]])
    assert picked(select(scores, fraction=0.5, selector=Highest(by="mean_activation"))) == [(0, 1)]


def test_a_score_that_is_not_valid_counts_zero() -> None:
    scores = scored([[[8, 3], [0, 3]]], valid=[[[False, True], [True, True]]])
    assert picked(select(scores, fraction=0.5)) == [(0, 1)]


@SELECTORS
@pytest.mark.parametrize("pool", ["model", "block"])
def test_a_neuron_that_is_valid_at_no_scale_is_never_selected(
    selector: type[Highest], pool: str
) -> None:
    valid = np.random.default_rng(0).random((3, 2, 20)) < 0.5
    scores = scored(np.where(valid, 1.0, np.nan), valid)
    chosen = select(scores, fraction=1.0, selector=selector(pool=pool))
    assert np.array_equal(valid.any(1), chosen)


@SELECTORS
@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.1, 3), (0.11, 4), (1e-9, 1), (1 / 3, 10), (1.0, 30)]
)
def test_the_number_of_neurons_is_rounded_up_and_exact(
    selector: type[Highest], fraction: float, expected: int
) -> None:
    scores = scored(np.random.default_rng(0).random((3, 2, 10)))
    assert select(scores, fraction=fraction, selector=selector()).sum() == expected


def test_each_block_gives_its_own_fraction() -> None:
    scores = scored(np.arange(40.0).reshape(2, 1, 20))
    chosen = select(scores, fraction=0.1, selector=Highest(pool="block"))
    assert list(chosen.sum("neuron").to_numpy()) == [2, 2]


def test_random_neurons_depend_on_the_seed_and_not_on_the_scores() -> None:
    scores = scored(np.random.default_rng(0).random((2, 1, 100)))
    first = select(scores, fraction=0.1, selector="random", seed=1)
    assert first.identical(select(scores, fraction=0.1, selector="random", seed=1))
    assert first.identical(select(-scores, fraction=0.1, selector="random", seed=1))
    assert not first.identical(select(scores, fraction=0.1, selector="random", seed=2))


def test_a_metric_result_can_be_selected_from_directly() -> None:
    scores = scored([[[3, 1]], [[2, 4]]])
    assert select(scores["score"], fraction=0.5).identical(select(scores, fraction=0.5))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"expected (one in \(0, 1\]|a finite)"):
        select(scored([[[1.0]]]), fraction=float(fraction))


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="the seed is -1; expected an integer of 0 or more"):
        select(scored([[[1.0]]]), fraction=0.5, seed=-1)


def test_an_unknown_selector_is_named_with_those_there_are() -> None:
    with pytest.raises(
        LookupError, match=r"no selector named 'best'; installed: highest, listed, lowest"
    ):
        select(scored([[[1.0]]]), fraction=0.5, selector="best")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"pool": "layer"}, "model, block"), ({"scales": "median"}, "mean, sum, max")],
)
def test_other_parameters_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Highest(**options)


def test_unusable_scores_are_refused() -> None:
    with pytest.raises(InputError, match=r"no scale is named \['z'\]; there are a"):
        select(scored([[[1.0]]]), fraction=0.5, selector=Highest(scales=("z",)))
    with pytest.raises(InputError, match="no 'mean_activation'; they have"):
        select(scored([[[1.0]]]), fraction=0.5, selector=Highest(by="mean_activation"))
    with pytest.raises(InputError, match="no neuron is valid"):
        select(scored([[[0.0]]], valid=False), fraction=0.5)
    with pytest.raises(InputError, match="not finite"):
        select(scored([[[np.nan]]]), fraction=0.5)


@SELECTORS
def test_parameters_are_reported(selector: type[Highest]) -> None:
    chosen: Selector = selector(pool="block", scales=("1", "2"))
    assert chosen.parameters == {"pool": "block", "scales": ["1", "2"], "by": "score"}


# --- by number, whatever the order


@SELECTORS
def test_neurons_are_selected_by_their_numbers_in_whatever_order(selector: type[Selector]) -> None:
    scores = scored(np.random.default_rng(0).random((3, 2, 8)))
    expected = selector().select(scores, fraction=0.3, seed=1)
    turned = scores.isel(neuron=slice(None, None, -1), block=[2, 0, 1])
    found = selector().select(turned, fraction=0.3, seed=1)
    assert picked(found) == picked(expected)
    assert found["neuron"].to_numpy().tolist() == list(range(8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neuron": [0, 1, 1, 2]}, "neuron 1 is there 2 times"),
        ({"block": [0, 0]}, "block 0 is there 2 times"),
        ({"neuron": [0.0, 1.5, 2, 3]}, "not whole numbers"),
        ({"neuron": ["a", "b", "c", "d"]}, "not whole numbers"),
        ({"neuron": [-1, 0, 1, 2]}, "not whole numbers"),
        ({"valid": (DIMS, np.ones((2, 1, 4)))}, "'valid' is float64"),
    ],
)
def test_numbers_and_marks_that_cannot_be_are_refused(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select(scored(np.zeros((2, 1, 4))).assign_coords(change), fraction=0.5)


def test_marks_of_fewer_dims_count_for_all_scores() -> None:
    scores = scored([[[1, 2, 3, 4]], [[5, 6, 7, 8]]])
    fewer = scores.assign_coords(valid=("neuron", np.array([True, True, True, False])))
    assert picked(select(fewer, fraction=0.25)) == [(1, 1), (1, 2)]


def test_selectors_are_shown_as_they_are_made() -> None:
    assert repr(Highest()) == "Highest(pool='model', scales='mean', by='score')"
    assert repr(Random(pool="block")) == "Random(pool='block', scales='mean', by='score')"


# --- what a smaller fraction takes is taken by a larger one, and random sets are matched


def active(seed: int = 0, blocks: int = 3, neurons: int = 40) -> xr.Dataset:
    """Return scores at random, and mean activations at random, of some neurons at two scales."""
    random = np.random.default_rng(seed)
    values = [random.random((blocks, 2, neurons)) for _ in range(2)]
    valid = random.random((blocks, 2, neurons)) < 0.8
    return scored(np.where(valid, values[0], np.nan), valid, mean_activation=values[1])


def of_each_quarter(selection: xr.DataArray, mean: np.ndarray, valid: np.ndarray) -> list[int]:
    edges = np.quantile(mean[valid], [0.25, 0.5, 0.75])
    return np.bincount(np.digitize(mean[selection], edges), minlength=4).tolist()


def joined(scores: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    mean = scores["mean_activation"].where(scores["valid"], 0).mean("scale")
    return mean.to_numpy(), scores["valid"].any("scale").to_numpy()


@pytest.mark.parametrize(
    "selector",
    [
        *("highest", "lowest", "random", "highest:pool=block", "random:pool=block"),
        *("random-matched", "random-matched:to=lowest,bins=3,pool=block"),
    ],
)
def test_sets_are_nested_over_fractions(selector: str) -> None:
    scores, smaller = active(neurons=100), None
    for fraction in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0):
        chosen = select(scores, fraction=fraction, selector=selector, seed=3)
        assert smaller is None or bool(chosen.to_numpy()[smaller.to_numpy()].all())
        assert smaller is None or int(chosen.sum()) > int(smaller.sum())
        smaller = chosen


@pytest.mark.parametrize("to", ["highest", "highest:by=mean_activation", "lowest:pool=block"])
def test_matched_neurons_are_as_active_as_those_of_the_other_selector(to: str) -> None:
    scores = active()
    theirs = select(scores, fraction=0.2, selector=to)
    expected = of_each_quarter(theirs, *joined(scores))
    sets = [
        select(scores, fraction=0.2, selector=RandomMatched(to, bins=4), seed=seed)
        for seed in range(8)
    ]
    assert [of_each_quarter(one, *joined(scores)) for one in sets] == [expected] * 8
    assert len({one.to_numpy().tobytes() for one in sets}) == 8


def test_matched_neurons_may_be_those_that_the_other_selector_takes() -> None:
    scores = scored([[[4.0, 3, 2, 1]]], mean_activation=[[[1.0, 1, 5, 5]]])
    sets = [
        picked(select(scores, fraction=0.25, selector=RandomMatched(bins=2), seed=seed))
        for seed in range(30)
    ]
    assert {one for found in sets for one in found} == {(0, 0), (0, 1)}


def test_matched_neurons_of_each_block_are_matched_there() -> None:
    scores = active()
    theirs = select(scores, fraction=0.3, selector="highest")
    found = select(scores, fraction=0.3, selector=RandomMatched(bins=2, pool="block"), seed=1)
    assert found.sum("neuron").to_numpy().tolist() == theirs.sum("neuron").to_numpy().tolist()
    mean, valid = joined(scores)
    for block in range(3):
        upper = mean[block] >= np.median(mean[block][valid[block]])
        assert found[block].to_numpy()[upper].sum() == theirs[block].to_numpy()[upper].sum()


def test_a_block_without_valid_neurons_has_none_to_match() -> None:
    scores = active()
    scores["valid"].loc[{"block": 1}] = False
    found = select(scores, fraction=0.5, selector=RandomMatched(pool="block"), seed=1)
    assert found.any("neuron").to_numpy().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "best"}, "no selector named 'best'"),
        ({"bins": 0}, "bins is 0; expected an integer of 1 or more"),
        ({"pool": "layer"}, "model, block"),
    ],
)
def test_what_cannot_be_matched_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, LookupError), match=message):
        RandomMatched(**options)


def test_matching_needs_the_mean_activation() -> None:
    with pytest.raises(InputError, match="no 'mean_activation'; they have"):
        select(scored([[[1.0, 2.0]]]), fraction=0.5, selector="random-matched")
