"""How one picture is read from a file or a dataset's item, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from iarmem_plugin.data.images import Images, open_images
from iarmem_plugin.errors import InputError

from .conftest import noise, tree


def test_files_that_are_not_pictures_are_found_by_their_first_bytes(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    (tmp_path / "0").mkdir()
    Image.fromarray(noise(6, 6)).convert(mode).save(tmp_path / "0" / name)
    assert open_images(tmp_path).load(0).mode == "RGB"


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    Image.fromarray(noise(6, 6)).convert("P").save(
        tmp_path / "0" / "a.png", transparency=bytes(range(256))
    )
    assert open_images(tmp_path).load(0).mode == "RGB"


class Single(Dataset):
    """One item, as given."""

    def __init__(self, item: object) -> None:
        self.item = item

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> object:
        return self.item


@pytest.mark.parametrize(
    "value",
    [
        noise(4, 5),
        Image.fromarray(noise(4, 5)),
        torch.from_numpy(noise(4, 5)).permute(2, 0, 1),
        torch.from_numpy(noise(4, 5)).permute(2, 0, 1) / 255,
        noise(4, 5) / 255,
    ],
)
def test_a_datasets_picture_may_be_of_any_kind(value: object) -> None:
    images = Images.from_dataset(Single((value, 0, "more")), labels=[0])
    assert np.array_equal(images.load(0), noise(4, 5))


@pytest.mark.parametrize(
    "value", [noise(4, 4)[..., 0], torch.from_numpy(noise(4, 4)[None, ..., 0])]
)
def test_a_grey_picture_is_read_as_rgb(value: object) -> None:
    images = Images.from_dataset(Single((value, 0)), labels=[0])
    assert np.array_equal(images.load(0), np.repeat(noise(4, 4)[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "item 0 of the dataset is int .3.; expected a picture and its label"),
        ((noise(4, 4), "cat"), "label str .'cat'.; expected an integer"),
        ((torch.randn(3, 4, 4), 0), r"float32 \(3, 4, 4\) from -.* leave out what normalises"),
        ((np.zeros((3, 4, 4), np.uint8), 0), r"uint8 \(3, 4, 4\); expected a PIL picture"),
        ((torch.zeros(2, 3, 4, 4), 0), r"float32 \(2, 3, 4, 4\); expected"),
    ],
)
def test_a_dataset_of_other_things_is_refused(item: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Images.from_dataset(Single(item), labels=[0]).load(0)
