"""What counts as a picture, a class or a left-over in a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from iarmem_plugin.data import folders
from iarmem_plugin.data.folders import NOT_PICTURES, PICTURE_SUFFIXES
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import InputError

from .conftest import labels_of, noise, tree


def test_every_suffix_that_pillow_reads_is_that_of_a_picture() -> None:
    Image.init()
    read = {
        suffix
        for suffix, name in Image.EXTENSION.items()
        if name in Image.OPEN and name not in NOT_PICTURES
    }
    assert read | {".mpo"} <= PICTURE_SUFFIXES


@pytest.mark.parametrize("name", ["a.JFIF", "b.Avif", "c.jp2", "d.TGA", "e.qoi", "f.Ppm", "g.mpo"])
def test_pictures_of_rarer_formats_are_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "0").mkdir()
    kind = {"JFIF": "JPEG"}.get(name[2:])
    Image.fromarray(noise(8, 8)).save(tmp_path / "0" / name, kind)
    images = open_images(tmp_path).check_headers()
    assert images.paths == (f"0/{name}",)
    assert images.load(0).size == (8, 8)


def test_a_reader_that_was_added_to_pillow_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "0/a.png")
    (tmp_path / "0" / "a.png").rename(tmp_path / "0" / "b.heic")
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    monkeypatch.setitem(Image.OPEN, "HEIF", Image.OPEN["PNG"])
    assert open_images(tmp_path).paths == ("0/b.heic",)


def test_files_that_are_no_pictures_are_counted_by_their_suffix(tmp_path: Path) -> None:
    tree(tmp_path, "0/a.png")
    for name in ("b.heic", "c.HEIC", "README", "e.eps", "Thumbs.db", "desktop.ini"):
        (tmp_path / "0" / name).write_text("")
    (tmp_path / "classes.txt").write_text("")
    expected = r"4 files are left out: \.heic \(2\), (no suffix|\.eps) \(1\), .*suffixes$"
    with pytest.warns(UserWarning, match=expected) as caught:
        assert open_images(tmp_path).paths == ("0/a.png",)
    assert len(caught) == 1


def test_a_folder_of_other_files_alone_says_which(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.heic").write_text("")
    with pytest.raises(
        InputError, match=r"holds no pictures .*; 1 file is left out: \.heic \(1\)$"
    ):
        open_images(tmp_path)


LEFT_OVERS = [
    *("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    *("#recycle", "@Recycle", "RECYCLER", ".Trashes", ".ipynb_checkpoints", "__pycache__"),
]


@pytest.mark.parametrize("name", LEFT_OVERS)
@pytest.mark.parametrize("filled", [False, True])
def test_left_overs_are_no_classes(tmp_path: Path, name: str, filled: bool) -> None:
    tree(tmp_path, "cat/a.png", "dog/a.png")
    (tmp_path / name).mkdir()
    if filled:
        tree(tmp_path, f"{name}/a.png", f"dog/{name}/thumbnail.png")
    images = open_images(tmp_path, num_classes=2)
    assert labels_of(images) == {"cat/a.png": 0, "dog/a.png": 1}
    with pytest.raises(InputError, match="there are 2 folders for 3 classes"):
        open_images(tmp_path, num_classes=3)


def test_a_left_over_that_a_list_names_is_no_class(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.png", "dog/a.png", "@eaDir/a.png")
    (tmp_path / "list.txt").write_text("cat/a.png\n@eaDir/a.png\n")
    with pytest.raises(InputError, match="'@eaDir' is not a class folder; name a picture in one"):
        open_images(tmp_path / "list.txt", num_classes=2)


def test_many_folders_without_pictures_are_named_in_one_line(tmp_path: Path) -> None:
    tree(tmp_path, "7/a.png")
    for number in range(7):
        (tmp_path / f"{number}").mkdir()
    (tmp_path / "6" / ".hidden.png").write_text("")
    expected = "7 of 8 class folders hold no pictures: '0', '1', '2', '3', '4' and 2 more"
    with pytest.warns(UserWarning, match=expected):
        assert open_images(tmp_path).labels.tolist() == [7]


def test_a_link_that_leads_to_itself_is_no_folder(tmp_path: Path) -> None:
    tree(tmp_path, "0/a.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "0" / "loop.png").symlink_to(tmp_path / "0" / "loop.png")
    images = open_images(tmp_path)
    assert images.paths == ("0/a.png", "0/loop.png")
    with pytest.raises(InputError, match=r"'0/loop.png' cannot be read: .*symbolic links"):
        images.check_headers()


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(folders.os, "scandir", denied)
    with pytest.raises(InputError, match=r"^folder .* cannot be listed: Permission denied$"):
        open_images(tmp_path)
