"""Pieces of a long job: whole or absent, sound or refused, and never those of another job."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import DiskFullError, FingerprintMismatchError, InputError
from iarmem_plugin.stages import Stages, forget

PIECE = xr.DataTree(
    xr.Dataset({"values": ("image", np.arange(50.0))}),
    children={"inner": xr.DataTree(xr.Dataset(attrs={"seed": 3}))},
)


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return Stages(tmp_path / "stages", {"seed": 0, "arms": ["a", "b"]})


def test_what_was_saved_comes_back(stages: Stages) -> None:
    assert stages.finished() == []
    for key in ("b", "a"):
        stages.save(key, PIECE)
    assert stages.finished() == ["a", "b"]
    xr.testing.assert_identical(stages.load("a"), PIECE)
    assert PIECE.attrs == {}  # what was given is left as it was


def test_a_piece_under_another_name_is_refused(stages: Stages) -> None:
    stages.save("a", PIECE)
    (stages.folder / "b.nc").write_bytes((stages.folder / "a.nc").read_bytes())
    with pytest.raises(InputError, match=r"b\.nc cannot be read \(it was written as a\.nc"):
        stages.load("b")
    xr.testing.assert_identical(stages.load("a"), PIECE)


def test_what_is_half_written_is_not_there(stages: Stages) -> None:
    stages.save("a", PIECE)
    (stages.folder / "b.nc.partial").write_bytes(b"half a file")
    assert stages.finished() == ["a"]


def test_a_full_disk_keeps_what_was_saved(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    stages.save("a", PIECE)
    monkeypatch.setattr("os.write", full)
    with pytest.raises(DiskFullError, match="make room"):
        stages.save("a", xr.DataTree())
    xr.testing.assert_identical(stages.load("a"), PIECE)


def test_killed_at_every_operation_a_piece_is_the_old_one_or_the_new_one(
    stages: Stages, faults: ModuleType
) -> None:
    stages.save("a", PIECE)
    for step in range(1, 30):
        try:
            with faults.faulty(step):
                stages.save("a", xr.DataTree())
        except faults.Death:
            assert stages.finished() == ["a"]
            assert stages.load("a").identical(PIECE) or stages.load("a").identical(xr.DataTree())
        else:
            break
        stages.save("a", PIECE)
        assert [file.name for file in stages.folder.iterdir()] == ["a.nc"]


def test_a_job_forgets_its_own_pieces_alone(stages: Stages) -> None:
    for key in ("arm-1", "rank-0"):
        stages.save(key, PIECE)
    (stages.folder / "thesis.nc").write_bytes(b"mine")
    forget(stages.folder, re.compile(r"arm-\d"))
    assert stages.finished() == ["rank-0", "thesis"]
    (stages.folder / "thesis.nc").unlink()
    for _ in range(2):
        forget(stages.folder, re.compile(r"rank-\d"))
        assert not stages.folder.exists()


def test_a_piece_of_other_settings_is_refused_and_these_are_named(stages: Stages) -> None:
    stages.save("a", PIECE)
    other = Stages(stages.folder, {"seed": 1, "arms": ["a", "b"]})
    with pytest.raises(FingerprintMismatchError, match=r"\(seed: 0 there, 1 given\)"):
        other.load("a")


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_piece_is_named_with_the_cure(stages: Stages, content: bytes) -> None:
    stages.save("a", PIECE)
    (stages.folder / "a.nc").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nc cannot be read .*--restart"):
        stages.load("a")


def test_a_setting_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a JSON value"):
        Stages(tmp_path, {"seed": np.int64(0)})
