"""`iarmem store` as users type it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.cli.store import app
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import IarmemError, StoreLockedError
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.store import ActivationStore, top_images
from iarmem_plugin.store.lock import WriteLock

Run = Callable[..., subprocess.CompletedProcess[str]]


def store(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def pictures(count: int) -> Images:
    pixels = np.zeros((count + 3, 4, 4, 3), np.uint8)
    names = [f"n{number:02d}/{number}.png" for number in range(count + 3)]
    whole = Images.from_arrays(pixels, np.arange(count + 3) % 5, names=names)
    return whole.subset(range(3, count + 3))  # ids 3, 4, ...: not the positions


def activations(count: int, neurons: int) -> np.ndarray:
    """Return values of two blocks and three scales, dims (block, scale, neuron, image)."""
    return np.random.default_rng(0).random((2, 3, neurons, count), np.float32)


def fill(path: Path, *, count: int = 21, slab: int = 8, neurons: int = 20) -> Path:
    """Make a whole store of the model "tiny"."""
    spans = tuple(Scale(str(number), (number,)) for number in range(3))
    paths = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b"))
    layout = ModelLayout("var", 2, neurons, spans, paths, range(3))
    settings = CaptureSettings("tiny", layout, pictures(count), slab)
    group, values = ActivationStore.create(path, settings)["tiny"], activations(count, neurons)
    for number in group.slabs:
        group.put(number, np.ascontiguousarray(values[None, ..., group.images_of(number)]))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fill(tmp_path / "x.zarr")


def test_info_says_what_is_inside_and_what_is_missing(path: Path) -> None:
    ActivationStore.open(path, "r+").invalidate("tiny", 1)
    done = store("info", path, "--json")
    (model,) = json.loads(done.stdout)["models"]
    assert done.exit_code == 0
    assert {name: model[name] for name in ("model", "blocks", "scales", "neurons", "images")} == {
        "model": "tiny",
        "blocks": 2,
        "scales": 3,
        "neurons": 20,
        "images": 21,
    }
    assert (model["captured"], model["slabs"], model["pending_slabs"]) == (13, 3, [1])
    shards = [f for f in (path / "tiny/activation/c").rglob("*") if f.is_file()]
    assert model["bytes"] == sum(shard.stat().st_size for shard in shards)
    assert "2 of 3" in store("info", path).stdout


def test_verify_passes_a_sound_store(path: Path) -> None:
    done = store("verify", path, "--deep", "--json")
    assert (done.exit_code, json.loads(done.stdout)["damages"]) == (0, [])


def test_verify_finds_a_flipped_bit_when_it_reads(path: Path, iarmem: Run) -> None:
    shard = path / "tiny/activation/c/0/1/0/0/1"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    assert store("verify", path).exit_code == 0
    done = iarmem("store", "verify", path, "--deep", "--json")
    assert done.returncode == 2
    (damage,) = json.loads(done.stdout)["damages"]
    assert "block 1, images 8-15" in damage
    assert "1 shards are missing or damaged" in done.stderr


def test_invalidate_leaves_a_store_to_resume(path: Path) -> None:
    done = store("invalidate", path, "--slab", 0, "--slab", 2)
    assert done.exit_code == 0
    assert ActivationStore.open(path).pending() == [0, 2]
    assert not path.with_name("x.zarr.tiny.lock").exists()


@pytest.mark.parametrize("kind", ["nc", "npz"])
def test_a_slice_is_written_with_its_coordinates(path: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"slice.{kind}"
    done = store("slice", path, "--block", 1, "--scale", 2, "--neuron", 17, "--out", out)
    assert done.exit_code == 0, done.stderr
    expected = activations(21, 20)[1, 2, 17]
    if kind == "nc":
        with xr.open_dataarray(out, engine="h5netcdf") as found:
            assert np.array_equal(expected, found.squeeze())
            assert found["image_path"].to_numpy()[0] == "n03/3.png"
    else:
        with np.load(out) as file:
            assert np.array_equal(expected, file["activation"].squeeze())
            assert file["image_path"][0] == "n03/3.png"
            assert list(file["image"][:2]) == [3, 4]
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--neuron", 20, "--out", "x.nc"), "there is no neuron 20; there are 0 to 19"),
        (("--out", "x.csv"), "neither .nc nor .npz"),
        (("--model", "other", "--out", "x.nc"), "there is no 'other'"),
    ],
)
def test_a_slice_that_cannot_be_is_refused(
    path: Path, arguments: tuple[object, ...], message: str
) -> None:
    done = store("slice", path, *arguments)
    assert isinstance(done.exception, IarmemError)
    assert message in str(done.exception)


def test_the_images_that_activate_a_neuron_most_become_a_sheet(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in pictures(21).paths:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / name)
    place = ("--block", 1, "--scale", 2, "--neuron", 17)
    out = tmp_path / "sheet.png"
    done = store("top", path, *place, "--images", folder, "--out", out, "--count", 7)
    assert done.exit_code == 0, done.stderr
    with Image.open(out) as picture:
        assert picture.width > picture.height > 100
        reds = (np.asarray(picture.convert("RGB")) == (255, 0, 0)).all(-1)
    assert reds.any()
    best = int(activations(21, 20)[1, 2, 17].argmax())
    (folder / pictures(21).paths[best]).unlink()
    done = store("top", path, *place, "--images", folder, "--out", out)
    assert isinstance(done.exception, IarmemError)
    assert f"has no picture '{pictures(21).paths[best]}'" in str(done.exception)


def test_a_sheet_is_drawn_from_the_list_of_a_capture(path: Path, tmp_path: Path) -> None:
    folder, listed = tmp_path / "pictures", tmp_path / "scores" / "images.txt"
    listed.parent.mkdir()
    listed.write_text("".join(f"{name}\t0\n" for name in pictures(21).paths))
    for name in pictures(21).paths:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 8)).save(folder / name)
    place = ("--block", 1, "--neuron", 17, "--images", listed, "--out", tmp_path / "sheet.png")
    done = store("top", path, *place, "--image-root", folder)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_invalidating_leaves_no_litter_and_needs_the_lock(path: Path) -> None:
    litter = path / f"zarr.{'0' * 32}.partial"
    litter.touch()
    assert store("invalidate", path, "--slab", 0).exit_code == 0
    assert not litter.exists()


def test_what_is_no_store_is_one_plain_line(tmp_path: Path, iarmem: Run) -> None:
    done = iarmem("store", "info", tmp_path)
    assert done.returncode == 2
    assert "is not an activation store" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("folder.nc", "is a folder"), ("file/x.nc", "is a file"), ("x.csv", "neither .nc nor .npz")],
)
def test_a_slice_that_cannot_be_written_is_refused_before_it_is_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(ActivationStore, "dataset", lambda *_: pytest.fail("it was read"))
    done = store("slice", path, "--out", tmp_path / name)
    assert isinstance(done.exception, IarmemError)
    assert message in str(done.exception)


def test_a_slice_of_an_unfinished_store_has_the_captured_images_alone(
    path: Path, tmp_path: Path
) -> None:
    ActivationStore.open(path, "r+").invalidate("tiny", 1)
    out = tmp_path / "new" / "x.nc"
    assert store("slice", path, "--block", 1, "--out", out).exit_code == 0
    with xr.open_dataarray(out, engine="h5netcdf") as part:
        assert part.sizes["image"] == 13
        assert np.isfinite(part).all()
    assert [file.name for file in out.parent.iterdir()] == ["x.nc"]


def test_invalidating_what_is_being_written_is_refused(path: Path) -> None:
    with WriteLock(path, "tiny"):
        done = store("invalidate", path, "--slab", 1)
    assert isinstance(done.exception, StoreLockedError)
    assert ActivationStore.open(path).pending() == []


def test_of_images_that_activate_a_neuron_equally_the_earlier_comes_first() -> None:
    activation = xr.DataArray([1.0, 3, 2, 3, 1], {"image": [7, 8, 9, 10, 11]}, ("image",))
    assert top_images(activation, 3)["image"].to_numpy().tolist() == [8, 10, 9]


@pytest.mark.parametrize("out", ["sheet.jpg", "folder.png"])
def test_a_sheet_that_cannot_be_written_is_refused(path: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "folder.png").mkdir()
    place = ("--block", 1, "--neuron", 17, "--images", tmp_path, "--out", tmp_path / out)
    assert isinstance(store("top", path, *place).exception, IarmemError)


def test_verify_reads_coordinates_and_says_which_is_damaged(path: Path) -> None:
    data = bytearray((path / "tiny/label/c/0").read_bytes())
    data[9] ^= 4
    (path / "tiny/label/c/0").write_bytes(data)
    done = store("verify", path)
    assert isinstance(done.exception, IarmemError)
    assert "'label' of tiny" in str(done.exception)


def test_a_damaged_shard_is_one_plain_line_also_where_a_part_of_it_is_read(
    tmp_path: Path, iarmem: Run
) -> None:
    fill(tmp_path / "x.zarr", count=300, slab=256, neurons=2000)
    shard = tmp_path / "x.zarr/tiny/activation/c/0/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    out = ("--out", tmp_path / "x.nc")
    done = iarmem(
        "store", "slice", tmp_path / "x.zarr", "--block", 1, "--scale", 0, "--neuron", 17, *out
    )
    assert done.returncode == 2
    assert "block 1, images 0-255 are damaged" in done.stderr
    assert len(done.stderr.splitlines()) == 1
