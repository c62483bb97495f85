"""Where a store may lie, what is refused in one line, and that nothing outside of it is touched."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from zarr.storage import MemoryStore, ZipStore

from iarmem_plugin.errors import (
    CorruptStoreError,
    IarmemError,
    InputError,
    NotAStoreError,
    StoreAccessError,
    StoreNotFoundError,
)
from iarmem_plugin.store import ActivationStore
from iarmem_plugin.store.group import ModelGroup


@pytest.fixture
def zipped(path: Path, made: Any) -> Path:
    """A whole store, packed into one file."""
    made.fill(path)
    file = path.with_suffix(".zip")
    with zipfile.ZipFile(file, "w") as packed:
        for one in path.rglob("*"):
            if one.is_file():
                packed.write(one, one.relative_to(path))
    return file


def refused(place: Any) -> str:
    with pytest.raises(IarmemError) as caught:
        ActivationStore.open(place)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400
    return str(caught.value)


def test_a_store_of_zarr_that_nobody_has_opened_yet_is_opened(zipped: Path, path: Path) -> None:
    store = ActivationStore.open(ZipStore(zipped, mode="r"))
    store.verify(deep=True)
    assert np.array_equal(store.activation, ActivationStore.open(path).activation)


def test_a_zip_file_can_only_be_read(zipped: Path, begin: Any) -> None:
    with pytest.raises(InputError, match="can only be read"):
        ActivationStore.open(ZipStore(zipped, mode="r"), "r+")
    with pytest.raises(InputError, match="can only be read"):
        begin(ZipStore(zipped, mode="a")).__enter__()


def test_a_store_that_was_opened_to_read_is_not_written(made: Any) -> None:
    values: dict[str, Any] = {}
    made.create(values)
    with pytest.raises(InputError, match="can only be read"):
        ActivationStore.open(MemoryStore(values, read_only=True), "r+")


def test_a_zip_file_that_is_none_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no zip file")
    assert "x.zip cannot be opened: " in refused(ZipStore(tmp_path / "x.zip", mode="r"))
    with pytest.raises(StoreNotFoundError, match=r"none\.zip does not exist"):
        ActivationStore.open(ZipStore(tmp_path / "none.zip", mode="r"))


@pytest.mark.parametrize(
    "url", ["zip://x", "nope://x", "reference://x", "data://x", "tar://x", "zip://é\x1b[0m"]
)
def test_a_url_that_cannot_be_opened_is_one_line(url: str) -> None:
    assert refused(url).startswith(f"the store at {url[:6]}")


@pytest.mark.parametrize("name", ["a" * 600, "a\0b", "a/" + "b" * 300, "file://" + "c" * 600])
def test_a_name_that_no_file_can_have_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    assert "cannot be opened" in refused(name)
    with pytest.raises(InputError, match="cannot be opened"):
        begin(name).__enter__()
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_name_that_leaves_no_room_for_the_lock_is_one_line(tmp_path: Path, begin: Any) -> None:
    with pytest.raises(IarmemError, match=r"File name too long.* name another one"):
        begin(tmp_path / ("x" * 250)).__enter__()


@pytest.mark.parametrize("target", ["nowhere", "x.zarr"])  # the second leads to itself
def test_a_link_that_leads_nowhere_is_refused(path: Path, target: str, begin: Any) -> None:
    path.symlink_to(target)
    refused(path)
    with pytest.raises(InputError):
        begin(path).__enter__()
    assert path.is_symlink()


@pytest.fixture
def any_type() -> Iterator[None]:
    """Let the gate's checks of types pass what users without them can hand over."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("any_type")
@pytest.mark.parametrize("values", [{"zarr.json": b"bytes"}, {"zarr.json": 3}])
def test_a_dictionary_of_something_else_is_no_store(values: dict[str, Any]) -> None:
    assert "cannot be read" in refused(values)


@pytest.mark.usefixtures("any_type")
def test_a_dictionary_that_holds_itself_is_no_store() -> None:
    ring: dict[str, Any] = {}
    ring["zarr.json"] = ring
    refused(ring)


@pytest.mark.usefixtures("any_type")
def test_a_path_of_any_class_is_a_place(path: Path, made: Any) -> None:
    class Other(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(path)

    made.create(path)
    assert ActivationStore.open(Other()).models == ("tiny",)  # type: ignore[arg-type]  # no type says so


# --- a place that fails


class Failing(MemoryStore):
    """A network that fails with an error of its own once it is told to."""

    failing = False

    async def get(self, *arguments: Any, **more: Any) -> Any:
        if Failing.failing:
            raise EOFError("the line is dead")
        return await super().get(*arguments, **more)

    async def set(self, *arguments: Any, **more: Any) -> None:
        if Failing.failing:
            raise PermissionError(13, "Permission denied")
        await super().set(*arguments, **more)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    monkeypatch.setattr(Failing, "failing", False)
    return lambda: monkeypatch.setattr(Failing, "failing", True)


def test_a_place_that_fails_is_not_a_damaged_store(
    made: Any, slab: Any, failing: Callable[[], None]
) -> None:
    store = made.create(Failing())
    group: ModelGroup = store["tiny"]
    group.put(0, slab(0))
    failing()
    with pytest.raises(StoreAccessError, match="cannot be read or written: the line is dead"):
        group.read([0], range(1))
    with pytest.raises(StoreAccessError, match="cannot be read or written"):
        group.put(1, slab(1))
    with pytest.raises(StoreAccessError):
        ActivationStore.open(store._objects.zarr)


# --- links


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


LINKED = ["tiny", "tiny/activation", "tiny/activation/c/0/1", "tiny/captured/c", "tiny/label"]


@pytest.mark.parametrize("folder", LINKED)
def test_what_a_link_in_a_store_leads_to_is_not_read_changed_or_deleted(
    path: Path, tmp_path: Path, made: Any, begin: Any, folder: str
) -> None:
    made.fill(path)
    ActivationStore.open(path, "r+").invalidate("tiny", 1)
    outside = tmp_path / "outside"
    (path / folder).rename(outside)
    (path / folder).symlink_to(outside)
    (outside / f"mine.{'0' * 32}.partial").touch()
    before = contents(outside)
    acts: list[Callable[[], object]] = [
        lambda: ActivationStore.open(path, "r+").invalidate("tiny", 0),
        lambda: begin(path).__enter__()["tiny"].put(1, made.as_slab(made.scores(21)[8:16])),
        lambda: ActivationStore.open(path).dataset("tiny", "drop").load(),
    ]
    for act in acts:
        path.with_name("x.zarr.tiny.lock").unlink(missing_ok=True)
        with pytest.raises(CorruptStoreError, match=rf"{folder}.* in .* is a link"):
            act()
    assert contents(outside) == before


def test_metadata_behind_a_link_are_not_read(path: Path, tmp_path: Path, made: Any) -> None:
    made.create(path)
    (path / "zarr.json").rename(tmp_path / "zarr.json")
    (path / "zarr.json").symlink_to(tmp_path / "zarr.json")
    with pytest.raises(CorruptStoreError, match=r"zarr\.json in .* is a link"):
        ActivationStore.open(path)


def test_laying_out_a_group_deletes_nothing_that_is_not_ours(
    path: Path, made: Any, begin: Any
) -> None:
    made.create(path, model="other")
    (path / "tiny").mkdir()
    (path / "tiny/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"tiny/notes\.txt in .* would be deleted"):
        begin(path).__enter__()
    assert (path / "tiny/notes.txt").read_text() == "mine"
    (path / "second").write_text("mine")
    with pytest.raises(InputError, match=r"second in .* would be deleted"):
        made.create(path, model="second")


def test_a_folder_where_a_shard_belongs_is_left_alone(path: Path, made: Any) -> None:
    store, _ = made.fill(path)
    shard = path / "tiny/activation/c/0/0/0/0/1"
    shard.unlink()
    shard.mkdir()
    (shard / "mine").touch()
    with pytest.raises(IarmemError):
        store.invalidate("tiny", 1)
    assert (shard / "mine").exists()


# --- small files


DEEP = b"[" * 100_000
LONG = b'{"a": ' + b"9" * 5_000 + b"}"


@pytest.mark.parametrize("node", ["", "tiny/", "tiny/label/"])
@pytest.mark.parametrize("data", [DEEP, LONG, b"\xff\xfe\x00", b'{"a": NaN}'])
def test_metadata_that_no_reader_should_follow_are_one_line(
    path: Path, made: Any, node: str, data: bytes
) -> None:
    made.create(path)
    (path / f"{node}zarr.json").write_bytes(data)
    with pytest.raises((CorruptStoreError, NotAStoreError), match=r"zarr\.json|zarr v") as caught:
        ActivationStore.open(path).dataset("tiny", "keep")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_metadata_that_never_end_are_none(path: Path, made: Any, kind: str) -> None:
    made.create(path)
    (path / "tiny/zarr.json").unlink()
    if kind == "pipe":
        os.mkfifo(path / "tiny/zarr.json")
    else:
        (path / "tiny/zarr.json").symlink_to("/dev/zero")
    with pytest.raises(CorruptStoreError):
        ActivationStore.open(path).dataset("tiny")


def test_stores_and_groups_say_what_they_are(path: Path, made: Any) -> None:
    store = made.create(path)
    assert repr(store) == f"ActivationStore('{path}', mode='r+'): tiny"
    sizes = "2 blocks, 3 scales, 20 neurons, 21 images in 3 slabs"
    assert repr(store["tiny"]) == f"ModelGroup('tiny'): {sizes}"
