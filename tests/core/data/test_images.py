"""Where pictures and labels come from, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iarmem_plugin.data.images import Images, open_images
from iarmem_plugin.errors import InputError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(noise(height, width))


def tree(root: Path, *paths: str) -> Path:
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(6, 6, seed)).save(root / path)
    return root


def labels_of(images: Images) -> dict[str, int]:
    return dict(zip(images.paths, images.labels.tolist(), strict=True))


# --- labels of a folder


def test_a_complete_set_of_folders_ranks_by_name(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "ant/1.png", "ant/0.PNG", "dog/x/1.png")
    images = Images.from_folder(tmp_path, num_classes=3)
    assert labels_of(images) == {"ant/0.PNG": 0, "ant/1.png": 0, "cat/1.png": 1, "dog/x/1.png": 2}
    assert images.classes == {0: "ant", 1: "cat", 2: "dog"}
    assert images.labels.dtype == np.int32


@pytest.mark.parametrize("num_classes", [None, 3])
def test_names_that_rank_nothing_are_refused(tmp_path: Path, num_classes: int | None) -> None:
    tree(tmp_path, "cat/1.png", "ant/1.png")
    with pytest.raises(InputError, match="class of folder 'ant' cannot be told"):
        open_images(tmp_path, num_classes=num_classes)


def test_a_folder_without_pictures_still_counts_as_a_class(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "ant").mkdir()
    assert labels_of(open_images(tmp_path, num_classes=3)) == {"cat/1.png": 1, "dog/1.png": 2}


def test_names_can_be_class_indices(tmp_path: Path) -> None:
    tree(tmp_path, "10/a.png", "9/a.png")
    assert labels_of(open_images(tmp_path, num_classes=1000)) == {"10/a.png": 10, "9/a.png": 9}


def test_indices_win_over_ranks_in_a_complete_set(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{label}/a.png" for label in range(11)))
    assert labels_of(open_images(tmp_path, num_classes=11))["10/a.png"] == 10


def test_an_index_outside_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'12' is outside the classes 0..9"):
        open_images(tree(tmp_path, "3/a.png", "12/a.png"), num_classes=10)


@pytest.mark.parametrize(
    "text",
    ['{"cat": 7, "big dog": 2}', "cat\t7\nbig dog\t2\n", "cat 7\n\nbig dog 2", "cat,7\nbig dog, 2"],
)
def test_a_classes_file_maps_names(tmp_path: Path, text: str) -> None:
    tree(tmp_path / "p", "cat/1.png", "big dog/1.png")
    (tmp_path / "classes").write_text(text)
    images = open_images(tmp_path / "p", classes=tmp_path / "classes", num_classes=8)
    assert labels_of(images) == {"big dog/1.png": 2, "cat/1.png": 7}
    assert images.classes == {2: "big dog", 7: "cat"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 7", "no line for 1 folders: \\['dog'\\]"),
        ("cat 7\ndog seven", "line 2 of the classes file .* 'dog seven'"),
        ("cat 7\ndog 7", "both mapped to class 7"),
        ("cat 7\ncat 8", "gives a name twice"),
        ('{"cat": 7', "is not JSON"),
        ('{"cat": 7, "dog": "8"}', "maps 'dog' to '8'"),
        ("cat 7\ndog 2147483648", "maps 'dog' to 2147483648; expected a class in 0..2147483647"),
        ('{"cat": 7, "dog": 4294967299}', "maps 'dog' to 4294967299"),
        (f"cat 7\ndog {'9' * 5000}", "line 2 of the classes file"),
        (f'{{"cat": 7, "dog": {"9" * 5000}}}', "is not JSON"),
        ("cat 7\ndog 99", "label 99, which is outside the classes"),
    ],
)
def test_a_bad_classes_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    tree(tmp_path / "p", "cat/1.png", "dog/1.png")
    (tmp_path / "classes").write_text(text)
    with pytest.raises(InputError, match=message):
        open_images(tmp_path / "p", classes=tmp_path / "classes", num_classes=10)


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


def test_a_folder_index_too_large_for_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'4294967299' is outside the classes 0\.\.2147483647"):
        open_images(tree(tmp_path, "4294967299/a.png"))


def test_a_path_that_is_no_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("")
    with pytest.raises(InputError, match=r"is not a folder, .npz file or .txt list"):
        open_images(tmp_path / "x.tar")
    with pytest.raises(InputError, match="does not exist"):
        open_images(tmp_path / "nowhere")


# --- ImageNet's folders

WORDNET = ["n02119789", "n01440764", "n15075141", "n02100735"]


@pytest.mark.parametrize("line", ["{}", "{} kit fox, Vulpes macrotis", " {}\twhite wolf 3x"])
def test_some_of_imagenets_folders_are_told_by_the_list_of_all_ids(
    tmp_path: Path, line: str
) -> None:
    tree(tmp_path / "p", "n15075141/a.JPEG", "n02100735/a.JPEG")
    (tmp_path / "ids.txt").write_text("\n".join(line.format(one) for one in WORDNET) + "\n")
    images = open_images(tmp_path / "p", classes=tmp_path / "ids.txt", num_classes=4)
    assert labels_of(images) == {"n02100735/a.JPEG": 1, "n15075141/a.JPEG": 3}  # ranks of ids


def test_a_list_of_some_ids_is_refused(tmp_path: Path) -> None:
    tree(tmp_path / "p", "n15075141/a.JPEG")
    (tmp_path / "ids.txt").write_text("\n".join(WORDNET))
    with pytest.raises(InputError, match=r"lists 4 different WordNet ids; .* expected 1000"):
        open_images(tmp_path / "p", classes=tmp_path / "ids.txt", num_classes=1000)


def test_an_id_given_twice_is_refused(tmp_path: Path) -> None:
    tree(tmp_path / "p", "n15075141/a.JPEG")
    (tmp_path / "ids.txt").write_text("\n".join([*WORDNET, WORDNET[0]]))
    with pytest.raises(InputError, match=r"lists 4 different WordNet ids; .* expected 5"):
        open_images(tmp_path / "p", classes=tmp_path / "ids.txt")


def test_ids_with_indices_keep_their_indices(tmp_path: Path) -> None:
    tree(tmp_path / "p", "n15075141/a.JPEG")
    (tmp_path / "ids.txt").write_text("n15075141 7\nn01440764 2")
    assert open_images(tmp_path / "p", classes=tmp_path / "ids.txt").labels.tolist() == [7]


def test_some_of_imagenets_folders_are_known_by_their_ids(tmp_path: Path) -> None:
    tree(tmp_path, "n15075141/a.JPEG", "n02119789/a.JPEG", "n01440764/a.JPEG")
    images = open_images(tmp_path, num_classes=1000)
    assert images.labels.tolist() == [0, 278, 999]  # tench, kit fox, toilet tissue


def test_ids_that_are_not_imagenets_are_refused_with_the_cure(tmp_path: Path) -> None:
    tree(tmp_path, "n15075141/a.JPEG", "n00000001/a.JPEG")
    with pytest.raises(InputError, match=r"'n00000001' cannot be told.*LOC_synset_mapping\.txt"):
        open_images(tmp_path, num_classes=1000)


def test_imagenets_ids_say_nothing_of_a_model_with_other_classes(tmp_path: Path) -> None:
    tree(tmp_path, "n15075141/a.JPEG")
    with pytest.raises(InputError, match="cannot be told"):
        open_images(tmp_path, num_classes=100)


# --- text files of paths


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
        ("0/a.png\t3\t4\n", "a tab and a class index"),
        ("0/a.png\t10\n", "label 10, which is outside the classes"),
        ("a.png\n", "'a.png' of the list is in no class folder"),
        ("cat/x/d.png\n", "class of folder 'cat' cannot be told"),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        listed(tmp_path, text)


def test_a_root_for_something_that_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a root was given"):
        open_images(tree(tmp_path, "0/a.png"), root=tmp_path)


def test_a_written_list_comes_back(tmp_path: Path) -> None:
    images = open_images(tree(tmp_path / "p", "0/a.png", "0/b c.png", "3/c.png")).subset([2, 1])
    images.write_list(tmp_path / "list.txt")
    again = open_images(tmp_path / "list.txt", root=tmp_path / "p")
    assert again.digest == images.digest
    assert np.array_equal(again.load(1), images.load(1))


# --- pictures


def test_files_that_are_no_pictures_are_found_by_their_first_bytes(tmp_path: Path) -> None:
    tree(tmp_path, "0/a.png", "0/b.png", "1/c.png")
    whole = (tmp_path / "0" / "b.png").read_bytes()
    (tmp_path / "0" / "b.png").write_bytes(whole[: len(whole) // 2])
    images = open_images(tmp_path)
    assert images.check_headers() is images  # half a picture begins like one
    (tmp_path / "0" / "b.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"picture '0/b.png' cannot be read"):
        images.check_headers()
    joined = Images.from_arrays(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])).join(images)
    with pytest.raises(InputError, match=r"picture '0/b.png' cannot be read"):
        joined.check_headers()


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


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    (tmp_path / "0").mkdir()
    picture(6, 6).convert(mode).save(tmp_path / "0" / name)
    assert open_images(tmp_path).load(0).mode == "RGB"


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    picture(6, 6).convert("P").save(tmp_path / "0" / "a.png", transparency=bytes(range(256)))
    assert open_images(tmp_path).load(0).mode == "RGB"


# --- arrays


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


@pytest.mark.parametrize("num_classes", [None, 10])
def test_a_label_that_would_wrap_into_the_classes_is_refused(
    tmp_path: Path, num_classes: int | None
) -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[3, 2**32 + 3])
    with pytest.raises(InputError, match="label 4294967299"):
        open_images(tmp_path / "x.npz", num_classes=num_classes)


def test_a_file_that_only_claims_to_be_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"cannot be read as an .npz file"):
        open_images(tmp_path / "x.npz")


def test_a_classes_file_names_the_labels_of_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=[4, 2])
    (tmp_path / "c.json").write_text(json.dumps({"no": 2, "yes": 4}))
    assert open_images(tmp_path / "x.npz", classes=tmp_path / "c.json").classes[4] == "yes"


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


def test_an_empty_class_folder_does_not_change_what_the_others_mean(tmp_path: Path) -> None:
    for name in "123":
        (tmp_path / name).mkdir()
        if name != "3":
            Image.new("RGB", (4, 4)).save(tmp_path / name / "one.png")
    images = Images.from_folder(tmp_path, num_classes=3)
    assert images.labels.tolist() == [0, 1]  # ranks, as 3 is no index of three classes


def test_a_written_list_of_named_classes_comes_back(tmp_path: Path) -> None:
    tree(tmp_path / "p", "n01440764/a.png", "n01443537/b.png", "7/c.png")
    images = open_images(tmp_path / "p", classes=classes_file(tmp_path))
    images.write_list(tmp_path / "list.txt")
    again = open_images(tmp_path / "list.txt", root=tmp_path / "p", num_classes=1000)
    assert again.digest == images.digest


def classes_file(folder: Path) -> Path:
    (folder / "classes.json").write_text('{"n01440764": 3, "n01443537": 0, "7": 999}')
    return folder / "classes.json"


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    tree(tmp_path, "0/a.png")
    (tmp_path / "list.txt").write_text("0/a.png\n", encoding="utf-8-sig")
    assert open_images(tmp_path / "list.txt").paths == ("0/a.png",)


@pytest.mark.parametrize("name", ["a\tb.png", "a\nb.png", b"\xff.png"])
def test_a_name_that_no_list_can_hold_is_refused(tmp_path: Path, name: str | bytes) -> None:
    path = os.fsdecode(name)
    whole = (tree(tmp_path, "0/a.png") / "0" / "a.png").read_bytes()
    (tmp_path / "0" / path).write_bytes(whole)
    with pytest.raises(InputError, match="has a tab, a new line, or bytes that are not UTF-8"):
        open_images(tmp_path)
