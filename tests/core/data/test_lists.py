"""Lists of pictures: whatever the names, they read back equal, or are refused in one line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.labels import read_classes
from iarmem_plugin.data.lists import list_text, read_list
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

from .conftest import labels_of, tree

ODD = [
    *("#other", " blank", "blank ", "\xa0both\u3000", "\ufeffmark", "#", " ", "# #", "\x85\x1f"),
    *("a\x0cb", "a\x85b", "a\u2028b", "\u202egpj", "[red]", "Ａ́", "\x1b[31m", "a\\b", "'\"", "3"),
    "x" * 255,
]


@pytest.mark.parametrize("name", ODD)
def test_a_list_reads_back_equal_whatever_the_names(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "d", "0/a.png", "1/b.png")
    (root / "0").rename(root / name)
    (root / "1" / "b.png").rename(root / "1" / f"{name[:251]}.png")
    (tmp_path / "c").write_text(json.dumps({name: 0, "1": 1}))
    images = open_images(root, classes=tmp_path / "c")
    images.write_list(tmp_path / "list.txt")
    again = open_images(tmp_path / "list.txt", root=root)
    assert again.paths == images.paths
    assert again.digest == images.digest
    assert again.check_headers() is again


SIGNS = st.one_of(
    st.sampled_from("# \t\n\r/.\\\0\ufeff\u202e\u2028\x85\x1c\x1b[]'\""),
    st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]),
)
NAMES = st.one_of(st.text(SIGNS, min_size=1, max_size=12), st.text(SIGNS, min_size=200))


def refused(call: Callable[[], Images]) -> Images | None:
    """Return the pictures, or None where they are refused, which must be in one plain line."""
    try:
        return call()
    except InputError as error:
        said = str(error)
    assert len(said) <= 400
    assert said == shown(said, 400)
    return None


@settings(max_examples=40)
@given(st.lists(NAMES, min_size=1, max_size=3, unique=True))
def test_any_names_of_arrays_read_back_equal_or_are_refused(names: list[str]) -> None:
    pixels, labels = np.zeros((len(names), 2, 2, 3), np.uint8), np.arange(len(names))
    images = refused(lambda: Images.from_arrays(pixels, labels, names=names))
    if images is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        images.write_list(Path(folder, "list"))
        lines = read_list(Path(folder, "list"), Path(folder))
        assert {path: line.label for path, line in lines.items()} == labels_of(images)


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=255), NAMES)
@example(b"#other", " a ")
@example(b"\xff", "a")
def test_any_names_of_files_read_back_equal_or_are_refused(name: bytes, other: str) -> None:
    folder, file = os.fsdecode(name), os.fsdecode(other[:60].encode("utf-8", "replace"))
    assume(not {"/", "\0"} & set(folder + file))
    assume(folder[0] != "." and file[0] != ".")
    with tempfile.TemporaryDirectory() as root:
        Path(root, folder).mkdir()
        Path(root, folder, f"{file}.png").write_text("")
        Path(root, "0").mkdir(exist_ok=True)
        Path(root, "0", "a.png").write_text("")
        classes = Path(root, "classes")
        classes.write_text(json.dumps({folder: 5, "0": 1}))
        images = refused(lambda: open_images(root, classes=classes))
        if images is not None:
            images.write_list(Path(root, "list"))
            lines = read_list(Path(root, "list"), Path(root))
            assert {path: line.label for path, line in lines.items()} == labels_of(images)


@settings(max_examples=40)
@given(st.one_of(st.text(max_size=60).map(str.encode), st.binary(max_size=60)))
def test_any_list_and_classes_file_is_read_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "file.txt")
        file.write_bytes(content)
        refused(lambda: read_classes(file))
        refused(lambda: open_images(file, num_classes=3))


def test_todays_lists_are_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# a comment\n\n 0/a.png \t 3 \n./b/../c.png\t4\n0/d e.png\n")
    expected = {"0/a.png": 3, "c.png": 4, "0/d e.png": None}
    lines = read_list(tmp_path / "list", tmp_path)
    assert {path: line.label for path, line in lines.items()} == expected


def test_plain_names_are_written_as_they_are() -> None:
    assert list_text(["0/a.png", "0/#b.png"], [0, 1]) == "0/a.png\t0\n0/#b.png\t1\n"
    assert list_text(["#0/a", " b ", "c "], [0, 1, 2]) == "./#0/a\t0\n./ b /.\t1\n./c /.\t2\n"


def test_a_list_of_joined_pictures_with_one_name_is_refused(tmp_path: Path) -> None:
    images = open_images(tree(tmp_path / "d", "0/a.png"))
    with pytest.raises(InputError, match=r"picture '0/a.png' is there twice, as in joined lists"):
        images.join(images).write_list(tmp_path / "list.txt")


@pytest.mark.parametrize("separator", [" ", "   ", ",", ", ", ";"])
def test_a_label_that_is_not_after_a_tab_is_refused(tmp_path: Path, separator: str) -> None:
    tree(tmp_path, "0/a.png")
    (tmp_path / "list.txt").write_text(f"0/a.png{separator}3\n")
    with pytest.raises(InputError, match=r"line 1 .*; a label is written after a tab, not after"):
        open_images(tmp_path / "list.txt")


def test_a_picture_whose_name_ends_in_a_number_needs_no_label(tmp_path: Path) -> None:
    root = tree(tmp_path, "0/a.png")
    (root / "0" / "a.png").rename(root / "0" / "a.b 3")
    (tmp_path / "list.txt").write_text("0/a.b 3\n")
    assert open_images(tmp_path / "list.txt").paths == ("0/a.b 3",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_list_is_read_in_any_marked_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.TXT").write_bytes("0/grün.png\t3\r\n".encode(encoding))
    assert open_images(tmp_path / "list.TXT").paths == ("0/grün.png",)


@pytest.mark.parametrize("line", ["nowhere/a.png", "cat/../dog/a.png"])
def test_a_folder_that_is_not_there_has_no_class(tmp_path: Path, line: str) -> None:
    tree(tmp_path, "cat/a.png")
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"'(nowhere|dog)' is not a class folder"):
        open_images(tmp_path / "list.txt", num_classes=1)
