"""Near-duplicates: which pictures resemble another one of their list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from iarmem_plugin import plugins
from iarmem_plugin.data import duplicates
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError


def crowd(count: int = 60, seed: int = 0) -> Images:
    """Return pictures of which about half are another one with some noise."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, 16, 16, 3))
    for place in range(count // 2, count):
        noise = random.normal(0, random.uniform(10, 90), (16, 16, 3))
        pixels[place] = pixels[random.integers(place)] + noise
    return Images.from_arrays(pixels.clip(0, 255).astype(np.uint8)[random.permutation(count)])


def correlations(images: Images) -> np.ndarray:
    """Return the correlation of every pair by numpy; of a picture with itself, none."""
    pixels = [np.asarray(images.load(one), float).ravel() for one in range(len(images))]
    found = np.corrcoef(pixels)
    np.fill_diagonal(found, -np.inf)
    return found


@pytest.mark.parametrize("block", [1, 7, 60, 100])
def test_every_column_is_that_of_a_search_by_hand(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    images = crowd()
    expected, found = correlations(images), images.near_duplicates(0.8, side=16)
    np.testing.assert_allclose(found["correlation"], expected.max(axis=1), atol=1e-5)
    assert found["neighbour"].values.tolist() == expected.argmax(axis=1).tolist()
    alike = expected > 0.8
    assert 0 < alike.sum() < len(images) ** 2
    assert found["near_duplicate"].values.tolist() == alike.any(axis=1).tolist()
    _, label = connected_components(alike)
    firsts = [int(np.flatnonzero(label == one)[0]) for one in label]
    assert found["cluster"].values.tolist() == firsts
    kept: list[int] = []
    for place in range(len(images)):
        if not alike[place, kept].any():
            kept.append(place)
    assert np.flatnonzero(found["representative"]).tolist() == kept


def test_a_chain_is_one_cluster_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 2)
    random = np.random.default_rng(1)
    ends = random.normal(0, 50, (2, 8, 8, 3))
    shares = np.linspace(0, 1, 9)[:, None, None, None]
    chain = np.sqrt(1 - shares) * ends[0] + np.sqrt(shares) * ends[1] + 128
    mixed = chain[[4, 0, 8, 2, 6, 1, 7, 3, 5]].clip(0, 255).astype(np.uint8)
    found = Images.from_arrays(mixed).near_duplicates(0.8, side=8)
    assert found["cluster"].values.tolist() == [0] * 9
    assert found["representative"].values.tolist() == [True] * 3 + [False] * 6


def test_a_picture_of_one_grey_resembles_none() -> None:
    pixels = np.concatenate([np.full((2, 4, 4, 3), 7), np.full((1, 4, 4, 3), 9)]).astype(np.uint8)
    found = Images.from_arrays(pixels).near_duplicates(0.5, side=4)
    assert not found["near_duplicate"].any()
    assert found["correlation"].values.tolist() == [0, 0, 0]


def test_paths_stand_beside_the_columns() -> None:
    images = crowd(8)
    found = images.near_duplicates(0.9)
    assert found["path"].values.tolist() == list(images.paths)
    assert (found.attrs["threshold"], found.attrs["side"]) == (0.9, 16)
    distinct = images.subset(np.flatnonzero(~found["near_duplicate"].values))
    assert not distinct.near_duplicates(0.9)["near_duplicate"].any()


@pytest.mark.parametrize(
    ("count", "threshold", "side", "message"),
    [
        (3, 1.0, 16, "the threshold is 1.0; expected a correlation between 0 and 1"),
        (3, 0.0, 16, "the threshold is 0.0; expected a correlation between 0 and 1"),
        (3, float("nan"), 16, "threshold is nan; expected a finite number"),
        (3, 0.8, 1, "side is 1; expected an integer of 2 or more"),
        (1, 0.8, 16, "got 1 pictures, expected two or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    count: int, threshold: float, side: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        crowd(4).subset(range(count)).near_duplicates(threshold, side=side)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    for name in ("0/a.png", "0/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"picture '0/a.png' cannot be read"):
        Images.from_folder(tmp_path, labelled=False).near_duplicates(0.8)


def test_the_bundled_pictures_are_as_distinct_as_they_were_counted_from_outside() -> None:
    pictures = plugins.find_variant("var-organism")[1].organism().pictures
    distinct = [~pictures.near_duplicates(0.8, side=side)["near_duplicate"] for side in (32, 24)]
    assert [int(one.sum()) for one in (*distinct, distinct[0] & distinct[1])] == [966, 936, 932]
