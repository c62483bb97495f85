"""Class-balanced subsets: equal, nested, disjoint, and drawn for each class by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.subsets import count_for
from iarmem_plugin.errors import InputError


def many() -> Images:
    """Return 40, 20 and 10 pictures of the classes 0, 1 and 5, mixed up."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 5], [40, 20, 10]))
    names = [f"{label}/{i:02d}" for i, label in enumerate(labels)]
    pixels = np.zeros((70, 1, 1, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(70)
    return Images.from_arrays(pixels, labels, names=names)


@pytest.mark.parametrize(("wanted", "each"), [({"per_class": 4}, 4), ({"fraction": 0.2}, 5)])
def test_a_balanced_subset_has_equally_many_of_each_class(
    wanted: dict[str, float], each: int
) -> None:
    part = many().balanced(**wanted, seed=3)  # 20% of 70 are 14, 4.7 a class
    assert np.unique(part.labels, return_counts=True)[1].tolist() == [each] * 3
    assert sorted(part.ids) == list(part.ids)
    assert [np.asarray(part.load(i))[0, 0, 0] for i in range(len(part))] == part.ids.tolist()


@pytest.mark.parametrize(("fraction", "each"), [(0.01, 13), (0.2, 256), (1e-9, 1)])
def test_a_fraction_of_imagenet_is_a_whole_number_a_class(fraction: float, each: int) -> None:
    sizes = np.full(1000, 1281)
    sizes[:167] += 1  # 1 281 167 pictures in all
    labels = np.repeat(np.arange(1000), sizes)
    assert count_for(labels, per_class=None, fraction=fraction) == each


def test_larger_subsets_contain_smaller_ones() -> None:
    parts = [set(many().balanced(count, seed=1).paths) for count in (1, 2, 5, 10)]
    assert all(small < large for small, large in itertools.pairwise(parts))


def test_parts_of_one_size_have_no_picture_in_common_and_cover_all() -> None:
    parts = [many().balanced(5, seed=1, part=part).paths for part in (0, 1)]
    small = {path for path in many().paths if path.startswith("5/")}
    assert not set(parts[0]) & set(parts[1])
    assert {path for part in parts for path in part if path.startswith("5/")} == small


def test_another_seed_draws_others() -> None:
    assert many().balanced(5, seed=1).paths != many().balanced(5, seed=2).paths


def test_a_classes_draw_depends_on_its_own_pictures_alone() -> None:
    everything = many()
    mixed = everything.subset(np.random.default_rng(1).permutation(70))
    alone = everything.subset(np.flatnonzero(everything.labels == 1))
    expected = {path for path in everything.balanced(5, seed=1).paths if path[0] == "1"}
    assert set(alone.balanced(5, seed=1).paths) == expected
    assert {path for path in mixed.balanced(5, seed=1).paths if path[0] == "1"} == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"per_class": 11}, r"class 5 \(5\) has 10 pictures, and 11 are needed"),
        ({"per_class": 4, "part": 2}, "has 10 pictures, and 12 are needed for part 2"),
        ({}, "ask for one of them"),
        ({"per_class": 1, "fraction": 0.1}, "ask for one of them"),
        ({"fraction": 1.5}, "fraction 1.5 was given"),
        ({"per_class": 0}, "0 pictures a class"),
        ({"per_class": 1, "seed": -1}, "seed -1"),
    ],
)
def test_a_subset_that_cannot_be_drawn_is_refused(wanted: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        many().balanced(**wanted)


def test_each_class_is_drawn_for_itself() -> None:
    labels = np.repeat(np.arange(6), 30)
    names = [f"{label}/{i % 30:02d}" for i, label in enumerate(labels)]  # alike in all classes
    images = Images.from_arrays(np.zeros((180, 1, 1, 3), np.uint8), labels, names=names)
    drawn = {
        tuple(sorted(path[-2:] for path in images.balanced(5).paths if path[0] == str(label)))
        for label in range(6)
    }
    assert len(drawn) == 6
