"""What a capture promises when it is killed, refused, broken into, or asked for nonsense."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from jaxtyping import TypeCheckError

from iarmem_plugin.errors import (
    CorruptStoreError,
    DiskFullError,
    FingerprintMismatchError,
    InputError,
    LockError,
    NonFiniteActivationError,
    StoreLockedError,
)
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.interfaces.mlp import Site
from iarmem_plugin.store import store as store_module
from iarmem_plugin.store.lock import WriteLock
from iarmem_plugin.store.places import FolderObjects
from iarmem_plugin.store.store import ActivationStore


@pytest.fixture
def begun(path: Path, begin: Any) -> ActivationStore:
    with begin(path) as store:
        return store


# --- what is on disk


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[tuple[Path, bool]]:
    """Every path that is flushed, and whether slab 0 was marked by then."""
    found: list[tuple[Path, bool]] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        file = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        found.append((file, (path / "tiny/captured/c/0").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return found


def test_a_slab_and_its_folders_are_on_disk_before_it_is_marked(
    begun: ActivationStore, path: Path, flushed: list[tuple[Path, bool]], made: Any, slab: Any
) -> None:
    begun.put("tiny", 0, slab(0))
    before = {file for file, marked in flushed if not marked}
    shards = [path / f"tiny/activation/c/0/{block}/0/0/0" for block in range(made.BLOCKS)]
    assert begun.pending() == [1, 2]
    for shard in shards:
        assert {shard, *(up for up in shard.parents if up.is_relative_to(path))} <= before


def test_metadata_and_coordinates_are_on_disk_before_a_capture_begins(
    path: Path, flushed: list[tuple[Path, bool]], begin: Any
) -> None:
    with begin(path):
        pass
    assert {*path.rglob("*"), path, path.parent} <= {file for file, _ in flushed}


def test_a_slab_that_is_written_again_and_fails_is_not_marked(
    begun: ActivationStore, monkeypatch: pytest.MonkeyPatch, slab: Any
) -> None:
    begun.put("tiny", 0, slab(0))
    write, written = FolderObjects.put, []

    def full(self: Any, key: str, data: np.ndarray) -> None:
        written.append(key)
        if len(written) == 2:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write(self, key, data)

    monkeypatch.setattr(FolderObjects, "put", full)
    with pytest.raises(DiskFullError, match=r"slab 0 of 'tiny' needs about .* is not marked"):
        begun.put("tiny", 0, slab(1))
    assert begun.pending() == [0, 1, 2]


def test_minus_infinity_is_refused(begun: ActivationStore, slab: Any) -> None:
    with pytest.raises(NonFiniteActivationError, match="image number 0 is -inf"):
        begun.put("tiny", 0, slab(0) - np.float32("inf"))


def test_a_layout_that_was_cut_short_is_no_model(
    path: Path, monkeypatch: pytest.MonkeyPatch, begin: Any
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "create_coordinates", killed)
        with pytest.raises(KeyboardInterrupt), begin(path):
            pass
    assert ActivationStore.open(path).models == ()
    with begin(path) as store:
        assert store.models == ("tiny",)


def test_a_model_that_another_process_begins_at_the_same_time_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch, made: Any
) -> None:
    made.fill(path)
    monkeypatch.setattr(FolderObjects, "is_empty", lambda _: True)  # seen before
    made.create(path, 3, "other")
    store = ActivationStore.open(path)
    assert store.models == ("other", "tiny")
    store.verify("tiny", deep=True)


# --- one model's part of a store


def test_metadata_are_read_when_a_model_is_first_asked_for_and_not_at_every_slab(
    begun: ActivationStore, slab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = FolderObjects.get, []

    def noting(self: FolderObjects, key: str) -> bytes | None:
        asked.append(key)
        return read(self, key)

    monkeypatch.setattr(FolderObjects, "get", noting)
    begun.put("tiny", 0, slab(0))
    assert "tiny/label/zarr.json" in asked
    asked.clear()
    begun.put("tiny", 1, slab(1))
    assert begun["tiny"].pending() == begun.pending("tiny") == [2]
    assert asked == []
    begun.verify("tiny")
    assert "tiny/label/zarr.json" in asked


def test_a_model_of_a_store_that_was_opened_to_read_is_not_written(
    begun: ActivationStore, slab: Any
) -> None:
    group = ActivationStore.open(begun.name)["tiny"]
    for write in (group.writing, lambda: group.put(0, slab(0)), lambda: group.invalidate(0)):
        with pytest.raises(InputError, match="was opened to read"):
            write()


# --- resuming


def test_a_lost_shard_is_named_before_a_capture_goes_on(
    begun: ActivationStore, path: Path, begin: Any, slab: Any
) -> None:
    begun.put("tiny", 0, slab(0))
    (path / "tiny/activation/c/0/1/0/0/0").unlink()
    with pytest.raises(CorruptStoreError, match="block 1, images 0-7"), begin(path):
        pass


SETTINGS: dict[str, tuple[Any, Any]] = {
    **dict.fromkeys(("checkpoint_sha256", "adapter_version", "tokenizer_sha256"), ("a", "b")),
    "dtype": ("float32", "bfloat16"),
    "augmentation": ({"crop": 256}, {"crop": 224}),
    **dict.fromkeys(("views", "seed", "batch_size", "torch_threads"), (1, 2)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_another_setting_of_the_capture_is_refused(path: Path, name: str, begin: Any) -> None:
    stored, given = SETTINGS[name]
    with begin(path, **{name: stored}):
        pass
    message = f"{name}: {json.dumps(stored)} in the store, {json.dumps(given)} given"
    with pytest.raises(FingerprintMismatchError, match=re.escape(message)):
        with begin(path, **{name: given}):
            pass


def read_at(layout: ModelLayout, path: str) -> ModelLayout:
    return replace(layout, mlp=replace(layout.mlp, neuron=Site(path)))


@pytest.mark.parametrize(
    ("name", "first", "second", "changed"),
    [
        ("adapter", "a", "b", lambda layout, name: replace(layout, family=name)),
        ("hook_point", "{block}.a", "{block}.b", read_at),
    ],
)
def test_another_model_is_refused(
    path: Path, name: str, first: str, second: str, changed: Any, made: Any, begin: Any
) -> None:
    with begin(path, layout=changed(made.layout(), first)):
        pass
    message = f'{name}: "{first}" in the store, "{second}" given'
    with pytest.raises(FingerprintMismatchError, match=message):
        with begin(path, layout=changed(made.layout(), second)):
            pass


def test_other_tokens_of_a_scale_or_other_ids_are_refused(
    path: Path, made: Any, begin: Any
) -> None:
    with begin(path):
        pass
    layout = made.layout()
    last = replace(layout.scales[-1], tokens=(4, 5, 6, 8))
    with pytest.raises(FingerprintMismatchError, match="scales: "):
        with begin(path, layout=replace(layout, scales=(*layout.scales[:-1], last))):
            pass
    images = made.images(21)
    with pytest.raises(FingerprintMismatchError, match="image_ids_sha256"):
        with begin(path, images=replace(images, ids=images.ids + 1)):
            pass


@pytest.mark.parametrize(("done", "fits"), [(0, False), (2, True)])
def test_room_is_asked_for_what_is_pending_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, done: int, fits: bool, begin: Any, slab: Any
) -> None:
    with begin(path) as store:
        for number in range(done):
            store.put("tiny", number, slab(number))
    usage = shutil.disk_usage(path)._replace(free=slab(0).nbytes)  # the last slab has 5 images
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    if fits:
        with begin(path) as store:
            assert store.pending() == [2]
        return
    with pytest.raises(DiskFullError, match="make room"), begin(path):
        pass


# --- the lock


def test_a_refused_writer_sweeps_nothing_up(path: Path, begin: Any) -> None:
    with begin(path):
        half = path / "tiny/activation/c/0/0/0/0/0.0123.partial"
        half.parent.mkdir(parents=True)
        half.touch()
        with pytest.raises(StoreLockedError), begin(path):
            pass
        with begin(path, lock="wait"):
            assert half.exists()


def test_a_store_is_locked_by_whatever_name_it_is_reached(
    path: Path, tmp_path: Path, begin: Any
) -> None:
    (tmp_path / "link.zarr").symlink_to(path)
    with begin(path):
        for place in (tmp_path / "link.zarr", f"file://{path}"):
            with pytest.raises(StoreLockedError, match="another capture is writing"), begin(place):
                pass


def test_a_writer_whose_lock_was_broken_leaves_that_of_its_successor(path: Path) -> None:
    first = WriteLock(path, "tiny")
    with first:
        first.file.unlink()
        with WriteLock(path, "tiny") as second:
            first.__exit__(None, None, None)
            assert second.file.exists()


def test_of_two_that_break_a_lock_one_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = (WriteLock(path, "tiny", break_stale=True) for _ in range(2))
    slow.file.write_text("")  # of a process that was killed
    read = slow._read

    def late() -> str:
        text = read()
        quick.__enter__()
        return text

    with monkeypatch.context() as patch:
        patch.setattr(slow, "_read", late)
        with pytest.raises(StoreLockedError, match="just now"):
            slow.__enter__()
    assert quick._read() == quick._written
    quick.__exit__(None, None, None)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, DiskFullError), (errno.EROFS, LockError)]
)
def test_a_lock_that_cannot_be_written_is_one_plain_error_and_none(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdopen", fail)
    with pytest.raises(error, match=r"the lock .*tiny.lock cannot be written"):
        WriteLock(path, "tiny").__enter__()
    assert list(path.parent.iterdir()) == []


# --- nonsense

REFUSED = (InputError, TypeCheckError)  # the gate's shape checks come first


@pytest.mark.parametrize("mode", ["w", "a", "w-"])
def test_a_mode_that_could_delete_is_refused(path: Path, mode: Any, made: Any) -> None:
    made.fill(path)
    before = made.contents(path)
    with pytest.raises(REFUSED, match=f"'{mode}'"):
        ActivationStore.open(path, mode=mode)
    assert before == made.contents(path)


NONSENSE: dict[str, tuple[Callable[[ActivationStore], object], str]] = {
    "partial": (lambda s: s.dataset(partial="Drop"), "'Drop'"),
    "partial of batches": (lambda s: list(s.batches(partial="keep")), "'keep'"),
    "block": (lambda s: list(s.batches(block=2)), "no block 2; there are 0 to 1"),
    "negative block": (lambda s: list(s.batches(block=-1)), "no block -1"),
    "no models": (lambda s: s.stack([]), "no model was given"),
}


@pytest.mark.parametrize(("call", "message"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused(
    path: Path, call: Callable[[ActivationStore], object], message: str, made: Any
) -> None:
    store, _ = made.fill(path)
    with pytest.raises(REFUSED, match=message):
        call(store)


def test_a_lock_that_is_not_known_is_refused(path: Path, begin: Any) -> None:
    with pytest.raises(REFUSED, match="'brake'"), begin(path, lock="brake"):
        pass


@pytest.mark.parametrize("place", [".", "nowhere://x.zarr"])
def test_a_place_that_is_none_is_refused(place: str, begin: Any) -> None:
    with pytest.raises(InputError), begin(place):
        pass


def test_a_file_url_is_a_path(path: Path, begin: Any, slab: Any) -> None:
    with begin(f"file://{path}") as store:
        store.put("tiny", 0, slab(0))
    assert ActivationStore.open(path).pending() == [1, 2]


# --- what is not captured


def test_what_is_not_marked_is_nan_though_it_is_there(path: Path, made: Any) -> None:
    store, _ = made.fill(path)
    (path / "tiny/captured/c/1").unlink()
    kept = store.dataset(partial="keep")["activation"]
    unmarked = np.isnan(kept).all(["model", "block", "scale", "neuron"]).to_numpy()
    assert np.flatnonzero(unmarked).tolist() == list(range(8, 16))
    assert np.isnan(kept.isel(block=0, scale=0, neuron=0, image=9))


def test_a_chunk_that_is_missing_inside_a_shard_is_found_by_reading(path: Path, made: Any) -> None:
    store, _ = made.fill(path)
    array = zarr.open_array(path, path="tiny/activation", mode="r+")
    shard = array[:, 1:2, :, :, 8:16]
    shard[:, :, 2] = np.nan  # zarr leaves a chunk out that is empty
    array[:, 1:2, :, :, 8:16] = shard
    store.verify()
    with pytest.raises(CorruptStoreError, match=r"block 1, images 8-15 .* data are missing"):
        store.verify(deep=True)
    with pytest.raises(CorruptStoreError, match=r"block 1, images 8-15 .* data are missing"):
        store.score()


def test_a_folder_in_place_of_a_file_is_none(path: Path, made: Any) -> None:
    made.fill(path)
    (path / "tiny/label/c/0").unlink()
    (path / "tiny/label/c/0").mkdir()
    with pytest.raises(CorruptStoreError, match="the values of 'label' of tiny"):
        ActivationStore.open(path).dataset()
