"""Workers that are killed at any moment, more or fewer of them, and one table in the end.

``IARMEM_COMPARE_KILLS`` says how many kills there are; 50 by default.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iarmem_plugin.report.report import DATASETS, PROGRESS, Report

from .test_kills import Server, alone

KILLS = int(os.environ.get("IARMEM_COMPARE_KILLS", "50"))
KILLS_A_ROUND = 6
PLAN = """
[model]
name = "var-organism"
[pictures]
candidates = "tried"
held-out = "held-out"
[attack]
few-held-out = true
batch-size = 4
[[grid]]
selectors = ["weight-norm", "gradient-weight"]
fractions = [0.05, 0.1]
random-sets = 3
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield one
    one.close()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan beside its pictures."""
    folder, noise = tmp_path_factory.mktemp("plan"), np.random.default_rng(0)
    for name, count in (("tried", 6), ("held-out", 6)):
        for number in range(count):
            file = folder / name / str(number % 2) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    (folder / "plan.toml").write_text(PLAN)
    return folder / "plan.toml"


def contents(folder: Path) -> dict[str, bytes]:
    """Return all numbers of a report."""
    found = {name: folder / name for name in DATASETS}
    document = json.loads((folder / "report.json").read_text())
    kept = {name: file.read_bytes() for name, file in found.items() if file.exists()}
    return kept | {"report.json": json.dumps(document, sort_keys=True).encode()}


@pytest.mark.slow
def test_whoever_is_killed_the_table_is_the_same_bit_for_bit(
    server: Server, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def workers(out: Path, count: int) -> list[dict[str, object]]:
        return alone("compare", plan, "--out", out) * count

    states, seconds = server.run(workers(tmp_path / "whole", 1))
    assert states == [0], server.log.read_text()[-3000:]
    expected, chance, kills, rounds = contents(tmp_path / "whole"), random.Random(0), 0, 0
    while kills < KILLS:
        out, rounds = tmp_path / f"round {rounds}", rounds + 1
        for _ in range(KILLS_A_ROUND):
            count = chance.choice((1, 2, 3))
            states, _ = server.run(workers(out, count), chance.uniform(0, seconds / 2))
            kills += states.count(-9)
            assert {*states} <= {0, -9}, server.log.read_text()[-3000:]
        states, _ = server.run(workers(out, chance.choice((1, 2))))
        assert {*states} == {0}, server.log.read_text()[-3000:]
        assert contents(out) == expected
        assert list((out / PROGRESS / "claims").iterdir()) == []
        assert len(Report.load(out).arms) == 1 + 2 * 2 + 2 * 3
        shutil.rmtree(out)
    with capsys.disabled():
        print(f"\n{kills} SIGKILLs in {rounds} rounds: the same table bit for bit")
