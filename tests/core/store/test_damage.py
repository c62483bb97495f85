"""Every way a store can be wrong, and the error that names it; never a number."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from iarmem_plugin import errors
from iarmem_plugin.errors import (
    CorruptStoreError,
    IarmemError,
    NotAStoreError,
    StoreError,
    StoreNotFoundError,
)
from iarmem_plugin.store.format import ARRAYS
from iarmem_plugin.store.integrity import digests
from iarmem_plugin.store.store import ActivationStore

Damage = Callable[[Path], object]


@pytest.fixture
def path(tmp_path: Path, made: Any) -> Path:
    made.fill(tmp_path / "x.zarr")
    return tmp_path / "x.zarr"


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(bytes(data))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


READS: dict[str, Callable[[ActivationStore], object]] = {
    "a metric": lambda store: store.score("unitmem"),
    "batches": lambda store: list(store.batches()),
    "a lazy slice": lambda store: store.activation.sel(block=1, scale=0, neuron=3).load(),
    "a reduction": lambda store: store.activation.max("image").load(),
    "deep verification": lambda store: store.verify(deep=True),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("damage", [Path.unlink, empty, flip, cut])
def test_a_damaged_shard_is_an_error_however_it_is_read(
    path: Path, damage: Damage, read: Callable[[ActivationStore], object]
) -> None:
    damage(path / "tiny/activation/c/0/1/0/0/1")
    with pytest.raises(CorruptStoreError, match=r"block 1, images 8-15 are .* slab 1 of 'tiny'"):
        read(ActivationStore.open(path))


def test_what_is_not_asked_for_is_not_looked_at(path: Path) -> None:
    flip(path / "tiny/activation/c/0/1/0/0/1")
    store = ActivationStore.open(path)
    assert store.activation.sel(block=0).max() > 0
    assert store.activation.isel(block=1, image=slice(0, 8)).max() > 0


def test_a_shard_that_vanishes_after_opening_is_an_error(path: Path) -> None:
    activation = ActivationStore.open(path).activation
    (path / "tiny/activation/c/0/1/0/0/1").unlink()
    with pytest.raises(CorruptStoreError, match="their data are missing"):
        activation.isel(image=[20, 9, 0]).load()


def test_all_that_is_damaged_is_listed(path: Path) -> None:
    (path / "tiny/activation/c/0/1/0/0/1").unlink()
    flip(path / "tiny/activation/c/0/0/0/0/2")
    group = ActivationStore.open(path)["tiny"]
    assert [(d.slab, d.block, d.images) for d in group.damages(deep=False)] == [(1, 1, (8, 15))]
    deep = [(d.slab, d.block, d.images) for d in group.damages(deep=True)]
    assert deep == [(1, 1, (8, 15)), (2, 0, (16, 20))]


def test_an_invalidated_slab_is_captured_again(path: Path) -> None:
    flip(path / "tiny/activation/c/0/1/0/0/1")
    store = ActivationStore.open(path, "r+")
    store.invalidate("tiny", 1)
    store.verify(deep=True)
    assert store.pending() == [1]
    assert store.dataset(partial="drop").sizes["image"] == 13
    assert not (path / "tiny/activation/c/0/0/0/0/1").exists()
    with pytest.raises(errors.InputError, match="there are slabs 0 to 2"):
        store.invalidate("tiny", 3)
    with pytest.raises(errors.InputError, match="opened to read"):
        ActivationStore.open(path).invalidate("tiny", 0)


# --- metadata


def test_a_group_without_its_metadata_is_named(path: Path) -> None:
    (path / "tiny/zarr.json").unlink()
    store = ActivationStore.open(path)
    with pytest.raises(CorruptStoreError, match=r"tiny in .* has lost its zarr.json"):
        store.dataset("tiny")


@pytest.mark.parametrize("array", ["activation", "captured", "image", "scale_size"])
def test_an_array_without_its_metadata_is_named(path: Path, array: str) -> None:
    (path / "tiny" / array / "zarr.json").unlink()
    with pytest.raises(CorruptStoreError, match=f"has no '{array}'"):
        ActivationStore.open(path).dataset()


@pytest.mark.parametrize("node", ["", "tiny/", "tiny/activation/"])
def test_metadata_that_are_cut_are_named_with_the_place_of_the_cut(path: Path, node: str) -> None:
    file = path / f"{node}zarr.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(CorruptStoreError, match=rf"{node}zarr.json is not JSON: .*char \d+"):
        ActivationStore.open(path).dataset("tiny")


def test_empty_metadata_are_named(path: Path) -> None:
    empty(path / "tiny/label/zarr.json")
    with pytest.raises(CorruptStoreError, match=r"tiny/label/zarr.json is not JSON"):
        ActivationStore.open(path).dataset()


def change(file: Path, update: Callable[[dict[str, Any]], object]) -> None:
    metadata = json.loads(file.read_text())
    update(metadata)
    file.write_text(json.dumps(metadata))


@pytest.mark.parametrize("change_to", [{"data_type": "bfloat16"}, {"codecs": [{"name": "new"}]}])
def test_an_unknown_dtype_or_codec_is_named_with_its_model(
    path: Path, change_to: dict[str, object]
) -> None:
    """As a later release might write them, with digests that fit."""
    change(path / "tiny/activation/zarr.json", lambda metadata: metadata.update(change_to))
    opened = ActivationStore.open(path)
    fitting = digests(opened._objects, "tiny")
    change(path / "tiny/zarr.json", lambda metadata: metadata["attributes"].update(fitting))
    with pytest.raises(CorruptStoreError, match=r"tiny in .* cannot be opened: .*(bfloat16|new)"):
        opened.dataset()


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a coordinate's length": ("label/", lambda metadata: metadata.update(shape=[20])),
    "dimensions": ("label/", lambda metadata: metadata.update(dimension_names=["imag"])),
    "no dimensions": ("activation/", lambda metadata: metadata.pop("dimension_names")),
    "an added attribute": ("label/", lambda metadata: metadata["attributes"].update(units="1")),
    "the slab": ("", lambda metadata: metadata["attributes"].update(slab=9)),
    "no slab": ("", lambda metadata: metadata["attributes"].pop("slab")),
    "no attributes' digest": ("", lambda m: m["attributes"].pop("attributes_sha256")),
    "no arrays' digests": ("", lambda m: m["attributes"].pop("metadata_sha256")),
}


@pytest.mark.parametrize(("node", "update"), CHANGES.values(), ids=CHANGES)
def test_changed_metadata_are_refused_by_the_name_of_their_file(
    path: Path, node: str, update: Callable[[dict[str, Any]], object]
) -> None:
    change(path / f"tiny/{node}zarr.json", update)
    with pytest.raises(CorruptStoreError, match=rf"^tiny/{node}zarr.json in .* not as it was wri"):
        ActivationStore.open(path).dataset()


def test_metadata_that_are_a_list_are_named(path: Path) -> None:
    (path / "tiny/label/zarr.json").write_text("[]")
    with pytest.raises(CorruptStoreError, match=r"tiny/label/zarr.json is not a JSON object"):
        ActivationStore.open(path).dataset()


def test_a_foreign_group_is_refused(path: Path) -> None:
    group = zarr.open_group(path / "other", mode="w", attributes={"layout_ready": True})
    for name in ARRAYS:
        group.create_array(name, shape=(3,), dtype="f4")
    with pytest.raises(NotAStoreError, match="this release of iarmem did not write it"):
        ActivationStore.open(path).dataset("other")


def test_an_older_zarr_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    with pytest.raises(NotAStoreError, match=r"no zarr.json.* folder with"):
        ActivationStore.open(tmp_path / "old.zarr")


def test_an_array_alone_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(3,), dtype="f4")
    with pytest.raises(NotAStoreError, match="zarr v3 array without attribute"):
        ActivationStore.open(tmp_path / "a.zarr")


def test_nothing_at_a_url_is_not_found() -> None:
    with pytest.raises(StoreNotFoundError, match="does not exist"):
        ActivationStore.open("memory://iarmem-nothing/x.zarr")


def test_a_store_that_lost_its_folder_of_data_is_damaged(path: Path) -> None:
    shutil.rmtree(path / "tiny/activation/c")
    with pytest.raises(CorruptStoreError, match="block 0, images 0-7"):
        ActivationStore.open(path).dataset()


def test_every_error_is_ours_and_a_builtin() -> None:
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, StoreError)]
    for error in found:
        assert issubclass(error, IarmemError)
        builtins = [b for b in error.__mro__ if b.__module__ == "builtins"]
        assert error is StoreError or builtins[0] is not Exception


# --- the small arrays: coordinates, and the markers of what is captured

SMALL = ("scale_name", "neuron", "image_path", "label")


@pytest.mark.parametrize("damage", [Path.unlink, empty, cut])
@pytest.mark.parametrize("array", SMALL)
def test_a_coordinate_whose_values_are_lost_or_cut_is_named(
    path: Path, array: str, damage: Damage
) -> None:
    damage(path / "tiny" / array / "c/0")
    store = ActivationStore.open(path)
    with pytest.raises(CorruptStoreError, match="tiny"):
        store.dataset()
    with pytest.raises(CorruptStoreError, match=f"{array!r} of .*tiny"):
        store.verify(deep=True)


@pytest.mark.parametrize("place", [1, 9, -1])
@pytest.mark.parametrize("array", SMALL)
def test_a_flipped_bit_in_a_coordinate_is_no_number(path: Path, array: str, place: int) -> None:
    file = path / "tiny" / array / "c/0"
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptStoreError, match=r"tiny in .* cannot be read"):
        ActivationStore.open(path).dataset()


def test_coordinates_that_are_all_zero_are_there(tmp_path: Path, made: Any) -> None:
    path, tiny = tmp_path / "zero.zarr", {"neurons": 1, "scales": 1, "blocks": 1}
    store = made.create(path, 1, "m", slab=1, **tiny)
    store.put("m", 0, made.as_slab(made.scores(1, made.layout(**tiny))))
    store.verify(deep=True)
    (path / "m/neuron/c/0").unlink()
    with pytest.raises(CorruptStoreError, match="the values of 'neuron' of m"):
        ActivationStore.open(path).dataset()


@pytest.mark.parametrize("damage", [empty, cut, lambda file: file.write_bytes(b"\0" * 40)])
def test_a_damaged_marker_is_named_and_its_slab_can_be_captured_again(
    path: Path, damage: Damage
) -> None:
    damage(path / "tiny/captured/c/2")
    store = ActivationStore.open(path, "r+")
    with pytest.raises(CorruptStoreError, match="the marker of slab 2 of 'tiny'; invalidate it"):
        store.pending()
    store.invalidate("tiny", 2)
    assert store.pending() == [2]


# --- any bit of any file


def outcome(path: Path, sound: xr.Dataset) -> str:
    """Say what a reader of the store gets: a named error, or the sound store's numbers."""
    try:
        data = ActivationStore.open(path).dataset("tiny").load()
    except IarmemError as error:
        return type(error).__name__
    return "the same" if data.identical(sound) else "something else"


def flipped_outcomes(path: Path, file: Path, bits: Iterable[int]) -> Counter[str]:
    """Flip each of the bits in turn, and count what a reader gets."""
    sound = ActivationStore.open(path).dataset("tiny").load()
    intact, counts = file.read_bytes(), Counter[str]()
    for bit in bits:
        data = bytearray(intact)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        counts[outcome(path, sound)] += 1
    file.write_bytes(intact)
    assert outcome(path, sound) == "the same"
    return counts


NODES = ("", "tiny/", *(f"tiny/{array}/" for array in ARRAYS))


SHARDS = [f"tiny/activation/c/0/{block}/0/0/{slab}" for block in range(2) for slab in range(3)]
MARKERS = [f"tiny/captured/c/{slab}" for slab in range(3)]
VALUES = [f"tiny/{array}/c/0" for array in ARRAYS if array not in ("activation", "captured")]


@pytest.mark.parametrize("name", [f"{node}zarr.json" for node in NODES])
def test_a_flipped_bit_in_metadata_is_a_named_error(path: Path, name: str) -> None:
    bits = np.random.default_rng(0).integers(0, 8 * (path / name).stat().st_size, 12).tolist()
    assert all(what.endswith("Error") for what in flipped_outcomes(path, path / name, bits))


@pytest.mark.parametrize("name", [*SHARDS, *MARKERS, *VALUES])
def test_a_flipped_bit_in_data_is_a_named_error(path: Path, name: str) -> None:
    bits = np.random.default_rng(0).integers(0, 8 * (path / name).stat().st_size, 12).tolist()
    assert flipped_outcomes(path, path / name, bits) == {"CorruptStoreError": 12}


def test_every_file_of_a_store_is_among_those_whose_bits_are_flipped(path: Path, made: Any) -> None:
    assert set(made.contents(path)) == {
        *(f"{node}zarr.json" for node in NODES),
        *(SHARDS + MARKERS + VALUES),
    }


@pytest.mark.slow
@pytest.mark.parametrize("node", NODES)
def test_every_flipped_bit_in_metadata_is_a_named_error(
    path: Path, node: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = path / f"{node}zarr.json"
    counts = flipped_outcomes(path, file, range(8 * file.stat().st_size))
    with capsys.disabled():
        print(f"\n{node}zarr.json: {dict(counts)}")
    assert all(what.endswith("Error") for what in counts)
