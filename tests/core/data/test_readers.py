"""How one picture is read from a file or a dataset's item, and what is refused."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.data.readers import in_rgb
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


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


def stored(folder: Path, name: str, picture: Image.Image, **options: object) -> Images:
    (folder / "0").mkdir()
    picture.save(folder / "0" / name, **options)
    return open_images(folder)


def grey(images: Images) -> np.ndarray:
    """Return the levels of the first picture, which must be grey."""
    pixels = np.asarray(images.load(0)).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("factor", [257, 256])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path: Path, name: str, factor: int) -> None:
    options = {"irreversible": False} if name == "a.jp2" else {}
    images = stored(tmp_path, name, Image.fromarray(RAMP * factor), **options)
    assert np.array_equal(grey(images.check_headers()), RAMP)


def test_sixteen_bits_in_an_order_of_bytes_of_their_own(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (16, 16), (RAMP * 257).astype(">u2").tobytes())
    assert np.array_equal(np.asarray(in_rgb(big))[..., 1], RAMP)
    dataset = Single((Image.fromarray(RAMP * 257), 0))
    assert np.array_equal(grey(Images.from_dataset(dataset, labels=[0])), RAMP)


def tiff(levels: bytes, *, bits: int, photometric: int) -> bytes:
    """Return a TIFF of 16 x 16 levels, as its specification writes it."""
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 16}
    tags[279] = len(levels)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(levels))
        + levels
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def twelve_bits(levels: np.ndarray) -> bytes:
    one, other = levels.reshape(-1, 2).astype(int).T
    packed = np.stack([one >> 4, (one & 15) << 4 | other >> 8, other & 255], axis=1)
    return packed.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff((RAMP * 257).tobytes(), bits=16, photometric=1), RAMP),
        (tiff((RAMP * 257).tobytes(), bits=16, photometric=0), 255 - RAMP),  # white is zero
        (tiff(twelve_bits(RAMP * 16 + RAMP // 16), bits=12, photometric=1), RAMP),
    ],
)
def test_a_tiffs_own_reach_and_order_of_levels_are_kept(
    tmp_path: Path, data: bytes, expected: np.ndarray
) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.tif").write_bytes(data)
    assert np.array_equal(grey(open_images(tmp_path).check_headers()), expected)


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("a.tif", Image.fromarray(RAMP.astype(np.float32) / 255)),
        ("a.pfm", Image.fromarray(RAMP.astype(np.float32) / 255)),
        ("a.tif", Image.fromarray(RAMP.astype(np.int32))),
    ],
)
def test_levels_without_a_known_white_are_refused_by_the_header(
    tmp_path: Path, name: str, picture: Image.Image
) -> None:
    images = stored(tmp_path, name, picture)
    message = rf"picture '0/{name}' cannot be read: its levels are .* mode [IF].*8 or 16 bits"
    for read in (images.check_headers, lambda: images.load(0), images.verify):
        with pytest.raises(InputError, match=message):
            read()


def test_colours_under_transparency_are_kept(tmp_path: Path) -> None:
    colours = Image.fromarray(noise(4, 4)).quantize(8)
    clear = colours.copy()
    clear.putpalette(colours.getpalette() or [])
    images = stored(tmp_path, "a.png", clear, transparency=3)
    assert np.array_equal(images.load(0), colours.convert("RGB"))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_black_and_white_stay_so_in_every_mode(mode: str) -> None:
    picture = Image.fromarray(np.repeat(np.uint8([[0, 255]]), 3).reshape(1, 2, 3)).convert(mode)
    assert np.asarray(in_rgb(picture)).tolist() == [[[0] * 3, [255] * 3]]


def test_a_turn_in_the_exif_data_is_not_made(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    images = stored(tmp_path, "a.png", Image.fromarray(noise(4, 6)), exif=exif)
    with Image.open(tmp_path / "0" / "a.png") as file:
        assert file.getexif()[0x0112] == 6
    assert np.array_equal(images.load(0), noise(4, 6))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_a_picture_that_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    (tmp_path / "0").mkdir()
    make(tmp_path / "0" / "a.png")
    (tmp_path / "list.txt").write_text("0/a.png")
    images = open_images(tmp_path / "list.txt")
    for read in (images.check_headers, images.verify):
        with pytest.raises(InputError, match=r"picture '0/a.png' cannot be read: it is not a file"):
            read()


def test_whatever_pillow_raises_names_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images(tree(tmp_path, "0/a.png"))
    for error in (KeyError(3), RuntimeError("x" * 1000), ZeroDivisionError(), IndexError()):
        monkeypatch.setattr(Image, "open", raiser(error))
        with pytest.raises(InputError, match=r"^picture '0/a.png' cannot be read: ") as said:
            images.load(0)
        assert len(str(said.value)) <= 400


def raiser(error: Exception) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise error

    return fails


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
