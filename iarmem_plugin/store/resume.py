"""Capturing into a store: begin or resume, one writer at a time, nothing done twice."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from iarmem_plugin.activations.run import Pass
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import DiskFullError, InputError, StoreLockedError
from iarmem_plugin.fingerprint import require_same
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.store.format import group_attributes, group_name, raw_bytes, stored_share
from iarmem_plugin.store.lock import WriteLock
from iarmem_plugin.store.store import ActivationStore, Place, holds, local_folder

if TYPE_CHECKING:
    from iarmem_plugin.models.tracing import ImageARModel

Lock = Literal["take", "break", "wait"]
_WAIT_SECONDS = 600


@contextmanager
def open_for_capture(
    place: Place,
    *,
    model: str,
    layout: ModelLayout,
    images: Images,
    slab: int = 256,
    attrs: Mapping[str, Any] | None = None,
    keep_bits: int | None = None,
    lock: Lock = "take",
) -> Iterator[ActivationStore]:
    """Create a model's group in a store, or resume it if it was begun with the same settings.

    With several processes, one takes the lock and the others pass ``"wait"``: they wait until the
    group is laid out. Let all meet once more after that, and ask each for its `pending` slabs,
    before any of them writes.

    Args:
        place: see `ActivationStore.open`.
        model: as the others but the last, see `ActivationStore.create`.
        layout: of the model.
        images: all images, in order.
        slab: images committed together, K.
        attrs: what changes the numbers, such as the seed, must be the same to resume.
        keep_bits: of the mantissa.
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
    name = group_name(model)
    settings = group_attributes(model, layout, images, slab, attrs or {}, keep_bits)
    with _alone(place, name, lock):
        if lock == "wait":
            _wait_for(place, name)
        if holds(place, name):
            store = _resumed(place, name, settings["capture_settings"])
        else:
            require_room(place, raw_bytes(layout, len(images)), keep_bits)
            store = ActivationStore.create(
                place,
                model=model,
                layout=layout,
                images=images,
                slab=slab,
                attrs=attrs,
                keep_bits=keep_bits,
            )
        yield store


def keep(
    place: Place,
    model: ImageARModel,
    work: Pass,
    *,
    attrs: Mapping[str, Any] | None = None,
    keep_bits: int | None = None,
    lock: Lock = "take",
) -> None:
    """Capture the images that are not in the store into it.

    What an earlier run with the same settings has committed is left as it is. Whatever ends the
    run leaves the committed slabs in place: the same call resumes it. Of several processes, the
    first creates and locks the store, and none returns before all have written their slabs.

    Args:
        place: see `ActivationStore.open`.
        model: the model to capture.
        work: images and how they are captured.
        attrs: see `open_for_capture`.
        keep_bits: see `ActivationStore.create`.
        lock: see `open_for_capture`; in the first process.

    Raises:
        IncompleteCaptureError: if the batches of a slab end before its images do.
        RankError: if another process has ended.
    """
    name, ranks = model.adapter.variant.name, work.ranks
    begin = partial(
        open_for_capture,
        place,
        model=name,
        layout=model.layout,
        images=work.images,
        slab=work.slab,
        attrs=attrs,
        keep_bits=keep_bits,
    )
    if not ranks.first:
        ranks.wait()  # until the first process has laid it out
    with begin(lock=lock if ranks.first else "wait") as store:
        if ranks.first:
            ranks.wait()
        pending = ranks.share(lambda: store.pending(name))  # before anyone writes
        left = sum(len(work.positions(slab)) for slab in pending)
        work.say(require_room(place, raw_bytes(model.layout, left), keep_bits))
        with store.writing(name) as writer:
            for captured in work.over(pending):
                writer.write(captured.batch)
        ranks.wait()


def require_room(place: Place, raw: int, keep_bits: int | None = None) -> str:
    """Refuse to begin what the disk cannot hold; a store that is no local folder is not asked.

    Args:
        place: of the store.
        raw: bytes of the activations to be written, uncompressed.
        keep_bits: of the mantissa.

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
def _alone(place: Place, name: str, lock: Lock) -> Iterator[None]:
    local = local_folder(place)
    if local is None or lock == "wait":
        yield
        return
    with WriteLock(local, name, break_stale=lock == "break"):
        for litter in (local / name).rglob("*.partial"):  # of a writer that was killed
            litter.unlink()
        yield


def _resumed(place: Place, name: str, settings: Mapping[str, Any]) -> ActivationStore:
    store = ActivationStore.open(place, "r+")
    group = store.group(name)
    require_same(group.attributes.get("capture_settings", {}), settings, place=store.name)
    store.verify(name)
    blocks, scales, neurons, _ = group.shape
    missing = sum(len(group.images_of(slab)) for slab in group.pending())
    kept = group.attributes.get("keep_bits")
    require_room(place, blocks * scales * neurons * missing * 4, kept)
    return store


def _wait_for(place: Place, name: str) -> None:
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
