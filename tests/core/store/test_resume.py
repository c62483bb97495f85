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
import store_builders as made
from hypothesis import given
from hypothesis import strategies as st
from store_builders import BLOCKS, NEURONS, SCALES
from zarr.storage import MemoryStore, StorePath, WrapperStore

from iarmem_plugin.errors import (
    DiskFullError,
    FingerprintMismatchError,
    IarmemError,
    IncompleteCaptureError,
    InputError,
    StoreLockedError,
)
from iarmem_plugin.store.mantissa import round_mantissa
from iarmem_plugin.store.resume import open_for_capture, require_room
from iarmem_plugin.store.store import ActivationStore
from iarmem_plugin.store.writer import deal

IMAGES = 21


def begin(place: Any, **changes: Any) -> Any:
    """Begin or resume a capture of 21 images in slabs of 8."""
    settings: dict[str, Any] = {
        "model": "tiny",
        "layout": made.make_layout(),
        "images": made.make_images(IMAGES),
        "slab": 8,
    }
    return open_for_capture(place, **(settings | changes))


def slab(number: int) -> np.ndarray:
    scores = made.make_scores(IMAGES, made.make_layout())
    return made.as_slab(scores[number * 8 : number * 8 + 8])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.zarr"


@pytest.fixture
def memory() -> Iterator[str]:
    url = "memory://iarmem-test/x.zarr"
    yield url
    fsspec.filesystem("memory").rm("/iarmem-test", recursive=True)


def test_a_capture_resumes_where_it_was_ended(path: Path) -> None:
    with begin(path) as store:
        assert store.pending() == [0, 1, 2]
        store.put("tiny", 1, slab(1))
    with begin(path) as store:
        assert store.pending() == [0, 2]
        assert list(store.images_of("tiny", 2)) == list(range(16, 21))
        for number in store.pending():
            store.put("tiny", number, slab(number))
    whole = made.make_scores(IMAGES, made.make_layout())
    assert np.array_equal(made.as_slab(whole), ActivationStore.open(path).activation)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_slabs_are_dealt_to_one_process_each(world: int) -> None:
    pending = [0, 3, 4, 7, 9]
    dealt = [deal(pending, rank=rank, world=world) for rank in range(world)]
    assert sorted(slab for share in dealt for slab in share) == pending
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(InputError, match="rank 2 of 2 was given"):
        deal([0, 1], rank=2, world=2)


def test_writing_a_slab_again_changes_no_byte(path: Path) -> None:
    with begin(path) as store:
        store.put("tiny", 0, slab(0))
        before = made.contents(path)
        store.put("tiny", 0, slab(0))
        assert before == made.contents(path)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"attrs": {"provenance": {"seed": 1}}}, "seed: 0 in the store, 1 given"),
        ({"slab": 4}, "slab: 8 in the store, 4 given"),
        ({"keep_bits": 13}, "keep_bits: null in the store, 13 given"),
        ({"layout": made.make_layout(neurons=24)}, "neurons: 20 in the store, 24 given"),
        ({"images": made.make_images(20)}, "image_list_sha256: "),
        ({"attrs": {"checkpoint_sha256": "ab"}}, 'checkpoint_sha256: null in the store, "ab" giv'),
    ],
)
def test_other_settings_are_refused_and_named(
    path: Path, changes: dict[str, Any], field: str
) -> None:
    attrs = {"provenance": {"seed": 0, "created_utc": "today"}}
    with begin(path, attrs=attrs):
        pass
    before = made.contents(path)
    with pytest.raises(FingerprintMismatchError, match=field):
        begin(path, **({"attrs": attrs} | changes)).__enter__()
    assert before == made.contents(path)


def test_what_does_not_change_the_numbers_may_differ(path: Path) -> None:
    with begin(path, attrs={"provenance": {"seed": 0, "device": "cpu"}}):
        pass
    with begin(path, attrs={"provenance": {"seed": 0, "device": "cuda"}}) as store:
        assert store.pending() == [0, 1, 2]


def test_a_second_writer_is_refused(path: Path) -> None:
    with begin(path):
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()} on .*, since 2"):
            begin(path).__enter__()
        with pytest.raises(StoreLockedError, match="wait until it ends"):  # it is alive
            begin(path, lock="break").__enter__()
    with begin(path):
        pass


def test_another_process_waits_for_the_one_that_lays_out(path: Path) -> None:
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
    path: Path, owner: dict[str, str], state: str
) -> None:
    leave_lock(path, **owner)
    with pytest.raises(StoreLockedError, match=state):
        begin(path).__enter__()
    with begin(path, lock="break") as store:
        assert store.pending()


def test_a_lock_that_was_cut_short_is_reported(path: Path) -> None:
    path.with_name("x.zarr.tiny.lock").write_text("")
    with pytest.raises(StoreLockedError, match="process 0 on unknown"):
        begin(path).__enter__()


def test_what_a_killed_writer_left_is_swept_up(path: Path) -> None:
    with begin(path) as store:
        store.put("tiny", 0, slab(0))
    litter = path / "tiny/activation/c/0/0/0/0/1.0123.partial"
    litter.write_bytes(b"half a shard")
    ActivationStore.open(path).verify()  # it harms no reader
    assert ActivationStore.open(path).pending() == [1, 2]
    with begin(path):
        assert not litter.exists()


def test_a_creation_that_was_cut_short_is_begun_again(path: Path) -> None:
    with begin(path):
        pass
    file = path / "tiny/zarr.json"
    file.write_text(file.read_text().replace('"layout_ready": true', '"layout_ready": false'))
    shutil.rmtree(path / "tiny/label")
    with begin(path) as store:
        assert store.pending() == [0, 1, 2]


def test_readers_do_not_meet_the_lock(path: Path) -> None:
    with begin(path) as store:
        store.put("tiny", 0, slab(0))
        data = ActivationStore.open(path).dataset(partial="drop")
        assert data.sizes["image"] == 8


# --- the background thread


def test_a_slab_is_written_in_the_background_and_is_there_afterwards(path: Path) -> None:
    with begin(path) as store:
        with store.writing("tiny") as writer:
            for number in store.pending():
                writer.put(number, slab(number))
        assert store.pending() == []


def test_an_error_of_the_thread_is_raised_by_the_next_call(path: Path) -> None:
    with begin(path) as store:
        writer = store.writing("tiny")
        writer.put(0, slab(0) * np.float32("nan"))
        with pytest.raises(IarmemError, match="is nan"):
            writer.put(1, slab(1))
        with pytest.raises(IarmemError, match="is nan"), writer:
            pass
        assert store.pending() == [0, 1, 2]


def test_an_exception_of_the_caller_leaves_whole_slabs_alone(path: Path) -> None:
    with begin(path) as store:
        with pytest.raises(KeyboardInterrupt), store.writing("tiny") as writer:
            writer.put(0, slab(0))
            for batch in made.batches(
                np.ones((3, BLOCKS, SCALES, NEURONS), "f4"),
                made.make_images(IMAGES).subset(range(8, 11)),
                3,
            ):
                writer.write(batch)  # part of slab 1
            raise KeyboardInterrupt
        assert store.pending() == [1, 2]
        store.verify(deep=True)


def test_a_slab_that_is_not_filled_is_reported_and_not_written(path: Path) -> None:
    images = made.make_images(IMAGES)
    scores = made.make_scores(IMAGES, made.make_layout())
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


def test_a_store_may_keep_fewer_bits_and_says_so(path: Path) -> None:
    with begin(path, keep_bits=5) as store:
        store.put("tiny", 0, slab(0))
        kept = store.dataset(partial="drop")
    assert np.array_equal(round_mantissa(slab(0), 5), kept.activation)
    assert kept.attrs["keep_bits"] == 5


@pytest.mark.parametrize("bits", [0, 24])
def test_bits_that_a_float_does_not_have_are_refused(path: Path, bits: int) -> None:
    with pytest.raises(InputError, match=f"keep_bits is {bits}"):
        begin(path, keep_bits=bits).__enter__()
    assert not path.exists()


# --- room on the disk


def test_a_capture_that_does_not_fit_on_the_disk_is_not_begun(path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"need about .* GB, and .* GB are free"):
        begin(path, layout=made.make_layout(neurons=10**14)).__enter__()
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


@pytest.mark.parametrize("room", [1, made.BLOCKS])  # the second leaves none for the marker
def test_a_disk_that_fills_up_leaves_the_slab_unmarked(room: int) -> None:
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


def roundtrip(place: Any) -> None:
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


def test_a_store_may_lie_in_any_file_system_of_fsspec(memory: str) -> None:
    roundtrip(memory)


def test_a_store_may_be_any_of_zarr() -> None:
    roundtrip(MemoryStore())


def test_a_store_may_be_a_dictionary() -> None:
    roundtrip({})


def test_a_store_may_lie_in_an_object_store() -> None:
    pytest.importorskip("obstore", reason="obstore is not installed: install iarmem[test]")
    roundtrip(obstore_memory())


def test_a_store_may_be_a_mapping_of_fsspec(memory: str) -> None:
    roundtrip(fsspec.get_mapper(memory))


def test_what_is_no_place_is_refused() -> None:
    with pytest.raises(InputError, match="is no place for a store"):
        ActivationStore.open(StorePath(MemoryStore(), "inside"))
    roundtrip(StorePath(MemoryStore()))
