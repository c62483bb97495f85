"""Arrays from .npz files: whole, or refused by name, whatever was done to the file."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile

import numpy as np
import pytest

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError

from .conftest import noise

PIXELS = np.stack([noise(4, 4, seed) for seed in range(3)])
NAMES = ["u/1.png", "v", "w ö"]


def whole(save: Callable[..., None] = np.savez_compressed) -> bytes:
    buffer = io.BytesIO()
    save(buffer, images=PIXELS, labels=[1, 0, 1], names=NAMES, classes=["no", "yes"])
    return buffer.getvalue()


def read(folder: Path, data: bytes) -> Images | InputError:
    """Return the pictures of a file, or its refusal, which must be one plain line."""
    path = folder / "x.npz"
    path.write_bytes(data)
    try:
        return Images.from_npz(path)
    except InputError as error:
        said = error
    assert len(str(said)) <= 400
    assert "\n" not in str(said)
    return said


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def encrypted(data: bytes) -> bytes:
    place = data.index(b"PK\x01\x02")
    return flipped(flipped(data, 6, 0), place + 8, 0)


def other_method(data: bytes) -> bytes:
    place = data.index(b"PK\x01\x02")
    return flipped(flipped(data, 8, 6), place + 10, 6)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def promising(shape: str) -> bytes:
    text = (
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    )
    return archive(images=b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text, labels=b"")


def inflated(data: bytes) -> bytes:
    """Let the archive promise four gigabytes."""
    place = data.index(b"PK\x01\x02") + 24
    return data[:place] + struct.pack("<I", 2**32 - 2) + data[place + 4 :]


def twice(data: bytes) -> bytes:
    buffer = io.BytesIO(data)
    with ZipFile(buffer, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("images.npy", b"")
    return buffer.getvalue()


def swallowing(data: bytes) -> bytes:
    """Let the comment of the last array but one be the last array's entry."""
    places = [place for place in range(len(data)) if data.startswith(b"PK\x01\x02", place)]
    length = data.index(b"PK\x05\x06") - places[-1]
    return data[: places[-2] + 32] + struct.pack("<H", length) + data[places[-2] + 34 :]


def lzma(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as old, ZipFile(buffer, "w", ZIP_LZMA) as new:
        new.writestr("images.npy", old.read("images.npy"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (encrypted, "'images.npy' is encrypted"),
        (other_method, "'images.npy' is packed by method 72, which numpy does not use"),
        (lzma, "'images.npy' is packed by method 14, which numpy does not use"),
        (inflated, "'images.npy' is said to unpack to 4,294,967,294 bytes"),
        (swallowing, "it lists 3 arrays, and says that there are 4"),
        (twice, "it holds 'images.npy' 2 times"),
        (
            lambda _: promising("(1000000000, 256, 256, 3)"),
            "196,608,000,000,000 bytes, and the file",
        ),
        (lambda _: promising("(-1, -4, 4, 3)"), "48 bytes, and the file holds 0"),
        (lambda _: promising("(" * 200 + ")" * 200), "cannot be read as an .npz file"),
        (lambda data: data[:-30], "not a zip file"),
        (lambda data: b"", "not a zip file"),
        (lambda _: archive(images=b"", labels=b""), "EOF|magic"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    said = read(tmp_path, change(whole()))
    assert isinstance(said, InputError)
    with pytest.raises(InputError, match=message):
        raise said


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.array([{}]), labels=[0])
    with pytest.raises(InputError, match=r"'images\.npy' holds objects, which are not loaded"):
        Images.from_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x.npz")
    with pytest.raises(
        InputError, match=r"cannot be read as an \.npz file of pictures: it is not a"
    ):
        Images.from_npz(tmp_path / "x.npz")
    with pytest.raises(InputError, match="No such file"):
        Images.from_npz(str(tmp_path / "nowhere.npz"))


def test_names_may_be_bytes_and_arrays_of_any_order(tmp_path: Path) -> None:
    order = np.asfortranarray(PIXELS)
    names = np.array([name.encode() for name in NAMES])
    np.savez(
        tmp_path / "x.npz", images=order, labels=np.uint8([1, 0, 1]), names=names, classes=[b"n"]
    )
    with pytest.raises(InputError, match="outside the classes"):
        Images.from_npz(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", images=order, labels=np.uint8([1, 0, 1]), names=names, more=[1])
    images = Images.from_npz(tmp_path / "x.npz")
    assert images.paths == tuple(NAMES)
    assert np.array_equal(images.load(2), PIXELS[2])


def test_a_bit_that_flips_is_found_or_changes_nothing(tmp_path: Path) -> None:
    check_mutations(tmp_path, 50)


@pytest.mark.slow
def test_two_thousand_bits_that_flip_are_found_or_change_nothing(tmp_path: Path) -> None:
    check_mutations(tmp_path, 1000)


def check_mutations(folder: Path, rounds: int) -> None:
    random = np.random.default_rng(0)
    expected = read(folder, whole())
    assert isinstance(expected, Images)
    refused = 0
    for data in (whole(), whole(np.savez)):
        for _ in range(rounds):
            changed = mutated(data, random)
            found = read(folder, changed)
            refused += isinstance(found, InputError)
            if isinstance(found, Images):
                assert found.digest == expected.digest
                assert found.classes == expected.classes
                assert all(found.load(place) == expected.load(place) for place in range(3))
    assert refused > rounds / 2


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Flip a bit, cut a part out, or write a few bytes over others."""
    place, length = int(random.integers(len(data))), int(random.integers(1, 9))
    kind = random.integers(4)
    if kind < 2:
        return flipped(data, place, int(random.integers(8)))
    middle = random.bytes(length) if kind == 2 else b""
    return data[:place] + middle + data[place + length :]
