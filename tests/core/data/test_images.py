"""Lists of pictures: opened, read, checked, cut and joined."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import InputError

from .conftest import noise, tree


def test_a_path_that_is_not_a_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("")
    with pytest.raises(InputError, match=r"is not a folder, .npz file or .txt list"):
        open_images(tmp_path / "x.tar")
    with pytest.raises(InputError, match="does not exist"):
        open_images(tmp_path / "nowhere")


def test_a_root_for_something_that_is_not_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a root was given"):
        open_images(tree(tmp_path, "0/a.png"), root=tmp_path)


def test_a_written_list_comes_back(tmp_path: Path) -> None:
    images = open_images(tree(tmp_path / "p", "0/a.png", "0/b c.png", "3/c.png")).subset([2, 1])
    images.write_list(tmp_path / "list.txt")
    again = open_images(tmp_path / "list.txt", root=tmp_path / "p")
    assert again.digest == images.digest
    assert np.array_equal(again.load(1), images.load(1))


def test_a_corrupt_picture_is_named_and_skipped_only_on_request(tmp_path: Path) -> None:
    tree(tmp_path, "0/a.png", "0/b.png", "1/c.png")
    (tmp_path / "0" / "b.png").write_bytes((tmp_path / "0" / "a.png").read_bytes()[:60])
    images = open_images(tmp_path)
    with pytest.raises(InputError, match=r"picture '0/b.png' cannot be read"):
        images.load(1)
    with pytest.raises(InputError, match=r"picture '0/b.png' cannot be read"):
        images.verify()
    good = images.verify(on_bad="skip")
    assert good.paths == ("0/a.png", "1/c.png")
    assert good.skipped == ("0/b.png",)
    assert list(good.ids) == [0, 2]


def test_skipping_every_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"'0/a.png' cannot be read"):
        open_images(tmp_path).verify(on_bad="skip")


def test_a_subset_keeps_global_ids(tmp_path: Path) -> None:
    pixels = np.stack([noise(4, 4, seed) for seed in range(5)])
    images = Images.from_arrays(pixels, np.arange(5))
    part = images.subset([4, 1, 3]).subset([2, 0])
    assert list(part.ids) == [3, 4]
    assert list(part.labels) == [3, 4]
    assert np.array_equal(pixels[3], part.load(0))


@pytest.mark.parametrize("indices", [[5], [-1], [1, 1]])
def test_a_subset_of_positions_that_do_not_exist_or_repeat_is_refused(indices: list[int]) -> None:
    images = Images.from_arrays(np.zeros((5, 4, 4, 3), np.uint8), np.zeros(5, int))
    with pytest.raises(InputError, match=r"different and in 0..4"):
        images.subset(indices)


def test_the_digest_is_the_sha256_of_paths_and_labels() -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    images = Images.from_arrays(pixels, np.array([3, 1]), names=("a", "b"))
    assert images.digest == hashlib.sha256(b"a\x003\nb\x001\n").hexdigest()


def test_joined_lists_keep_their_pictures_and_have_different_ids() -> None:
    first = Images.from_arrays(np.full((2, 4, 4, 3), 1, np.uint8), np.array([0, 1])).subset([1])
    second = Images.from_arrays(np.full((2, 4, 4, 3), 2, np.uint8), np.array([2, 3]))
    joined = first.join(second)
    assert joined.ids.tolist() == [1, 2, 3]
    assert joined.labels.tolist() == [1, 2, 3]
    assert [np.asarray(joined.load(i))[0, 0, 0] for i in range(3)] == [1, 2, 2]
    again = joined.subset([2, 0])
    assert [np.asarray(again.load(i))[0, 0, 0] for i in range(2)] == [2, 1]


def test_a_written_list_of_named_classes_comes_back(tmp_path: Path) -> None:
    tree(tmp_path / "p", "n01440764/a.png", "n01443537/b.png", "7/c.png")
    images = open_images(tmp_path / "p", classes=classes_file(tmp_path))
    images.write_list(tmp_path / "list.txt")
    again = open_images(tmp_path / "list.txt", root=tmp_path / "p", num_classes=1000)
    assert again.digest == images.digest


def classes_file(folder: Path) -> Path:
    (folder / "classes.json").write_text('{"n01440764": 3, "n01443537": 0, "7": 999}')
    return folder / "classes.json"


@pytest.mark.parametrize("name", ["a\tb.png", "a\nb.png", b"\xff.png"])
def test_a_name_that_no_list_can_hold_is_refused(tmp_path: Path, name: str | bytes) -> None:
    path = os.fsdecode(name)
    whole = (tree(tmp_path, "0/a.png") / "0" / "a.png").read_bytes()
    (tmp_path / "0" / path).write_bytes(whole)
    with pytest.raises(InputError, match="has a tab, a new line, or bytes that are not UTF-8"):
        open_images(tmp_path)
