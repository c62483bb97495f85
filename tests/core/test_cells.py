"""Cells: each done once by whoever comes first, and taken over from the dead."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.stages import Cell, Cells, forget_cells
from iarmem_plugin.stages.claims import Claims
from iarmem_plugin.stages.owner import Owner

RACES = int(os.environ.get("IARMEM_RACES", "1000"))
RACERS = 4


def cell(number: int, stage: str = "losses") -> Cell:
    return Cell(stage, f"arm {number}", {"number": number, "model": "tiny"})


def tree(one: Cell) -> xr.DataTree:
    return xr.DataTree(xr.Dataset({"value": ("image", np.arange(3) + one.inputs["number"])}))


def test_cells_are_done_in_their_order_and_come_back(tmp_path: Path) -> None:
    cells, asked = Cells(tmp_path / "cells"), list[str]()

    def make(one: Cell) -> xr.DataTree:
        asked.append(one.name)
        return tree(one)

    work = [cell(number) for number in range(3)]
    assert cells.fill(work, make) == {}
    assert asked == ["arm 0", "arm 1", "arm 2"]
    assert cells.load(work[2])["value"].values.tolist() == [2, 3, 4]
    assert Cells(tmp_path / "cells").fill([*work, cell(3)], make) == {}
    assert asked[3:] == ["arm 3"]  # what is there is not done again
    assert list((tmp_path / "cells" / "claims").iterdir()) == []


def test_a_cell_is_known_by_its_stage_and_all_its_inputs() -> None:
    assert cell(1).key == Cell("losses", "another name", {"model": "tiny", "number": 1}).key
    assert len({cell(1).key, cell(2).key, cell(1, "images").key}) == 3


def test_one_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    def make(one: Cell) -> xr.DataTree:
        if one.name == "arm 1":
            raise ValueError("no such thing\nas this")
        return tree(one)

    cells, work = Cells(tmp_path), [cell(number) for number in range(3)]
    failed = cells.fill(work, make)
    assert list(failed) == [work[1].key]
    assert failed[work[1].key].error.startswith("ValueError: no such thing")
    assert "in make" in failed[work[1].key].traceback
    said = json.loads((tmp_path / f"{work[1].key}.failed.json").read_text())
    assert (said["stage"], said["name"]) == ("losses", "arm 1")
    assert [cells.done(one) for one in work] == [True, False, True]
    # a worker that began before does not try it again, one that begins afterwards does
    assert cells.failure(work[1]) is not None
    os.utime(tmp_path / f"{work[1].key}.failed.json", (0, 0))
    later = Cells(tmp_path)
    assert later.failure(work[1]) is None
    assert later.fill(work, tree) == {}
    assert not (tmp_path / f"{work[1].key}.failed.json").exists()


def test_a_worker_does_not_try_what_another_found_to_fail(tmp_path: Path) -> None:
    first, second = Cells(tmp_path), Cells(tmp_path)
    second.fill([], tree)  # it has begun

    def refuse(one: Cell) -> xr.DataTree:
        raise ValueError(one.name)

    first.fill([cell(1)], refuse)
    failed = second.fill([cell(1)], tree)
    assert [one.error for one in failed.values()] == ["ValueError: arm 1"]


def test_a_full_disk_ends_the_work_and_gives_the_claim_back(tmp_path: Path) -> None:
    def full(one: Cell) -> xr.DataTree:
        raise DiskFullError(errno.ENOSPC, "the disk is full")

    cells = Cells(tmp_path)
    with pytest.raises(DiskFullError):
        cells.fill([cell(1)], full)
    assert cells.fill([cell(1)], tree) == {}


def test_one_raises_what_cannot_be_made(tmp_path: Path) -> None:
    def refuse(one: Cell) -> xr.DataTree:
        raise InputError("no")

    cells = Cells(tmp_path)
    with pytest.raises(InputError, match="no"):
        cells.one(cell(1), refuse)
    assert cells.one(cell(1), tree)["value"].values.tolist() == [1, 2, 3]


def test_what_a_living_worker_has_is_waited_for(tmp_path: Path) -> None:
    first, second, order = Cells(tmp_path), Cells(tmp_path), list[str]()
    begun = threading.Event()

    def slowly(one: Cell) -> xr.DataTree:
        begun.set()
        time.sleep(0.3)
        order.append("first")
        return tree(one)

    def never(one: Cell) -> xr.DataTree:
        order.append("second")
        return tree(one)

    worker = threading.Thread(target=lambda: first.fill([cell(1)], slowly))
    worker.start()
    begun.wait()
    assert second.fill([cell(1)], never) == {}
    worker.join()
    assert order == ["first"]


def test_a_worker_that_waits_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("iarmem_plugin.stages.cells.EVERY", 0.0)
    cells, held, done = Cells(tmp_path), threading.Event(), threading.Event()

    def hold() -> None:
        with cells.claims.taken(cell(1).key):
            held.set()
            done.wait(30)

    worker = threading.Thread(target=hold)
    worker.start()
    assert held.wait(30)  # or the other worker may come first, and wait for nobody
    threading.Timer(0.5, done.set).start()
    Cells(tmp_path).fill([cell(1)], tree)
    worker.join()
    said = f"waiting for the losses of arm 1, which process {os.getpid()} on "
    assert any(line.startswith(said) for line in caplog.messages)


def test_the_claim_of_a_killed_worker_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path;"
        "from iarmem_plugin.stages.claims import Claims;"
        "taken = Claims(Path(sys.argv[1])).taken('piece'); assert taken.__enter__();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert [one.name for one in tmp_path.iterdir()] == ["piece.0"]
    with Claims(tmp_path).taken("piece") as mine:
        assert mine
        assert sorted(one.name for one in tmp_path.iterdir()) == ["piece.0", "piece.1"]
        with Claims(tmp_path).taken("piece") as theirs:
            assert not theirs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("silent", "free"), [(0, False), (1000, True)])
def test_a_worker_elsewhere_is_dead_after_a_long_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: int, free: bool
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        claims = Claims(tmp_path)
        assert claims._take("piece") is not None
    then = time.time() - silent
    os.utime(tmp_path / "piece.0", (then, then))
    with Claims(tmp_path, patience=600.0).taken("piece") as mine:
        assert mine is free


def test_a_worker_shows_that_it_lives(tmp_path: Path) -> None:
    with Claims(tmp_path, patience=0.2).taken("piece"):
        os.utime(tmp_path / "piece.0", (0, 0))
        end = time.monotonic() + 30
        while (tmp_path / "piece.0").stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert (tmp_path / "piece.0").stat().st_mtime > 0


def test_a_disk_without_links_has_claims_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with Claims(tmp_path).taken("piece") as mine, Claims(tmp_path).taken("piece") as theirs:
        assert (mine, theirs) == (True, False)
    assert list(tmp_path.iterdir()) == []


def test_forgetting_leaves_what_is_not_ours(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "cells")
    cells.fill([cell(1)], tree)
    (tmp_path / "cells" / "notes.txt").write_text("mine")
    forget_cells(tmp_path / "cells")
    assert [one.name for one in (tmp_path / "cells").iterdir()] == ["notes.txt"]
    (tmp_path / "cells" / "notes.txt").unlink()
    forget_cells(tmp_path / "cells")
    assert not (tmp_path / "cells").exists()
    forget_cells(tmp_path / "cells")


def race(folder: str, races: int, barrier: object, won: object) -> None:
    """Try to take each piece at the same moment as the others; hold it until all have tried."""
    claims = Claims(Path(folder))
    for number in range(races):
        barrier.wait()  # type: ignore[attr-defined]  # a Barrier of processes
        with claims.taken(f"piece-{number}") as mine:
            if mine:
                won[number] += 1  # type: ignore[index]  # an Array of processes
            barrier.wait()  # type: ignore[attr-defined]


@pytest.mark.parametrize("dead", [False, True], ids=["free", "of a dead worker"])
def test_of_many_who_race_for_a_piece_one_wins(tmp_path: Path, dead: bool) -> None:
    races = RACES // 2
    if dead:
        gone = Owner("elsewhere", 1, "long ago")
        for number in range(races):
            file = tmp_path / f"piece-{number}.0"
            file.write_text(json.dumps({"host": gone.host, "pid": gone.pid, "since": gone.since}))
            os.utime(file, (0, 0))
    fork = multiprocessing.get_context("fork")
    barrier, won = fork.Barrier(RACERS), fork.Array("i", races)
    racers = [
        fork.Process(target=race, args=(str(tmp_path), races, barrier, won)) for _ in range(RACERS)
    ]
    for one in racers:
        one.start()
    for one in racers:
        one.join()
    assert [one.exitcode for one in racers] == [0] * RACERS
    assert list(won) == [1] * races
    assert list(tmp_path.iterdir()) == []
