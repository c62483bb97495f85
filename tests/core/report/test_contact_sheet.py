"""Pictures of a contact sheet are opened by their paths, with the errors of a capture."""

from __future__ import annotations

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
    with pytest.raises(InputError, match=r"neither a folder nor an \.npz file"):
        find_pictures(folder / "0.png", ["0.png"])


def test_a_sheet_has_a_place_for_each_picture(folder: Path) -> None:
    names = ["0.png", "100.png", "200.png"]
    figure = contact_sheet(find_pictures(folder, names), names, title="three")
    assert [axes.get_title() for axes in figure.axes] == [*names, "", ""]
