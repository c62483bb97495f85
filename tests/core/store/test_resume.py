"""Beginning, resuming and refusing a capture, wherever the store lies."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore, StorePath, WrapperStore

from iarmem_plugin.errors import (
    DiskFullError,
    FingerprintMismatchError,
    IarmemError,
    IncompleteCaptureError,
    InputError,
    StoreLockedError,
)
from iarmem_plugin.store.resume import require_room
from iarmem_plugin.store.shards import round_mantissa
from iarmem_plugin.store.store import ActivationStore


@pytest.fixture
def memory() -> Iterator[str]:
    url = "memory://iarmem-test/x.zarr"
    yield url
    fsspec.filesystem("memory").rm("/iarmem-test", recursive=True)


def test_a_capture_resumes_where_it_was_ended(path: Path, made: Any, begin: Any, slab: Any) -> None:
    with begin(path) as store:
        assert store.pending() == [0, 1, 2]
        store.put("tiny", 1, slab(1))
    with begin(path) as store:
        assert store.pending() == [0, 2]
        assert list(store.images_of("tiny", 2)) == list(range(16, 21))
        for number in store.pending():
            store.put("tiny", number, slab(number))
    whole = made.scores(21)
    assert np.array_equal(made.as_slab(whole), ActivationStore.open(path).activation)


def test_writing_a_slab_again_changes_no_byte(path: Path, made: Any, begin: Any, slab: Any) -> None:
    with begin(path) as store:
        store.put("tiny", 0, slab(0))
        before = made.contents(path)
        store.put("tiny", 0, slab(0))
        assert before == made.contents(path)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1}, "seed: 0 in the store, 1 given"),
        ({"slab": 4}, "slab: 8 in the store, 4 given"),
        ({"keep_bits": 13}, "keep_bits: null in the store, 13 given"),
        ({"neurons": 24}, "neurons: 20 in the store, 24 given"),
        ({"count": 20}, "image_list_sha256: "),
        ({"checkpoint_sha256": "ab"}, 'checkpoint_sha256: null in the store, "ab" given'),
    ],
)
def test_other_settings_are_refused_and_named(
    path: Path, changes: dict[str, Any], field: str, made: Any, begin: Any
) -> None:
    about: dict[str, Any] = {"seed": 0, "provenance": {"created_utc": "today"}}
    with begin(path, **about):
        pass
    before = made.contents(path)
    with pytest.raises(FingerprintMismatchError, match=field):
        begin(path, **(about | changes)).__enter__()
    assert before == made.contents(path)


def test_what_does_not_change_the_numbers_may_differ(path: Path, begin: Any) -> None:
    with begin(path, seed=0, provenance={"device": "cpu"}):
        pass
    with begin(path, seed=0, provenance={"device": "cuda"}) as store:
        assert store.pending() == [0, 1, 2]


def test_a_second_writer_is_refused(path: Path, begin: Any) -> None:
    with begin(path):
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()} on .*, since 2"):
            begin(path).__enter__()
        with pytest.raises(StoreLockedError, match="wait until it ends"):  # it is alive
            begin(path, lock="break").__enter__()
    with begin(path):
        pass


def test_another_process_waits_for_the_one_that_lays_out(path: Path, begin: Any) -> None:
    def later() -> None:
        with begin(path):
            laid_out.set()
            done.wait()

    laid_out, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=later)
    timer = threading.Timer(0.1, thread.start)
    timer.start()
    with begin(path, lock="wait") as store:
        assert laid_out.wait(5)
        assert store.pending() == [0, 1, 2]
    done.set()
    thread.join()


def leave_lock(path: Path, **owner: Any) -> None:
    known = {"host": socket.gethostname(), "pid": 2**22 + 1, "since": "2026-01-01T00:00:00"}
    path.with_name("x.zarr.tiny.lock").write_text(json.dumps(known | owner))


@pytest.mark.parametrize(
    ("owner", "state"),
    [({}, "which is gone"), ({"host": "elsewhere"}, "runs on another host, if it still runs")],
)
def test_a_stale_lock_is_reported_and_removed_only_on_request(
    path: Path, owner: dict[str, str], state: str, begin: Any
) -> None:
    leave_lock(path, **owner)
    with pytest.raises(StoreLockedError, match=state):
        begin(path).__enter__()
    with begin(path, lock="break") as store:
        assert store.pending()


def test_a_lock_that_was_cut_short_is_reported(path: Path, begin: Any) -> None:
    path.with_name("x.zarr.tiny.lock").write_text("")
    with pytest.raises(StoreLockedError, match="process 0 on unknown"):
        begin(path).__enter__()


def test_what_a_killed_writer_left_is_swept_up(path: Path, begin: Any, slab: Any) -> None:
    with begin(path) as store:
        store.put("tiny", 0, slab(0))
    litter = path / f"tiny/activation/c/0/0/0/0/1.{'0' * 32}.partial"
    litter.write_bytes(b"half a shard")
    ActivationStore.open(path).verify()  # it harms no reader
    assert ActivationStore.open(path).pending() == [1, 2]
    with begin(path):
        assert not litter.exists()


@pytest.mark.parametrize("node", ["", "tiny", "tiny/label/c", "tiny/captured/c"])
def test_what_a_kill_left_is_swept_up_wherever_it_lies(path: Path, begin: Any, node: str) -> None:
    with begin(path):
        pass
    ours = path / node / f"zarr.{'0a' * 16}.partial"
    users = path / node / "mine.partial"
    for file in (ours, users):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"{")
    with begin(path):
        assert not ours.exists()
        assert users.exists()


def test_a_kill_while_the_root_is_written_leaves_nothing_behind(path: Path, begin: Any) -> None:
    path.mkdir()
    names = (f".iarmem-{'0a' * 8}.partial", f"zarr.{'0a' * 16}.partial")
    for name in names:
        (path / name).write_bytes(b"{")
    with begin(path) as store:
        assert store.models == ("tiny",)
    assert sorted(one.name for one in path.iterdir()) == ["tiny", "zarr.json"]


def test_a_creation_that_was_cut_short_is_begun_again(path: Path, begin: Any) -> None:
    with begin(path):
        pass
    file = path / "tiny/zarr.json"
    file.write_text(file.read_text().replace('"layout_ready": true', '"layout_ready": false'))
    shutil.rmtree(path / "tiny/label")
    with begin(path) as store:
        assert store.pending() == [0, 1, 2]


def test_readers_do_not_meet_the_lock(path: Path, begin: Any, slab: Any) -> None:
    with begin(path) as store:
        store.put("tiny", 0, slab(0))
        data = ActivationStore.open(path).dataset(partial="drop")
        assert data.sizes["image"] == 8


# --- the background thread


def test_a_slab_is_written_in_the_background_and_is_there_afterwards(
    path: Path, begin: Any, slab: Any
) -> None:
    with begin(path) as store:
        with store.writing("tiny") as writer:
            for number in store.pending():
                writer.put(number, slab(number))
        assert store.pending() == []


def test_an_error_of_the_thread_is_raised_by_the_next_call(
    path: Path, begin: Any, slab: Any
) -> None:
    with begin(path) as store:
        writer = store.writing("tiny")
        writer.put(0, slab(0) * np.float32("nan"))
        with pytest.raises(IarmemError, match="is nan"):
            writer.put(1, slab(1))
        with pytest.raises(IarmemError, match="is nan"), writer:
            pass
        assert store.pending() == [0, 1, 2]


def test_an_exception_of_the_caller_leaves_whole_slabs_alone(
    path: Path, made: Any, begin: Any, slab: Any
) -> None:
    with begin(path) as store:
        with pytest.raises(KeyboardInterrupt), store.writing("tiny") as writer:
            writer.put(0, slab(0))
            for batch in made.batches(
                np.ones((3, made.BLOCKS, made.SCALES, made.NEURONS), "f4"),
                made.images(21).subset(range(8, 11)),
                3,
            ):
                writer.write(batch)  # part of slab 1
            raise KeyboardInterrupt
        assert store.pending() == [1, 2]
        store.verify(deep=True)


def test_a_slab_that_is_not_filled_is_reported_and_not_written(
    path: Path, made: Any, begin: Any
) -> None:
    images = made.images(21)
    scores = made.scores(21)
    with begin(path) as store:
        with pytest.raises(IncompleteCaptureError, match="6 images of 1 slabs"):
            with store.writing("tiny") as writer:
                writer.write(made.batches(scores, images, 10)[0])
        assert store.pending() == [1, 2]


# --- fewer bits


def test_rounding_keeps_the_nearest_value_with_so_many_bits() -> None:
    values = np.array([1 + 2**-3, 1 + 2**-4, 1 + 3 * 2**-4, -0.75, 0, 3e38], np.float32)
    rounded = np.array([1.125, 1.0, 1.25, -0.75, 0, 3e38], np.float32)  # ties go to even
    assert np.array_equal(round_mantissa(values, 3)[:5], rounded[:5])
    assert np.isfinite(round_mantissa(values, 13)).all()


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 23))
def test_rounding_errs_by_less_than_half_a_step_and_once_only(value: float, bits: int) -> None:
    given = np.array([value], np.float32)
    rounded = round_mantissa(given, bits)
    step = max(2.0 ** -(bits + 1) * abs(value), 2.0**-127)  # below that, numbers are subnormal
    assert abs(float(rounded[0]) - value) <= step
    assert np.array_equal(rounded, round_mantissa(rounded, bits))


def test_a_store_may_keep_fewer_bits_and_says_so(path: Path, begin: Any, slab: Any) -> None:
    with begin(path, keep_bits=5) as store:
        store.put("tiny", 0, slab(0))
        kept = store.dataset(partial="drop")
    assert np.array_equal(round_mantissa(slab(0), 5), kept.activation)
    assert kept.attrs["keep_bits"] == 5


@pytest.mark.parametrize("bits", [0, 24])
def test_bits_that_a_float_does_not_have_are_refused(path: Path, bits: int, begin: Any) -> None:
    with pytest.raises(InputError, match=f"keep_bits is {bits}"):
        begin(path, keep_bits=bits).__enter__()
    assert not path.exists()


# --- room on the disk


def test_a_capture_that_does_not_fit_on_the_disk_is_not_begun(
    path: Path, made: Any, begin: Any
) -> None:
    with pytest.raises(DiskFullError, match=r"need about .* GB, and .* GB are free"):
        begin(path, neurons=10**14).__enter__()
    assert not path.exists()


def test_keeping_fewer_bits_asks_for_less_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = 1_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=600_000))
    with pytest.raises(DiskFullError, match="keep fewer bits"):
        require_room(path, raw)
    require_room(path, raw, 13)


class Full(WrapperStore[MemoryStore]):
    """A disk that takes some shards and markers more."""

    room = 0

    async def set(self, key: str, value: Any) -> None:
        if "activation/c/" in key or "captured/c/" in key:
            Full.room -= 1
            if Full.room < 0:
                raise OSError(28, "No space left on device")
        await self._store.set(key, value)


@pytest.mark.parametrize("room", [1, 2])  # the second leaves none for the marker
def test_a_disk_that_fills_up_leaves_the_slab_unmarked(room: int, begin: Any, slab: Any) -> None:
    Full.room = room
    with begin(Full(MemoryStore())) as store:
        with pytest.raises(OSError, match=r"slab 0 of 'tiny' needs about .* GB") as caught:
            store.put("tiny", 0, slab(0))
        assert caught.value.errno == 28
        assert isinstance(caught.value, IarmemError)
        assert store.pending() == [0, 1, 2]


# --- anywhere


def obstore_memory() -> Any:
    from obstore.store import MemoryStore as Bucket
    from zarr.storage import ObjectStore

    return ObjectStore(Bucket())


def roundtrip(place: Any, begin: Any, slab: Any) -> None:
    with begin(place) as store:
        for number in (0, 1):
            store.put("tiny", number, slab(number))
    with begin(place) as store:
        assert store.pending() == [2]
        store.put("tiny", 2, slab(2))
        store.invalidate("tiny", 0)
        assert store.pending() == [0]
        store.put("tiny", 0, slab(0))
    store = ActivationStore.open(place)
    store.verify(deep=True)
    assert store.models == ("tiny",)
    assert np.array_equal(slab(1), store.activation[..., 8:16])


def test_a_store_may_lie_in_any_file_system_of_fsspec(memory: str, begin: Any, slab: Any) -> None:
    roundtrip(memory, begin, slab)


def test_a_store_may_be_any_of_zarr(begin: Any, slab: Any) -> None:
    roundtrip(MemoryStore(), begin, slab)


def test_a_store_may_be_a_dictionary(begin: Any, slab: Any) -> None:
    roundtrip({}, begin, slab)


def test_a_store_may_lie_in_an_object_store(begin: Any, slab: Any) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed: install iarmem[test]")
    roundtrip(obstore_memory(), begin, slab)


def test_a_store_may_be_a_mapping_of_fsspec(memory: str, begin: Any, slab: Any) -> None:
    roundtrip(fsspec.get_mapper(memory), begin, slab)


def test_what_is_no_place_is_refused(begin: Any, slab: Any) -> None:
    with pytest.raises(InputError, match="is not a place for a store"):
        ActivationStore.open(StorePath(MemoryStore(), "inside"))
    roundtrip(StorePath(MemoryStore()), begin, slab)
