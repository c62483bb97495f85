"""Which class a folder or an array stands for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.labels import read_classes
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import InputError

from .conftest import labels_of, tree


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
    with pytest.warns(UserWarning, match="1 of 3 class folders hold no pictures: 'ant'"):
        images = open_images(tmp_path, num_classes=3)
    assert labels_of(images) == {"cat/1.png": 1, "dog/1.png": 2}


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


def test_a_folder_index_too_large_for_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'4294967299' is outside the classes 0\.\.2147483647"):
        open_images(tree(tmp_path, "4294967299/a.png"))


def test_an_empty_class_folder_does_not_change_what_the_others_mean(tmp_path: Path) -> None:
    for name in "123":
        (tmp_path / name).mkdir()
        if name != "3":
            Image.new("RGB", (4, 4)).save(tmp_path / name / "one.png")
    with pytest.warns(UserWarning, match="1 of 3 class folders hold no pictures: '3'"):
        images = Images.from_folder(tmp_path, num_classes=3)
    assert images.labels.tolist() == [0, 1]  # ranks, as 3 is no index of three classes


@pytest.mark.parametrize("num_classes", [None, 10])
def test_a_label_that_would_wrap_into_the_classes_is_refused(
    tmp_path: Path, num_classes: int | None
) -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[3, 2**32 + 3])
    with pytest.raises(InputError, match="label 4294967299"):
        open_images(tmp_path / "x.npz", num_classes=num_classes)


def test_a_classes_file_names_the_labels_of_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=[4, 2])
    (tmp_path / "c.json").write_text(json.dumps({"no": 2, "yes": 4}))
    assert open_images(tmp_path / "x.npz", classes=tmp_path / "c.json").classes[4] == "yes"


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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "text", ["grün 7\nbig dog 2\n", '{"grün": 7,\n"big dog": 2}', "grün,7\n\n\nbig dog\t2"]
)
def test_a_classes_file_is_read_whatever_its_form(
    tmp_path: Path, text: str, encoding: str, end: str
) -> None:
    (tmp_path / "c").write_bytes(text.replace("\n", end).encode(encoding))
    assert read_classes(tmp_path / "c") == {"grün": 7, "big dog": 2}


def test_a_list_of_ids_is_read_whatever_its_form(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes("\r\n".join(WORDNET).encode("utf-8-sig"))
    assert read_classes(tmp_path / "c")["n15075141"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{{"cat": {"[" * 100_000}', "nested more than 100 deep"),
        ('{"cat": {"a": 1}}', r"maps 'cat' to \[\('a', 1\)\], not a class"),
        ('{"cat": NaN}', "NaN is not a value of JSON"),
        ('{"cat": true}', "maps 'cat' to True, not a class"),
        ('{"cat": 1, "cat": 1}', "gives a name twice"),
        (" " * 1_000_000 + "x", "line 1 of the classes file"),
        ("cat" + " ," * 500_000, "line 1 of the classes file"),
        (" 7", "line 1 of the classes file"),
        ("7", "line 1 of the classes file"),
        ("\n \n", "is empty"),
    ],
)
def test_a_hostile_classes_file_is_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "c").write_text(text)
    with pytest.raises(InputError, match=message) as said:
        read_classes(tmp_path / "c")
    assert len(str(said.value)) <= 400


def test_a_classes_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the classes file /dev/zero is not a file"):
        open_images(tree(tmp_path, "cat/a.png"), classes="/dev/zero")


@pytest.mark.parametrize("name", ["a\x85b", "a\u2028b", "a\x0cb", "a, b", "#b", "7"])
def test_a_name_in_a_classes_file_may_hold_any_sign_but_ends_of_lines(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "c").write_text(f"{name}\t7\ncat 3", encoding="utf-8")
    assert read_classes(tmp_path / "c") == {name: 7, "cat": 3}
