"""UnitMem against the reference vector, numbers worked by hand, and the laws it must obey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from iarmem_metrics.unitmem import UnitMem, unitmem
from iarmem_plugin.errors import InputError, NonFiniteActivationError

Batch = Callable[..., xr.DataArray]
Golden = dict[str, np.ndarray]
# whole numbers, so that float64 sums are exact in any order
SCORES = hnp.arrays(np.float32, (6, 2, 1, 3), elements=st.integers(0, 5).map(float))


def labelled(scores: np.ndarray, images: object) -> xr.DataArray:
    dims = ("image", "block", "scale", "neuron")
    return xr.DataArray(scores, dims=dims, coords={"image": np.asarray(images)}).transpose(
        "block", "scale", "neuron", "image"
    )


def run(scores: np.ndarray, images: object = None, **options: Any) -> xr.DataArray:
    metric = UnitMem(**options)
    metric.update(labelled(scores, range(len(scores)) if images is None else images))
    return metric.compute()


def column(*scores: float) -> np.ndarray:
    """Return the scores of one neuron for several images."""
    return np.array(scores, np.float32).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("mu_max", "mu_rest", "expected"),
    [(1.0, 0.0, 1.0), (3.0, 1.0, 0.5), (2.0, 2.0, 0.0), (0.0, 0.0, 0.0), (1e-30, 5e-31, 1 / 3)],
)
def test_the_formula_gives_numbers_worked_by_hand(
    mu_max: float, mu_rest: float, expected: float
) -> None:
    assert expected == pytest.approx(unitmem(np.array([mu_max]), np.array([mu_rest]))[0])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 5e-6)])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_scores_equal_the_reference_for_any_batch_size(
    golden: Golden, make_batch: Batch, dtype: str, tolerance: float, size: int
) -> None:
    metric = UnitMem(dtype=dtype)
    for first in range(0, 64, size):
        part = golden["image_scores"][first : first + size].astype(dtype)
        metric.update(make_batch(part, range(first, first + len(part))))
    scores = metric.compute()
    assert np.abs(scores.to_numpy() - golden["unitmem"]).max() <= tolerance
    assert np.array_equal(golden["argmax"], scores["top_image"])
    assert np.array_equal(golden["valid"], scores["valid"])


def test_float32_activations_are_summed_in_float64(golden: Golden, make_batch: Batch) -> None:
    metric = UnitMem()
    metric.update(make_batch(golden["image_scores"].astype(np.float32), range(64)))
    # only the rounding of the activations themselves, 6e-8 relative, is left
    assert np.abs(metric.compute().to_numpy() - golden["unitmem"]).max() <= 1e-7


@pytest.mark.parametrize(
    ("name", "expected", "image"),
    [
        ("single_image", 1.0, 17),
        ("one_token_one_aug", 1.0, 40),
        ("tie", 31 / 53, 9),
        ("aug_cancellation", 8 / 55, None),
        ("constant", 0.0, 0),
        ("dead", 0.0, 0),
    ],
)
def test_planted_cases_come_out_as_worked(
    golden: Golden, name: str, expected: float, image: int | None
) -> None:
    scores = run(golden["image_scores"])
    place = list(golden["edge_names"]).index(name)
    scale = max(int(golden["edge_scale"][place]), 0)
    score = scores[int(golden["edge_block"][place]), scale, int(golden["edge_neuron"][place])]
    # 1e-6: the planted activations are float32
    assert expected == pytest.approx(score.item(), abs=1e-6)
    assert image is None or image == score["top_image"].item()
    assert (name != "dead") == bool(score["valid"])


def test_the_order_of_images_does_not_matter(golden: Golden) -> None:
    order = np.random.default_rng(0).permutation(64)
    whole, mixed = run(golden["image_scores"]), run(golden["image_scores"][order], order)
    xr.testing.assert_allclose(whole, mixed, rtol=1e-12)  # sums in another order
    assert np.array_equal(whole["top_image"], mixed["top_image"])


def test_memory_layout_does_not_matter(golden: Golden) -> None:
    scores = golden["image_scores"].astype(np.float32)
    last = np.ascontiguousarray(np.moveaxis(scores, 0, -1))
    metric = UnitMem()
    dims = ("block", "scale", "neuron", "image")
    metric.update(xr.DataArray(last, dims=dims, coords={"image": np.arange(64)}))
    assert metric.compute().identical(run(scores))


@given(SCORES, st.permutations(range(6)), st.lists(st.integers(1, 5), max_size=3))
def test_any_split_into_runs_that_are_merged_gives_the_same(
    scores: np.ndarray, order: list[int], cuts: list[int]
) -> None:
    parts = [part for part in np.split(np.array(order), sorted(set(cuts))) if part.size]
    runs = []
    for part in parts:
        metric = UnitMem()
        metric.update(labelled(scores[part], part))
        runs.append(metric)
    total = UnitMem()
    for metric in reversed(runs):
        total.merge(metric.state())
    assert total.compute().identical(run(scores))


@given(SCORES)
def test_merging_is_associative(scores: np.ndarray) -> None:
    def part(*images: int) -> UnitMem:
        metric = UnitMem()
        metric.update(labelled(scores[list(images)], images))
        return metric

    left, right, tail = part(5, 0), part(1, 4), part(2, 3)
    right.merge(tail.state())
    left.merge(right.state())
    other = part(5, 0)
    other.merge(part(1, 4).state())
    other.merge(tail.state())
    assert left.state().identical(other.state())


@given(SCORES)
def test_scores_lie_between_0_and_1_and_ties_go_to_the_smallest_image(scores: np.ndarray) -> None:
    result = run(scores)
    assert bool(((result >= 0) & (result <= 1)).all())
    assert np.array_equal(scores.argmax(0), result["top_image"])


@given(SCORES, st.sampled_from([2.0**-20, 0.5, 8.0]))
def test_scaling_all_activations_changes_nothing(scores: np.ndarray, factor: float) -> None:
    assert run(scores).identical(run(scores * np.float32(factor)))


def test_an_update_after_taking_the_state_leaves_the_state_alone() -> None:
    metric = UnitMem()
    metric.update(labelled(column(1, 2), (0, 1)))
    state = metric.state()
    metric.update(labelled(column(9), (2,)))
    assert state["maximum"].item() == 2


def test_a_run_resumes_from_a_saved_state() -> None:
    first = UnitMem()
    first.update(labelled(column(1, 2), (0, 1)))
    second = UnitMem()
    second.merge(xr.Dataset.from_dict(first.state().to_dict()))
    second.update(labelled(column(6), (2,)))
    assert second.compute().item() == pytest.approx((6 - 1.5) / (6 + 1.5))


def test_the_state_of_a_run_without_images_adds_nothing() -> None:
    metric = UnitMem()
    metric.update(labelled(column(1, 3), (0, 1)))
    metric.merge(UnitMem().state())
    assert metric.compute().item() == 0.5


def test_names_of_scales_are_kept(make_batch: Batch) -> None:
    metric = UnitMem()
    metric.update(make_batch(np.ones((2, 1, 2, 1), np.float32), (0, 1)))
    assert list(metric.compute()["scale_name"].to_numpy()) == ["scale 0", "scale 1"]


def test_a_single_image_is_undefined_and_warned_about() -> None:
    with pytest.warns(UserWarning, match="single image"):
        scores = run(column(3))
    assert np.isnan(scores.item())
    assert not scores["valid"].item()


def test_no_image_is_an_error() -> None:
    with pytest.raises(InputError, match="unitmem has seen no image"):
        UnitMem().compute()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(make_batch: Batch, value: float) -> None:
    scores = np.ones((3, 2, 2, 4), np.float32)
    scores[1, 1, 0, 3] = value
    place = "block 1, scale scale 0, neuron 3, image 21"
    with pytest.raises(NonFiniteActivationError, match=place):
        UnitMem().update(make_batch(scores, (20, 21, 22)))


def test_huge_activations_that_overflow_a_float32_sum_are_reported() -> None:
    metric = UnitMem(dtype="float32")
    with (
        np.errstate(over="ignore"),
        pytest.raises(NonFiniteActivationError, match="sum in float64"),
    ):
        metric.update(labelled(column(3e38, 3e38), (0, 1)))


def test_an_image_given_twice_is_refused() -> None:
    metric = UnitMem()
    metric.update(labelled(column(1, 2), (4, 7)))
    with pytest.raises(InputError, match="image 7 was given twice"):
        metric.update(labelled(column(2), (7,)))
    with pytest.raises(InputError, match="image 8 was given twice"):
        metric.update(labelled(column(2, 2), (8, 8)))
    with pytest.raises(InputError, match="image 4 was given twice"):
        metric.merge(metric.state())


def test_batches_of_other_neurons_are_refused() -> None:
    metric = UnitMem()
    metric.update(labelled(np.ones((1, 1, 1, 2), np.float32), (0,)))
    with pytest.raises(InputError, match="'neuron' of this batch differs"):
        metric.update(labelled(np.ones((1, 1, 1, 3), np.float32), (1,)))


def test_a_batch_without_image_ids_is_refused() -> None:
    with pytest.raises(InputError, match="coordinate 'image'"):
        UnitMem().update(
            xr.DataArray(np.ones((1, 1, 1, 1)), dims=("block", "scale", "neuron", "x"))
        )


def test_an_epsilon_is_added_to_the_denominator_on_request() -> None:
    assert run(column(3, 1), eps=1.0).item() == pytest.approx(2 / 5)
    assert run(column(0, 0), eps=1.0).item() == 0.0
    assert not bool(run(column(0, 0), eps=1.0)["valid"])


@pytest.mark.parametrize("scores", [(1, -3, 0), (-1, -1, -2)])
def test_negative_values_are_refused_unless_they_are_expected(scores: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="absolute values"):
        run(column(*scores))


def test_signed_scores_may_leave_their_range_and_vanishing_sums_are_not_valid() -> None:
    outside = run(column(3, -1, -1), signed=True)  # (3 + 1) / (3 - 1)
    assert (outside.item(), bool(outside["valid"])) == (2.0, True)
    assert not bool(run(column(1, -3, 0), signed=True)["valid"])  # 1 - 1.5 < 0
    assert not bool(run(column(1, -1, -1), signed=True)["valid"])  # 1 - 1 = 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_propagate_to_their_neuron_alone_on_request(
    value: float,
) -> None:
    scores = np.array([[3.0, 3.0], [value, 1.0]], np.float32).reshape(2, 1, 1, 2)
    found = run(scores, propagate=True)
    assert np.isnan(found.values.ravel()[0])
    assert found.values.ravel()[1] == 0.5
    assert found["valid"].values.ravel().tolist() == [False, True]
