"""The store as xarray, plain zarr and a metric see it, and what it refuses."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from iarmem_metrics.unitmem import UnitMem
from iarmem_plugin.errors import (
    CorruptStoreError,
    IncompleteCaptureError,
    InputError,
    NonFiniteActivationError,
    NotAStoreError,
    StoreVersionError,
    UnknownModelError,
)
from iarmem_plugin.store.store import ActivationStore


def test_xarray_opens_it_without_this_package(path: Path, made: Any) -> None:
    _, scores = made.fill(path)
    with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
        part = tree["tiny"].activation.sel(
            model="tiny", block=1, scale=2, neuron=[5, 9], image=slice(3, 12)
        )
        assert np.array_equal(scores[:10, 1, 2][:, [5, 9]].T, part)


def test_a_plain_zarr_reader_sees_the_same_numbers(path: Path, made: Any) -> None:
    _, scores = made.fill(path)
    array = zarr.open_array(path / "tiny" / "activation", mode="r")
    assert np.array_equal(np.moveaxis(scores, 0, -1)[None], array[:])


def test_the_group_is_laid_out_as_documented(path: Path, made: Any) -> None:
    made.fill(path)
    with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
        data = tree["tiny"].to_dataset()
        assert tree.attrs == {"format": "iarmem-activations", "format_version": 1}
    kinds = {name: (array.dims, array.dtype.kind) for name, array in data.variables.items()}
    assert kinds == {
        "activation": (("model", "block", "scale", "neuron", "image"), "f"),
        "captured": (("image",), "b"),
        "model": (("model",), "T"),
        "block": (("block",), "i"),
        "scale": (("scale",), "i"),
        "scale_name": (("scale",), "T"),
        "scale_size": (("scale",), "i"),
        "neuron": (("neuron",), "i"),
        "image": (("image",), "i"),
        "image_path": (("image",), "T"),
        "label": (("image",), "i"),
    }
    assert set(data.data_vars) == {"activation"}
    assert list(data["scale_size"].to_numpy()) == [1, 3, 5]
    assert list(data["image"].to_numpy()[:2]) == [3, 4]
    assert data["image_path"].to_numpy()[0] == "n03/3.png"
    assert data.attrs["layout_ready"] is True
    assert data.attrs["reduction"] == "mean of absolute value over the tokens of a scale"
    assert data["activation"].attrs["cell_methods"] == "token: mean (absolute value)"


@pytest.mark.parametrize(
    ("neurons", "slab", "chunk", "shard"),
    [
        (1408, 256, (512, 128), (1536, 256)),
        (20, 8, (20, 8), (20, 8)),
        (512, 128, (512, 128), (512, 128)),
    ],
)
def test_chunks_and_shards_follow_the_formula(
    path: Path, neurons: int, slab: int, chunk: tuple[int, int], shard: tuple[int, int], made: Any
) -> None:
    made.create(path, 3, "m", neurons=neurons, slab=slab)
    array = zarr.open_array(path / "m" / "activation", mode="r")
    assert array.chunks == (1, 1, 1, *chunk)
    assert array.shards == (1, 1, made.SCALES, *shard)
    assert np.isnan(array.fill_value)
    codecs = json.loads((path / "m/activation/zarr.json").read_text())["codecs"][0]
    inner = codecs["configuration"]["codecs"]
    assert [codec["name"] for codec in inner] == ["bytes", "blosc", "crc32c"]
    assert inner[1]["configuration"]["shuffle"] == "bitshuffle"


@pytest.mark.parametrize(("count", "slab"), [(21, 8), (16, 8), (5, 8), (1, 8)])
def test_there_is_one_file_for_each_block_of_each_slab(
    path: Path, count: int, slab: int, made: Any
) -> None:
    made.fill(path, count, slab)
    shards = [f for f in (path / "tiny/activation/c").rglob("*") if f.is_file()]
    assert len(shards) == made.BLOCKS * -(-count // slab)


@pytest.mark.parametrize("size", [1, 5, 8, 21])
def test_batches_of_any_size_fill_the_same_store(
    path: Path, size: int, tmp_path: Path, made: Any
) -> None:
    made.fill(path, size=size)
    made.fill(tmp_path / "y.zarr", size=3)
    assert made.contents(path) == made.contents(tmp_path / "y.zarr")


def test_images_of_a_batch_may_come_in_any_order(path: Path, made: Any) -> None:
    images, scores, store = made.images(21), made.scores(21), made.create(path, 21)
    (batch,) = made.batches(scores, images, 21)
    shuffled = np.random.default_rng(0).permutation(21)
    with store.writing("tiny") as writer:
        for part in (shuffled[:10], shuffled[10:]):
            writer.write(batch.isel(image=part))
    assert np.array_equal(store.activation, made.as_slab(scores))


def test_opening_reads_no_activation(path: Path, made: Any) -> None:
    store, _ = made.fill(path)
    activation = store.dataset().activation
    assert activation.shape == (1, made.BLOCKS, made.SCALES, made.NEURONS, 21)
    one = activation.sel(block=1, scale=0, neuron=3)
    shutil.rmtree(path / "tiny/activation/c")
    assert one.sizes["image"] == 21
    with pytest.raises(CorruptStoreError, match=r"block 1, images 0-7 .* data are missing"):
        one.load()


def test_a_metric_gives_the_same_from_the_store_as_from_capture(path: Path, made: Any) -> None:
    store, scores = made.fill(path)
    streamed, stored = UnitMem(), UnitMem()
    for batch in made.batches(scores, made.images(21), 5):
        streamed.update(batch)
    for batch in store.batches():
        assert batch.dims == ("block", "scale", "neuron", "image")
        stored.update(batch)
    one, other = streamed.compute(), stored.compute().drop_vars("scale_name")
    assert one.identical(other)  # bit by bit: sums run in the order of the images


def test_neurons_that_are_never_active_come_back_as_zero(path: Path, made: Any) -> None:
    store = made.create(path, 4, "m", slab=4)
    store.put("m", 0, np.zeros((1, made.BLOCKS, made.SCALES, made.NEURONS, 4), np.float32))
    assert (store.activation == 0).all()


def test_two_models_of_different_width_share_a_store(path: Path, made: Any) -> None:
    made.fill(path)
    store = made.create(path, 4, "Wide Model", neurons=33)
    assert store.models == ("tiny", "wide-model")
    assert store.dataset("Wide Model", partial="keep").sizes["neuron"] == 33
    with pytest.raises(UnknownModelError, match=r"no model was named .* tiny, wide-model"):
        store.dataset()
    with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
        assert set(tree.children) == {"tiny", "wide-model"}


def test_images_that_are_not_captured_are_not_handed_out(path: Path, made: Any) -> None:
    scores, store = made.scores(21), made.create(path, 21, "m")
    store.put("m", 1, made.as_slab(scores[8:16]))
    with pytest.raises(IncompleteCaptureError, match=r"8 of 21 images .* \(1 of 3 slabs\)"):
        store.dataset()
    dropped = store.dataset(partial="drop").activation
    assert np.array_equal(np.moveaxis(scores[8:16], 0, -1), dropped[0])
    assert list(dropped["image"].to_numpy()) == list(range(11, 19))
    assert np.isnan(store.dataset(partial="keep").activation).sum() == 13 * scores[0].size
    assert list(np.flatnonzero(store.captured())) == list(range(8, 16))


def test_a_capture_that_ends_early_is_reported(path: Path, made: Any) -> None:
    images, scores, store = made.images(21), made.scores(21), made.create(path, 21, "m")
    with (
        pytest.raises(IncompleteCaptureError, match="6 images of 1 slabs were not captured"),
        store.writing("m") as writer,
    ):
        writer.write(made.batches(scores, images, 10)[0])
    assert store.captured().sum() == 8


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a.astype("f8"), InputError, "slab of float64"),
        (lambda a: a[..., :-1], InputError, "expected float32"),
        (lambda a: a[:, :, :, :-1], InputError, "expected float32"),
        (lambda a: a * np.float32("nan"), NonFiniteActivationError, "block 0, scale 0"),
        (lambda a: a + np.float32("inf"), NonFiniteActivationError, "image number 0 is inf"),
    ],
)
def test_a_slab_that_does_not_fit_is_refused_before_a_byte_is_written(
    path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    error: type[Exception],
    message: str,
    made: Any,
) -> None:
    store, _ = made.fill(path)
    before = made.contents(path)
    with pytest.raises(error, match=message):
        store.put(
            "tiny", 0, change(np.ones((1, made.BLOCKS, made.SCALES, made.NEURONS, 8), np.float32))
        )
    assert before == made.contents(path)


def test_a_batch_that_does_not_fit_is_refused(path: Path, made: Any) -> None:
    store = made.create(path, 21, "m")
    batch = made.batches(made.scores(21), made.images(21), 4)[0]
    writer = store.writing("m")
    writer.write(batch)
    with pytest.raises(InputError, match="given twice"):
        writer.write(batch)
    with pytest.raises(InputError, match="image 99 is not one of the store's images"):
        writer.write(batch[..., :1].assign_coords(image=[99]))
    with pytest.raises(InputError, match="float64 with"):
        writer.write(batch.astype("f8"))


def test_a_store_opened_to_read_is_not_written(path: Path, made: Any) -> None:
    made.fill(path)
    with pytest.raises(InputError, match="opened to read"):
        ActivationStore.open(path).writing("tiny")
    with pytest.raises(InputError, match="there are slabs 0 to 2"):
        ActivationStore.open(path, "r+").put("tiny", 3, np.zeros((1, 1, 1, 1, 1), np.float32))


# --- what is no store, or a damaged one


def test_an_absent_path_lists_similar_names(path: Path, made: Any) -> None:
    made.fill(path)
    with pytest.raises(FileNotFoundError, match=r"near it: x.zarr"):
        ActivationStore.open(path.with_name("y.zarr"))


def test_something_else_is_not_a_store(path: Path, tmp_path: Path, made: Any) -> None:
    with pytest.raises(NotAStoreError, match=r"no zarr.json.* folder with 0 entries"):
        ActivationStore.open(tmp_path)
    (tmp_path / "file").write_text("abc")
    with pytest.raises(NotAStoreError, match="a file of 3 bytes"):
        ActivationStore.open(tmp_path / "file")
    with pytest.raises(NotAStoreError, match="folder with 1 entries"):
        made.create(tmp_path, 3, "m")
    zarr.open_group(path, mode="w")
    with pytest.raises(NotAStoreError, match="zarr v3 group without attribute"):
        ActivationStore.open(path)


def test_a_store_without_its_root_names_its_models(path: Path, made: Any) -> None:
    made.fill(path)
    (path / "zarr.json").unlink()
    with pytest.raises(NotAStoreError, match="holds the model groups tiny"):
        ActivationStore.open(path)


def test_a_newer_format_is_refused(path: Path, made: Any) -> None:
    made.fill(path)
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(StoreVersionError, match="format_version 2, this release reads 1"):
        ActivationStore.open(path)


def test_an_unknown_model_is_named_with_those_there_are(path: Path, made: Any) -> None:
    store, _ = made.fill(path)
    with pytest.raises(UnknownModelError, match=r"there is no 'other' in .*; it holds tiny"):
        store.dataset("other")


def test_a_model_is_not_captured_over(path: Path, made: Any) -> None:
    made.fill(path)
    before = made.contents(path)
    with pytest.raises(InputError, match="holds activations of 'tiny' already"):
        made.create(path, 3)
    assert before == made.contents(path)


@pytest.mark.parametrize("name", ["augmentation", "provenance"])
@pytest.mark.parametrize("value", [np.float32(1), float("nan")])
def test_a_setting_that_is_not_json_is_refused(
    path: Path, name: str, value: float, made: Any
) -> None:
    with pytest.raises(InputError, match="not a JSON value"):
        made.create(path, 3, "m", **{name: {"x": value}})
    assert not path.exists()


def test_the_fingerprint_tells_captures_apart(path: Path, tmp_path: Path, made: Any) -> None:
    def fingerprint(name: str, seed: int, created: str) -> str:
        about = {"created_utc": created}
        store = made.create(tmp_path / name, 3, "m", seed=seed, provenance=about)
        return str(store.dataset(partial="keep").attrs["capture_fingerprint"])

    assert fingerprint("a", 0, "today") == fingerprint("b", 0, "tomorrow")
    assert fingerprint("c", 1, "today") != fingerprint("d", 0, "today")


def shard(path: Path) -> Path:
    return path / "tiny/activation/c/0/1/0/0/1"


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_missing_shard_is_found(path: Path, damage: Callable[[Path], object], made: Any) -> None:
    store, _ = made.fill(path)
    damage(shard(path))
    with pytest.raises(CorruptStoreError, match="block 1, images 8-15"):
        list(store.batches())


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [flip, lambda file: file.write_bytes(file.read_bytes()[:-9])])
def test_a_damaged_shard_is_found_on_reading(
    path: Path, damage: Callable[[Path], object], made: Any
) -> None:
    store, _ = made.fill(path)
    damage(shard(path))
    with pytest.raises(CorruptStoreError, match="block 1, images 8-15 are damaged"):
        list(store.batches())


def test_lost_or_cut_metadata_are_named(path: Path, made: Any) -> None:
    store, _ = made.fill(path)
    file = path / "tiny/label/zarr.json"
    file.write_text(file.read_text()[:50])
    with pytest.raises(CorruptStoreError, match=r"label/zarr.json is not JSON: .*char 50"):
        store.dataset()
    file.unlink()
    with pytest.raises(CorruptStoreError, match="has no 'label'"):
        store.dataset()


def unfinished(path: Path) -> None:
    file = path / "tiny/zarr.json"
    file.write_text(file.read_text().replace('"layout_ready": true', '"layout_ready": false'))


def test_a_group_whose_creation_was_cut_short_counts_as_absent(path: Path, made: Any) -> None:
    made.create(path, 3)
    unfinished(path)
    assert ActivationStore.open(path).models == ()
    fill_again, _ = made.fill(path)
    assert fill_again.models == ("tiny",)


@pytest.mark.parametrize("damage", [unfinished, lambda path: shutil.rmtree(path / "tiny/captured")])
def test_what_is_captured_is_never_laid_out_anew(
    path: Path, damage: Callable[[Path], object], made: Any
) -> None:
    made.fill(path)
    damage(path)
    before = made.contents(path)
    with pytest.raises(InputError, match="holds activations of 'tiny' already"):
        made.fill(path)
    with pytest.raises(CorruptStoreError, match="tiny"):
        ActivationStore.open(path).dataset()
    assert before == made.contents(path)


def test_a_store_whose_first_file_was_half_written_is_begun_anew(path: Path, made: Any) -> None:
    path.mkdir()
    (path / "zarr.json.0123.partial").write_text("{")
    made.fill(path)
    assert ActivationStore.open(path).models == ("tiny",)


def test_consolidated_metadata_are_neither_refused_nor_read(path: Path, made: Any) -> None:
    store, _ = made.fill(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's about consolidation, on which this does not rely
        zarr.consolidate_metadata(path)
        zarr.consolidate_metadata(path, path="tiny")
    before = store.score("unitmem")
    file = path / "tiny/zarr.json"
    consolidated = json.loads(file.read_text())
    consolidated["consolidated_metadata"]["metadata"]["activation"]["shape"] = [1, 1, 1, 1, 1]
    file.write_text(json.dumps(consolidated))
    assert ActivationStore.open(path).score("unitmem").identical(before)
