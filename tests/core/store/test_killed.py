"""Captures that are killed with SIGKILL and resumed, as users see their store afterwards."""

from __future__ import annotations

import random
import shutil
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


def start(path: Path, rank: int, world: int, barrier: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(path), str(rank), str(world), str(barrier)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_one(path: Path, barrier: Path, world: int, seconds: float, rng: random.Random) -> int:
    """Start processes, kill them after a slab was begun; return how many were killed."""
    barrier.mkdir()
    processes = [start(path, rank, world, barrier) for rank in range(world)]
    killed = 0
    try:
        victim = rng.choice(processes)
        assert victim.stdout is not None
        for _ in range(rng.randint(1, 2)):
            victim.stdout.readline()
        time.sleep(rng.uniform(0, seconds))
    finally:
        for one in processes:
            one.kill()
        for one in processes:
            killed += one.wait() == -9
            assert one.stdout is not None
            one.stdout.close()
    return killed


def partly_written(path: Path, since: float) -> list[int]:
    """Return the unmarked slabs of which a shard was written since a time."""
    store = ActivationStore.open(path)
    shards = (path / "tiny/activation/c").rglob("*/0/0/*")
    fresh = {
        int(file.name) for file in shards if file.name.isdigit() and file.stat().st_mtime >= since
    }
    return sorted(fresh & set(store.pending("tiny")))


def run(folder: Path, worlds: list[int], seed: int, made: Any) -> str:
    """Kill as often as there are worlds, finish, compare; return a summary."""
    whole, path, rng = folder / "whole.zarr", folder / "killed.zarr", random.Random(seed)
    with process.begin(whole, "break"):
        pass  # laying out takes longer than a slab
    begun = time.monotonic()
    process.write_pending(whole)
    seconds = (time.monotonic() - begun) / 12  # of a slab
    kills = hits = litter = 0
    for number, world in enumerate(worlds):
        since = time.time()
        kills += kill_one(path, folder / f"barrier{number}", world, seconds, rng)
        ActivationStore.open(path).verify()  # no marker without its data
        hits += bool(partly_written(path, since))
        litter += len(list(path.rglob("*.partial")))
        if not ActivationStore.open(path).pending("tiny"):  # begin again
            ActivationStore.open(path).verify(deep=True)
            assert made.contents(whole) == made.contents(path)
            shutil.rmtree(path)
    process.write_pending(path)
    assert made.contents(whole) == made.contents(path)
    assert 2 * hits >= len(worlds), f"only {hits} of {len(worlds)} kills were in mid-slab"
    return (
        f"{len(worlds)} rounds with {kills} SIGKILLs, 1 to {max(worlds)} ranks: {hits} left an "
        f"unmarked, partly written slab, {litter} .partial files; no marker without its data, "
        "the final store is equal bit by bit"
    )


def test_three_kills_leave_a_store_that_resumes_to_the_same_bits(tmp_path: Path, made: Any) -> None:
    print(run(tmp_path, [1, 2, 1], 0, made))


@pytest.mark.slow
def test_many_kills_leave_a_store_that_resumes_to_the_same_bits(
    tmp_path: Path, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(1)
    summary = run(tmp_path, [rng.randint(1, 3) for _ in range(24)], 2, made)
    with capsys.disabled():
        print(f"\n{summary}")


def test_the_lock_of_a_killed_capture_is_reported_and_broken_only_on_request(
    tmp_path: Path,
) -> None:
    path, barrier = tmp_path / "x.zarr", tmp_path / "barrier"
    assert kill_one(path, barrier, 1, 0, random.Random(0)) == 1
    with pytest.raises(StoreLockedError, match=r"was left by process \d+ on .*, which is gone"):
        process.begin(path, "take").__enter__()
    with process.begin(path, "break") as store:
        assert store.pending("tiny")
    assert not path.with_name("x.zarr.tiny.lock").exists()
