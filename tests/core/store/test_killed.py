"""Captures that are killed with SIGKILL and resumed, as users see their store afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from iarmem_plugin.errors import StoreLockedError
from iarmem_plugin.store.store import ActivationStore

SCRIPT = Path(__file__).with_name("writer_process.py")
_spec = spec_from_file_location("writer_process", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
process = module_from_spec(_spec)
_spec.loader.exec_module(process)
FILES = process.BLOCKS  # of one slab: a shard for each block


def start(path: Path, rank: int, world: int, barrier: Path, at: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), str(path), str(rank), str(world), str(barrier), str(at)]
    return subprocess.Popen(command)


def kill_one(path: Path, barrier: Path, world: int, rng: random.Random) -> int:
    """Start processes of which one is killed in a slab, kill the others; return how many were."""
    barrier.mkdir()
    victim = rng.randrange(world)
    at = rng.randint(0, 1) * FILES + rng.randint(9, FILES)  # in its first slab, or its second
    processes = [start(path, rank, world, barrier, at * (rank == victim)) for rank in range(world)]
    try:
        processes[victim].wait(timeout=300)
    finally:
        for one in processes:
            one.kill()
    return sum(one.wait() == -signal.SIGKILL for one in processes)


def partly_written(path: Path, since: float) -> list[int]:
    """Return the unmarked slabs of which a shard was written since a time."""
    store = ActivationStore.open(path)
    shards = (path / "tiny/activation/c").rglob("*/0/0/*")
    fresh = {
        int(file.name) for file in shards if file.name.isdigit() and file.stat().st_mtime >= since
    }
    return sorted(fresh & set(store.pending("tiny")))


def finish(path: Path, expected: Any, made: Any) -> None:
    """Go on to the end; the store then holds what one that was never killed does."""
    process.write_pending(path)
    ActivationStore.open(path).verify(deep=True)
    assert made.contents(path) == expected


def run(folder: Path, worlds: list[int], seed: int, made: Any) -> tuple[int, str]:
    """Kill as often as there are worlds, finish, compare; return the kills, and a summary."""
    whole, path, rng = folder / "whole.zarr", folder / "killed.zarr", random.Random(seed)
    process.write_pending(whole)
    kills = litter = 0
    for number, world in enumerate(worlds):
        if path.exists() and len(ActivationStore.open(path).pending("tiny")) < 2 * world:
            finish(path, made.contents(whole), made)
            shutil.rmtree(path)
        since = time.time()
        kills += kill_one(path, folder / f"barrier{number}", world, rng)
        ActivationStore.open(path).verify()  # no marker without its data
        assert partly_written(path, since)
        litter += len(list(path.rglob("*.partial")))
    finish(path, made.contents(whole), made)
    return kills, (
        f"{len(worlds)} rounds with {kills} SIGKILLs, 1 to {max(worlds)} ranks: each left an "
        f"unmarked, partly written slab, {litter} .partial files; no marker without its data, "
        "the final store is equal bit by bit"
    )


def test_three_kills_leave_a_store_that_resumes_to_the_same_bits(tmp_path: Path, made: Any) -> None:
    kills, _ = run(tmp_path, [1, 2, 1], 0, made)
    assert 3 <= kills <= 4


@pytest.mark.slow
def test_many_kills_leave_a_store_that_resumes_to_the_same_bits(
    tmp_path: Path, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(1)
    kills, summary = run(tmp_path, [rng.randint(1, 3) for _ in range(24)], 2, made)
    assert kills >= 24
    with capsys.disabled():
        print(f"\n{summary}")


def test_the_lock_of_a_killed_capture_is_reported_and_broken_only_on_request(
    tmp_path: Path,
) -> None:
    path, barrier = tmp_path / "x.zarr", tmp_path / "barrier"
    assert kill_one(path, barrier, 1, random.Random(0)) == 1
    with pytest.raises(StoreLockedError, match=r"was left by process \d+ on .*, which is gone"):
        process.begin(path, "take").__enter__()
    with process.begin(path, "break") as store:
        assert store.pending("tiny")
    assert not path.with_name("x.zarr.tiny.lock").exists()
