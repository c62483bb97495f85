"""What folders, lists, .npz files and datasets give, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import InputError

from .conftest import labels_of, noise, tree


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "notes.txt").write_text("none")
    with pytest.raises(InputError, match="holds no pictures"):
        open_images(tmp_path)


def test_a_picture_outside_a_class_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"outside any class folder, such as 'loose.png'"):
        open_images(tree(tmp_path, "0/a.png", "loose.png"))


def test_linked_class_folders_and_pictures_are_read(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "faces/a.png", "b.png")
    root = tree(tmp_path / "root", "1/c.png")
    (root / "0").symlink_to(tmp_path / "elsewhere" / "faces")
    (root / "1" / "d.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    images = open_images(root)
    assert labels_of(images) == {"0/a.png": 0, "1/c.png": 1, "1/d.png": 1}
    assert images.verify().paths == images.paths


def test_two_links_to_one_folder_are_both_read(tmp_path: Path) -> None:
    root = tree(tmp_path, "0/a.png")
    (root / "1").symlink_to(root / "0")
    assert labels_of(open_images(root)) == {"0/a.png": 0, "1/a.png": 1}


def test_a_link_that_leads_back_is_followed_no_further(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "0/a.png")
    other = tree(tmp_path / "other", "b.png")
    (root / "0" / "up").symlink_to(root)
    (root / "0" / "other").symlink_to(other)
    (other / "back").symlink_to(root / "0")
    assert open_images(root).paths == ("0/a.png", "0/other/b.png")


def test_a_link_to_no_picture_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, "0/a.png")
    (root / "0" / "b.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"'0/b.png' cannot be read"):
        open_images(root).verify()


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path, "0/a.png", "0/._a.png", ".cache/b.png", "0/.thumbs/a.png", ".loose.png")
    assert open_images(root).paths == ("0/a.png",)


def test_a_hidden_folder_above_the_pictures_does_not_hide_them(tmp_path: Path) -> None:
    assert open_images(tree(tmp_path / ".data", "0/a.png")).paths == ("0/a.png",)


def listed(root: Path, text: str, **options: object) -> Images:
    tree(root / "p", "0/a.png", "0/b.png", "3/c.png", "cat/x/d.png")
    (root / "p" / "list.txt").write_text(text)
    return open_images(root / "p" / "list.txt", num_classes=10, **options)


def test_a_list_gives_pictures_in_its_order_with_the_labels_of_their_folders(
    tmp_path: Path,
) -> None:
    images = listed(tmp_path, "# two of them\n3/c.png\n\n0/b.png\n")
    assert list(zip(images.paths, images.labels, strict=True)) == [("3/c.png", 3), ("0/b.png", 0)]
    assert images.classes == {0: "0", 3: "3"}
    assert np.array_equal(images.load(0), noise(6, 6, 2))


def test_a_label_behind_a_tab_wins_over_the_folder(tmp_path: Path) -> None:
    images = listed(tmp_path, "cat/x/d.png\t9\n./0/../0/a.png\n")
    assert labels_of(images) == {"cat/x/d.png": 9, "0/a.png": 0}


def test_a_lists_paths_can_be_relative_to_another_folder_or_absolute(tmp_path: Path) -> None:
    tree(tmp_path / "p", "0/a.png", "0/b.png")
    (tmp_path / "list.txt").write_text(f"0/b.png\n{tmp_path}/p/0/a.png\n")
    images = open_images(tmp_path / "list.txt", root=tmp_path / "p")
    assert labels_of(images.verify()) == {"0/b.png": 0, "0/a.png": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "names no pictures"),
        ("0/a.png\n0/a.png\t3\n", r"line 2 of the list .* named once"),
        ("../a.png\n", "line 1 of the list"),
        ("/elsewhere/a.png\n", "expected a path inside"),
        ("0/a.png\tzero\n", "a tab and a class index"),
        ("0/a.png\t3 4\n", "a tab and a class index"),
        ("0/a.png\t10\n", "label 10, which is outside the classes"),
        ("a.png\n", "'a.png' of the list is in no class folder"),
        ("cat/x/d.png\n", "class of folder 'cat' cannot be told"),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        listed(tmp_path, text)


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    tree(tmp_path, "0/a.png")
    (tmp_path / "list.txt").write_text("0/a.png\n", encoding="utf-8-sig")
    assert open_images(tmp_path / "list.txt").paths == ("0/a.png",)


def test_an_npz_file_gives_pictures_labels_names_and_classes(tmp_path: Path) -> None:
    pixels = np.stack([noise(4, 4, seed) for seed in range(3)])
    path = tmp_path / "x.npz"
    np.savez(path, images=pixels, labels=[1, 0, 1], names=["u", "v", "w"], classes=["no", "yes"])
    images = open_images(path, num_classes=2)
    assert labels_of(images) == {"u": 1, "v": 0, "w": 1}
    assert images.classes == {0: "no", 1: "yes"}
    assert np.array_equal(pixels[2], images.load(2))
    assert repr(images) == "Images(3 pictures, 2 classes)"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "has no array 'labels'"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, 0]}, "expected uint8"),
        ({"images": np.zeros((2, 4, 4, 3)), "labels": [0, 0]}, "images are float64"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0]}, "expected 2 integers"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0, -1]}, "label -1"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0, 5]}, "label 5"),
        (
            {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0, 1], "names": ["a", "a"]},
            "1 different names",
        ),
        (
            {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0, 1], "names": "ab"},
            r"array 'names' of .* has shape \(\)",
        ),
        (
            {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0, 1], "classes": "ab"},
            r"array 'classes' of .* has shape \(\)",
        ),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8), "labels": np.zeros(0, int)}, "0 pictures"),
    ],
)
def test_a_bad_npz_file_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=message):
        open_images(tmp_path / "x.npz", num_classes=2)


def test_a_file_that_only_claims_to_be_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"cannot be read as an .npz file"):
        open_images(tmp_path / "x.npz")


class Numbered(Dataset):
    """Items whose picture has one colour: their number."""

    def __init__(self, items: int = 3, **attributes: object) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> tuple[object, int]:
        return Image.new("RGB", (4, 4), (index, 0, 0)), 2 * index


@pytest.mark.parametrize("attribute", ["targets", "labels"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_datasets_own_labels_are_taken(attribute: str, kind: type) -> None:
    images = Images.from_dataset(Numbered(**{attribute: kind([0, 2, 4])}))
    assert images.labels.tolist() == [0, 2, 4]
    assert [np.asarray(images.load(i))[0, 0].tolist() for i in (2, 0)] == [[2, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    "attributes",
    [{}, {"targets": [0, 1, 2], "target_transform": abs}, {"targets": [[0], [1, 2], []]}],
)
def test_a_dataset_without_labels_of_its_own_is_read_once_with_a_warning(
    attributes: dict[str, object],
) -> None:
    with pytest.warns(UserWarning, match="reading all 3 items once"):
        images = Images.from_dataset(Numbered(**attributes))
    assert images.labels.tolist() == [0, 2, 4]


def test_a_label_that_differs_from_its_items_is_refused_when_it_is_read() -> None:
    images = Images.from_dataset(Numbered(), labels=[0, 1, 4], classes={0: "a", 1: "b", 4: "c"})
    assert images.load(2).size == (4, 4)
    with pytest.raises(InputError, match=r"item 1 .* label 2, and 1 was expected"):
        images.load(1)
