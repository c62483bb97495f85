"""Pictures of a contact sheet are opened by their paths, with the errors of a capture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iarmem_plugin.errors import InputError
from iarmem_plugin.report.contact_sheet import contact_sheet, find_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade in (0, 100, 200):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / f"{shade}.png")
    return tmp_path


def reds(pictures: list[Image.Image]) -> list[int]:
    return [int(np.asarray(picture)[0, 0, 0]) for picture in pictures]


def test_pictures_come_in_the_order_of_their_paths(folder: Path) -> None:
    assert reds(find_pictures(folder, ["200.png", "0.png"])) == [200, 0]


def test_pictures_of_an_npz_file_are_found_by_their_names(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[1] = 7
    np.savez(tmp_path / "all.npz", images=pixels, labels=[0, 0], names=["a", "b"])
    assert reds(find_pictures(tmp_path / "all.npz", ["b", "a"])) == [7, 0]
    with pytest.raises(InputError, match="has no picture 'c'; give the images of the capture"):
        find_pictures(tmp_path / "all.npz", ["c"])


def test_a_missing_picture_is_named(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no picture '1\.png'; give the folder of the capture"
    ):
        find_pictures(folder, ["0.png", "1.png"])


def test_a_corrupt_picture_is_refused_as_in_a_capture(folder: Path) -> None:
    (folder / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"picture '0\.png' cannot be read: .*; remove it"):
        find_pictures(folder, ["0.png"])


def test_what_is_neither_a_folder_nor_an_npz_file_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"neither a folder nor an \.npz file nor a \.txt list"):
        find_pictures(folder / "0.png", ["0.png"])


def test_a_sheet_has_a_place_for_each_picture(folder: Path) -> None:
    names = ["0.png", "100.png", "200.png"]
    figure = contact_sheet(find_pictures(folder, names), names, title="three")
    assert [axes.get_title() for axes in figure.axes] == [*names, "", ""]


# --- lists


def test_pictures_of_a_list_are_found_by_their_paths(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "lists/images.txt"
    source.parent.mkdir()
    source.write_text("# a list\n0.png\t3\n200.png\t1\n")
    assert reds(find_pictures(source, ["200.png", "0.png"], root=folder)) == [200, 0]
    with pytest.raises(InputError, match=r"no picture '100\.png'; give the list of the capture"):
        find_pictures(source, ["100.png"], root=folder)
    beside = folder / "images.txt"
    beside.write_text("0.png\t3\n")
    assert reds(find_pictures(beside, ["0.png"])) == [0]
    with pytest.raises(InputError, match="a root is for a list"):
        find_pictures(folder, ["0.png"], root=folder)


# --- nothing outside the folder


@pytest.mark.parametrize(
    "path", ["../secret.png", "{outside}", "a/../../secret.png", "link.png", "linked/secret.png"]
)
def test_a_picture_outside_the_folder_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "linked").symlink_to(tmp_path)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InputError, match="of the store lies outside"):
        find_pictures(folder, [path.format(outside=tmp_path / "secret.png")])


@pytest.mark.parametrize("path", ["a\0b.png", "a" * 600 + ".png", "ring.png", ".", ""])
def test_a_path_that_no_picture_can_have_is_not_there(folder: Path, path: str) -> None:
    (folder / "ring.png").symlink_to("ring.png")
    with pytest.raises(InputError, match="has no picture"):
        find_pictures(folder, [path])


# --- captions


@pytest.mark.parametrize(
    "sizes", [[(30, 10)] * 12, [(10, 30)] * 12, [(9, 9)] * 3, [(40, 9), (9, 40)] * 4]
)
def test_captions_are_on_no_picture_and_on_the_sheet(sizes: list[tuple[int, int]]) -> None:
    pictures = [Image.new("RGB", size) for size in sizes]
    figure = contact_sheet(pictures, ["0.1234\n" + "w" * 26] * len(sizes), title="a $\\frac title")
    figure.canvas.draw()
    axes = figure.axes[: len(sizes)]
    drawn = [one.images[0].get_window_extent() for one in axes]
    captions = [one.title.get_window_extent() for one in axes]
    for caption in captions:
        assert not any(caption.overlaps(picture) for picture in drawn)
        assert figure.bbox.contains(*caption.min)
        assert figure.bbox.contains(*caption.max)
    for first, second in pairwise(captions):
        assert not first.overlaps(second)
