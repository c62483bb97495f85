"""Whole commands that are killed at any moment: nothing torn, nothing lost, no litter.

``IARMEM_KILLS`` says how many kills there are; 200 by default.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import is_ours
from iarmem_plugin.jobs.scores import load_scores
from iarmem_plugin.report.report import Report
from iarmem_plugin.store.store import ActivationStore

KILLS = int(os.environ.get("IARMEM_KILLS", "200"))
SIZES = ("--views", "1", "--batch-size", "2", "--slab", "2")
Run = dict[str, object]


class Server:
    """A process that runs commands, and kills them on request; see ``kill_server.py``."""

    def __init__(self, log: Path) -> None:
        script = Path(__file__).with_name("kill_server.py")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, runs: list[Run], after: float | None = None) -> tuple[list[int], float]:
        """Run commands at once, and kill them after some seconds; return how they ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"runs": runs, "after": after}), file=self._process.stdin, flush=True)
        states, seconds = json.loads(self._process.stdout.readline())
        return states, seconds

    def close(self) -> None:
        """End it; the commands have ended before."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()


def alone(*words: str | Path) -> list[Run]:
    return [{"words": list(map(str, words)), "environment": {}}]


def shared(*words: str | Path) -> list[Run]:
    """Return a command for two processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [{"words": list(map(str, words)), "environment": {**world, **one}} for one in ranks]


@dataclass(frozen=True)
class Job:
    """A command, and what is to be seen of it afterwards.

    Attributes:
        begin: lays out a folder in which it is run.
        runs: gives the command, for a folder.
        check: refuses results that are torn; what is not there is not torn.
        rest: names in the folder after it has ended well.
        finish: gives what mends a kill; the same command where it is None.
    """

    begin: Callable[[Path], None]
    runs: Callable[[Path], list[Run]]
    check: Callable[[Path], bool]
    rest: set[str]
    finish: Callable[[Path], list[Run]] | None = None


def names_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield one
    one.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A folder with pictures, a store, its scores, and a report, of commands left in peace."""
    folder, noise = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    for number in range(6):
        place = folder / "images" / str(number % 3) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(place)
    jobs = jobs_on(folder)
    for name in ("store", "mitigate"):
        states, _ = server.run(jobs[name].runs(folder))
        assert states == [0], server.log.read_text()
    shutil.copytree(folder / "out", folder / "scores")
    return folder


def jobs_on(whole: Path) -> dict[str, Job]:
    """Return the commands to kill, by name; ``store`` and ``mitigate`` make what is expected."""
    images = ("--images", whole / "images")
    localize = ("localize", "var-organism", *images, *SIZES, "--out")
    mitigate = ("mitigate", "var-organism", *images, "--random-sets", "1", "--per-class", "1")

    def scored(folder: Path) -> bool:
        with suppress(InputError):
            xr.testing.assert_allclose(load_scores(folder / "out"), load_scores(whole / "out"))
            return True
        assert not (folder / "out" / "scores.nc").exists()
        return False

    def stored(folder: Path) -> bool:
        store = folder / "act.zarr"
        if (store / "zarr.json").exists():
            ActivationStore.open(store).verify()  # no marker without its data
        done = scored(folder)
        assert not done or contents(store) == contents(whole / "act.zarr")
        return done

    def reported(folder: Path) -> bool:
        with suppress(InputError):
            found, expected = Report.load(folder / "report"), Report.load(whole / "report")
            assert found.to_dict()["arms"] == expected.to_dict()["arms"]
            xr.testing.assert_identical(found.extraction, expected.extraction)
            return True
        assert not (folder / "report" / "report.json").exists()
        return False

    def saved(folder: Path) -> bool:
        assert reported(folder)
        xr.testing.assert_identical(load_scores(folder / "scores"), load_scores(whole / "out"))
        return True

    def nothing(_: Path) -> None:
        pass

    def copies(*names: str) -> Callable[[Path], None]:
        def begin(folder: Path) -> None:
            for name in names:
                shutil.copytree(whole / name, folder / name)

        return begin

    def kept(folder: Path) -> tuple[str | Path, ...]:
        return (*localize, folder / "out", "--store", folder / "act.zarr", "--break-lock")

    both = {"out", "act.zarr"}
    return {
        "mitigate": Job(
            nothing,
            lambda at: alone(*mitigate, "--scores", whole / "out", "--out", at / "report"),
            reported,
            {"report"},
        ),
        "saving": Job(
            copies("scores", "report"),
            lambda at: alone("save", whole, at),
            saved,
            {"scores", "report"},
        ),
        "invalidate": Job(
            copies("act.zarr"),
            lambda at: alone("store", "invalidate", at / "act.zarr", "--slab", "1", "--slab", "2"),
            stored,
            both,
            lambda at: alone(*kept(at)),
        ),
        "two ranks, a store": Job(nothing, lambda at: shared(*kept(at)), stored, both),
        "stream": Job(nothing, lambda at: alone(*localize, at / "out"), scored, {"out"}),
        "two ranks": Job(nothing, lambda at: shared(*localize, at / "out"), scored, {"out"}),
        "store": Job(nothing, lambda at: alone(*kept(at)), stored, both),
        "again": Job(copies("act.zarr", "out"), lambda at: alone(*kept(at)), stored, both),
    }


def litter(folder: Path) -> list[str]:
    """Return names that no good run leaves."""
    return [
        str(path)
        for path in folder.rglob("*")
        if is_ours(path.name) or path.suffix in (".partial", ".lock") or path.name == "progress"
    ]


@pytest.mark.slow
def test_whatever_is_killed_nothing_is_torn_lost_or_left_behind(
    whole: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, chance, kills, rounds = jobs_on(whole), random.Random(0), 0, 0
    seconds: dict[str, float] = {}
    while kills < KILLS:
        name, job = list(jobs.items())[rounds % len(jobs)]
        folder, rounds = tmp_path / str(rounds), rounds + 1
        folder.mkdir()
        job.begin(folder)
        for _ in range(1 if job.finish or 3 * len(jobs) > KILLS else 3):
            states, _ = server.run(
                job.runs(folder), chance.uniform(0, 1 if job.finish else seconds.get(name, 3))
            )
            kills += states.count(-9)
            assert -9 in states or {*states} == {0}, server.log.read_text()[-3000:]
            job.check(folder)
        states, seconds[name] = server.run((job.finish or job.runs)(folder))
        assert {*states} == {0}, server.log.read_text()[-3000:]
        assert job.check(folder)
        assert litter(folder) == []
        assert names_in(folder) == job.rest
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{kills} SIGKILLs in {rounds} rounds: 0 torn, 0 lost, 0 litter")
