"""Metadata that were changed together with their digests, and files mutated at random."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iarmem_plugin.errors import CorruptStoreError, IarmemError
from iarmem_plugin.store import ActivationStore
from iarmem_plugin.store.integrity import digests
from iarmem_plugin.store.places import open_objects

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, made: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("whole") / "x.zarr"
    made.fill(path)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "x.zarr"))


def spoil(path: Path, node: str, change: Change) -> None:
    """Change metadata, and make the digests anew."""
    for file, update in ((f"tiny/{node}", change), ("tiny/", with_digests(path))):
        metadata = json.loads((path / file / "zarr.json").read_text())
        update(metadata)
        (path / file / "zarr.json").write_text(json.dumps(metadata))


def with_digests(path: Path) -> Change:
    def update(metadata: dict[str, Any]) -> None:
        metadata["attributes"] |= digests(open_objects(path, read_only=True), "tiny")

    return update


def chunks(shape: list[int]) -> Change:
    return lambda metadata: metadata["chunk_grid"]["configuration"].update(chunk_shape=shape)


HUGE = 10**13
CHANGES: dict[str, tuple[str, Change]] = {
    "markers of another length": ("captured", lambda m: m.update(shape=[20])),
    "markers of two dims": ("captured", lambda m: m.update(shape=[21, 1])),
    "markers of another dtype": ("captured", lambda m: m.update(data_type="int8", fill_value=0)),
    "markers that are true by default": ("captured", lambda m: m.update(fill_value=True)),
    "chunks of nothing": ("captured", chunks([0])),
    "chunks of another size": ("captured", chunks([7])),
    "shards of nothing": ("activation", chunks([1, 1, 3, 0, 8])),
    "other dimension names": ("label", lambda m: m.update(dimension_names=["scale"])),
    "no dimension names": ("activation", lambda m: m.pop("dimension_names")),
    "dims in another order": ("activation", lambda m: m["dimension_names"].reverse()),
    "a missing shard that reads as 0": ("activation", lambda m: m.update(fill_value=0.0)),
    "an array that is a group": ("label", lambda m: m.update(node_type="group")),
    "no codecs": ("label", lambda m: m.update(codecs=[])),
    "another format": ("label", lambda m: m.update(zarr_format=2)),
    "a slab of none": ("", lambda m: m["attributes"].update(slab=0)),
    "a slab that is no number": ("", lambda m: m["attributes"].update(slab="8")),
    "a slab of another size": ("", lambda m: m["attributes"].update(slab=7)),
    "a slab beyond memory": ("", lambda m: m["attributes"].update(slab=HUGE)),
    "bits that no float has": ("", lambda m: m["attributes"].update(keep_bits=99)),
    "settings that are none": ("", lambda m: m["attributes"].update(capture_settings=[])),
}


@pytest.mark.parametrize(("node", "change"), CHANGES.values(), ids=CHANGES)
def test_metadata_that_were_spoilt_with_their_digests_are_named(
    path: Path, node: str, change: Change, begin: Any
) -> None:
    spoil(path, node, change)
    with pytest.raises(CorruptStoreError, match="tiny"):
        ActivationStore.open(path).dataset("tiny").load()
    with pytest.raises(IarmemError):
        begin(path).__enter__()
    with pytest.raises(IarmemError):
        ActivationStore.open(path)["tiny"].pending()


def test_a_store_that_promises_more_than_it_has_asks_for_no_memory(path: Path, made: Any) -> None:
    for array in ("image", "label", "image_path", "captured"):
        spoil(path, array, lambda metadata: metadata.update(shape=[HUGE]))
        if array != "captured":
            spoil(path, array, chunks([HUGE]))
    spoil(path, "activation", lambda m: m.update(shape=[1, 2, 3, 20, HUGE]))
    with pytest.raises(CorruptStoreError, match=r"'image' of tiny .* not as many as promised"):
        ActivationStore.open(path).dataset("tiny", "keep")


# --- any change of any file


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, delete or insert bytes, or put one value of JSON in place of another."""
    place, end = sorted(rng.choices(range(len(data) + 1), k=2))
    kind = rng.randrange(6)
    if kind == 0 and data:
        flipped = bytearray(data)
        flipped[place - 1] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if kind == 5 and data.startswith(b"{"):
        return json.dumps(changed(json.loads(data), rng)).encode()
    return [
        data[:place],
        data[:place] + data[end:],
        data[:end] + data[place:],
        data[:place] + rng.choice((b"\0", b"\xff", b"[" * 999, b"9" * 999, b'"')) + data[place:],
        rng.randbytes(rng.randrange(99)),
    ][kind - 1]


def changed(value: Any, rng: random.Random) -> Any:
    """Return JSON with one value, however deep, changed to another."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        copy = value.copy()
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        copy[key] = changed(value[key], rng)
        return copy
    return rng.choice((None, 0, -1, 1, 2.5, 10**12, True, "", "a", [], {}, [0], "float32", value))


def outcome(act: Callable[[], object]) -> object:
    try:
        return act()
    except IarmemError:
        return None


def try_mutations(whole: Path, path: Path, made: Any, rounds: range) -> None:
    """Mutate one file in each round; nothing but a named error or the right result comes out."""
    files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file())
    right = ActivationStore.open(whole).dataset("tiny").load()
    outside = path.with_name("mine")
    outside.write_text("mine")
    for seed in rounds:
        rng = random.Random(seed)
        shutil.copytree(whole, path)
        name = rng.choice([one for one in files if one.name == "zarr.json"] + files)
        (path / name).write_bytes(mutate((path / name).read_bytes(), rng))
        if rng.random() < 0.5:  # by someone who makes the digests anew
            outcome(lambda: spoil(path, "", lambda _: None)) if readable(path) else None
        found = outcome(lambda: ActivationStore.open(path).dataset("tiny").load())
        if found is not None:
            assert found["activation"].equals(right["activation"]), (seed, name)
        outcome(lambda: ActivationStore.open(path, "r+").invalidate("tiny", 1))
        outcome(lambda: ActivationStore.open(path).score("unitmem", "tiny"))
        assert sorted(one.name for one in path.parent.iterdir()) == ["mine", path.name]
        shutil.rmtree(path)


def readable(path: Path) -> bool:
    try:
        json.loads((path / "tiny/zarr.json").read_text())["attributes"]["model"]
    except (ValueError, LookupError, TypeError):
        return False
    return True


def test_a_mutated_store_is_a_named_error_or_reads_as_it_was(
    whole: Path, tmp_path: Path, made: Any
) -> None:
    try_mutations(whole, tmp_path / "x.zarr", made, range(40))


@pytest.mark.slow
def test_many_mutated_stores_are_named_errors_or_read_as_they_were(
    whole: Path, tmp_path: Path, made: Any
) -> None:
    try_mutations(whole, tmp_path / "x.zarr", made, range(100, 1_100))


def try_locks(path: Path, rounds: range) -> None:
    from iarmem_plugin.store.lock import WriteLock

    with WriteLock(path, "tiny") as lock:
        sound = lock.file.read_bytes()
    for seed in rounds:
        lock.file.write_bytes(mutate(sound, random.Random(seed)))
        outcome(WriteLock(path, "tiny").__enter__)
        lock.file.unlink(missing_ok=True)
    assert not any(one.name.startswith("x.zarr.tiny") for one in path.parent.iterdir())


def test_a_mutated_lock_is_a_named_error(tmp_path: Path) -> None:
    try_locks(tmp_path / "x.zarr", range(40))


@pytest.mark.slow
def test_many_mutated_locks_are_named_errors(tmp_path: Path) -> None:
    try_locks(tmp_path / "x.zarr", range(100, 600))
