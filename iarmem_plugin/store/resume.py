"""Capturing into a store: begin or resume, one writer at a time, nothing done twice."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from iarmem_plugin.activations.run import Run, show_batches
from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.errors import DiskFullError, InputError, StoreLockedError
from iarmem_plugin.files import clean
from iarmem_plugin.fingerprint import require_same
from iarmem_plugin.progress import print_above
from iarmem_plugin.store.format import group_attributes, group_name, raw_bytes, stored_share
from iarmem_plugin.store.lock import WriteLock
from iarmem_plugin.store.places import StoreLike, local_folder
from iarmem_plugin.store.store import ActivationStore, holds

if TYPE_CHECKING:
    from rich.progress import Progress

Lock = Literal["take", "break", "wait"]
_WAIT_SECONDS = 600
_LITTER = re.compile(r".+\.[0-9a-f]{32}\.partial")  # as zarr names what it has not yet renamed


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where activations are kept, and how.

    Attributes:
        place: path, URL or store of zarr; see `ActivationStore.open`.
        keep_bits: number of the 23 mantissa bits to keep; 13 halve the disk. None keeps all.
        lock: ``"take"`` that of the store, or ``"break"`` one that a killed capture left behind.
    """

    place: StoreLike
    keep_bits: int | None = None
    lock: Lock = "take"


@contextmanager
def open_for_capture(
    place: StoreLike, settings: CaptureSettings, *, lock: Lock = "take"
) -> Iterator[ActivationStore]:
    """Create a model's group in a store, or resume it if it was begun with the same settings.

    With several processes, one takes the lock and the others pass ``"wait"``: they wait until the
    group is laid out. Let all meet once more after that, and ask each for its `pending` slabs,
    before any of them writes.

    Args:
        place: place of the store; see `ActivationStore.open`.
        settings: settings of the capture, which must be the same to resume.
        lock: ``"take"`` it; ``"break"`` that of a capture that was killed; ``"wait"`` for the
            process that has it. Only stores in a local folder are locked.

    Yields:
        the store, writable; the lock is held until the context is left.

    Raises:
        StoreLockedError: another capture writes, or was killed.
        FingerprintMismatchError: the store was begun with other settings; they are named.
        CorruptStoreError: what is marked as captured is not there.
        DiskFullError: there is no room for the pending slabs.
    """
    if lock not in get_args(Lock):
        raise InputError(f"lock={lock!r} was given; expected one of {', '.join(get_args(Lock))}")
    name, attributes = group_name(settings.model), group_attributes(settings)
    with write_alone(place, name, lock):
        if lock == "wait":
            _wait_for(place, name)
        if holds(place, name):
            store = _resumed(place, name, attributes["capture_settings"])
        else:
            raw = raw_bytes(settings.layout, len(settings.images))
            require_room(place, raw, settings.keep_bits)
            store = ActivationStore.create(place, settings)
        yield store


def capture_into(
    place: StoreLike,
    run: Run,
    settings: CaptureSettings,
    *,
    lock: Lock = "take",
    progress: Progress | None = None,
) -> None:
    """Capture the images that are not in the store into it.

    What an earlier run with the same settings has committed is left as it is. Whatever ends the
    run leaves the committed slabs in place: the same call resumes it. Of several processes, the
    first creates and locks the store, and none returns before all have written their slabs.

    Args:
        place: place of the store; see `ActivationStore.open`.
        run: what is captured.
        settings: settings of the capture, of the same images and slabs.
        lock: what the first process does about the lock; see `open_for_capture`.
        progress: place where a progress bar is shown; None shows nothing.

    Raises:
        IncompleteCaptureError: the batches of a slab end before its images do.
        RankError: another process has ended.
    """
    ranks = run.ranks
    if not ranks.first:
        ranks.wait()  # until the first process has laid it out
    with open_for_capture(place, settings, lock=lock if ranks.first else "wait") as store:
        if ranks.first:
            ranks.wait()
        group = store[settings.model]
        pending = ranks.broadcast(group.pending)  # before anyone writes
        left = sum(len(run.slabs.positions(slab)) for slab in pending)
        room = require_room(place, raw_bytes(settings.layout, left), settings.keep_bits)
        print_above(progress, room)
        with group.writing() as writer:
            for captured in show_batches(run, pending, progress):
                writer.write(captured.batch)
        ranks.wait()


def require_room(place: StoreLike, raw: int, keep_bits: int | None = None) -> str:
    """Refuse to begin what the disk cannot hold; only a store in a local folder is asked.

    Args:
        place: place of the store.
        raw: number of bytes of the activations to be written, uncompressed.
        keep_bits: number of mantissa bits to keep.

    Returns:
        what is needed and what is free, in words.

    Raises:
        DiskFullError: saying what is needed and what is free.
    """
    need = raw * stored_share(keep_bits)
    if (local := local_folder(place)) is None:
        return f"the activations need about {need / 1e9:.1f} GB"
    parent = _existing(local)
    free = shutil.disk_usage(parent).free
    room = (
        f"the activations need about {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at "
        f"{parent}"
    )
    if need > free:
        raise DiskFullError(
            errno.ENOSPC,
            f"{room}; make room, capture fewer images, or keep fewer bits",
        )
    return room


@contextmanager
def write_alone(place: StoreLike, name: str, lock: Lock = "take") -> Iterator[None]:
    """Hold the lock of a model's group; what a killed writer left in the store is deleted.

    Args:
        place: place of the store.
        name: name of the group.
        lock: see `open_for_capture`.

    Raises:
        StoreLockedError: another capture writes, or was killed.
    """
    local = local_folder(place)
    if local is None or lock == "wait":
        yield
        return
    with WriteLock(local, name, break_stale=lock == "break"):
        if local.is_dir():
            _sweep(local, name)
        yield


def _sweep(local: Path, name: str) -> None:
    """Delete what was not renamed yet, at the root and in one group; no link is followed."""
    clean(local)
    inside = [] if (local / name).is_symlink() else os.walk(local / name)
    for folder, _, names in (("", [], os.listdir(local)), *inside):
        for litter in filter(_LITTER.fullmatch, names):
            (local / folder / litter).unlink(missing_ok=True)


def _resumed(place: StoreLike, name: str, settings: Mapping[str, Any]) -> ActivationStore:
    store = ActivationStore.open(place, "r+")
    group = store[name]
    require_same(group.attributes.get("capture_settings", {}), settings, place=store.name)
    store.verify(name)
    blocks, scales, neurons, _ = group.shape
    missing = sum(len(group.images_of(slab)) for slab in group.pending())
    kept = group.attributes.get("keep_bits")
    require_room(place, blocks * scales * neurons * missing * 4, kept)
    return store


def _wait_for(place: StoreLike, name: str) -> None:
    until = time.monotonic() + _WAIT_SECONDS
    while not holds(place, name):
        if time.monotonic() > until:
            raise StoreLockedError(
                f"{place} was not laid out for {name!r} within {_WAIT_SECONDS} s; see what the "
                "process that creates it says"
            )
        time.sleep(0.05)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)
