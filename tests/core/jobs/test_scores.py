"""Scores on disk: all of a set or nothing, beside a store, and nothing of the user's touched."""

from __future__ import annotations

import errno
import json
import os
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.files import JOURNAL, is_ours, write_results
from iarmem_plugin.jobs import scores as saving
from iarmem_plugin.jobs.scores import (
    OUR_FILES,
    begin_scores,
    check_scores_folder,
    forget_progress,
    load_scores,
    save_scores,
)
from iarmem_plugin.report import figures
from iarmem_plugin.report.report import check_output_folder

MINE = {"scores-backup.nc": b"mine", "scores.nc.copy": b"mine"}


def made_by(metric: str, seed: int) -> xr.Dataset:
    score = np.random.default_rng(seed).random((2, 1, 8), np.float32)
    dims = ("block", "scale", "neuron")
    return xr.Dataset(
        {"score": (dims, score)},
        {"valid": (dims, score >= 0), "scale_name": ("scale", ["0"])},
        {"metric": metric, "provenance": json.dumps({"seed": seed})},
    )


OLD = {"unitmem": made_by("unitmem", 0), "random": made_by("random", 0)}
NEW = made_by("unitmem", 1)
IMAGES = Images.from_arrays(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, and do not wait for the disk."""
    monkeypatch.setattr(figures, "png", lambda _: b"a picture")
    for name in ("heatmap", "neurons_by_block", "histogram"):
        monkeypatch.setattr(figures, name, lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def names_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def contents_of(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir() if not is_ours(f.name)}


def test_everything_is_one_set_and_what_is_no_longer_there_goes(tmp_path: Path) -> None:
    save_scores(OLD, str(tmp_path), images=IMAGES)
    assert names_in(tmp_path) == {*OUR_FILES, "scores-random.nc"}
    save_scores(NEW, tmp_path)
    assert names_in(tmp_path) == {*OUR_FILES} - {"images.txt"}  # which named other images
    xr.testing.assert_identical(load_scores(str(tmp_path)), NEW)


@pytest.mark.parametrize("error", [None, errno.ENOSPC], ids=["killed", "full"])
def test_killed_or_full_at_any_operation_the_old_scores_or_the_new_ones_are_there(
    tmp_path: Path, faults: ModuleType, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    save_scores(OLD, tmp_path / "old", images=IMAGES)
    monkeypatch.setattr(saving, "write_results", write := Mock())
    save_scores(NEW, tmp_path / "old")
    (call,) = write.mock_calls
    old = contents_of(tmp_path / "old")
    sets, seen = [{**old, **MINE}, {**call.args[1], **MINE}], []
    for step in range(1, 100):
        out = tmp_path / f"at{step}"
        write_results(out, {**old, **MINE})
        try:
            with faults.faulty(step, error, lasting=True):
                write_results(out, *call.args[1:], **call.kwargs)
        except (faults.Death, DiskFullError):
            loaded = load_scores(out)
        else:
            break
        seen.append(sets.index(contents_of(out)))
        assert loaded.equals((OLD["unitmem"], NEW)[seen[-1]])
        write_results(out, *call.args[1:], **call.kwargs)
        assert names_in(out) == set(sets[1])
    assert set(seen) == {0, 1}
    assert seen == sorted(seen)


def test_scores_that_the_user_copied_stay(tmp_path: Path) -> None:
    save_scores(OLD, tmp_path)
    copy = (tmp_path / "scores-random.nc").read_bytes()
    (tmp_path / "scores-of-may.nc").write_bytes(copy)
    (tmp_path / "scores-damaged.nc").write_bytes(b"mine")
    save_scores(NEW, tmp_path)
    assert (tmp_path / "scores-of-may.nc").read_bytes() == copy
    assert (tmp_path / "scores-damaged.nc").read_bytes() == b"mine"
    assert not (tmp_path / "scores-random.nc").exists()


def test_scores_survive_pictures_that_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_scores(OLD, tmp_path)
    monkeypatch.setattr(figures, "png", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_scores(NEW, tmp_path)
    assert load_scores(tmp_path).equals(NEW)
    assert names_in(tmp_path) == {"scores.nc"}  # and no pictures of the scores before


# --- beside a store


def lay_out_store(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "zarr.json").write_text("{}")
    place.with_name(f"{place.name}.var-d16.lock").write_text("{}")


def test_a_store_may_lie_in_the_folder_of_the_scores(tmp_path: Path) -> None:
    store = tmp_path / "act.zarr"
    check_scores_folder(tmp_path, store)
    lay_out_store(store)
    before = names_in(tmp_path)
    save_scores(NEW, tmp_path)
    check_scores_folder(tmp_path)
    assert before <= names_in(tmp_path)


def test_a_store_that_was_killed_before_it_was_one_may_lie_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "act.zarr").mkdir()
    with pytest.raises(InputError, match=r"other files, such as 'act\.zarr'"):
        check_scores_folder(tmp_path)
    check_scores_folder(tmp_path, tmp_path / "act.zarr")
    monkeypatch.chdir(tmp_path.parent)
    check_scores_folder(Path(tmp_path.name), tmp_path / "act.zarr")


@pytest.mark.parametrize("store", [".", "scores.nc", "progress", "progress/a", "deep/a.zarr", ".."])
def test_a_store_in_the_way_of_the_scores_is_refused_before_the_work(
    tmp_path: Path, store: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"in each other's way.*activations\.zarr"):
        begin_scores(out, store=out / store)
    assert not out.exists()


def test_a_store_beside_the_folder_is_fine(tmp_path: Path) -> None:
    check_scores_folder(tmp_path / "out", tmp_path / "act.zarr")


# --- what is not ours


def test_links_under_names_of_temporary_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / f".iarmem-{'0' * 16}.partial").symlink_to(tmp_path / "victim")
    save_scores(NEW, out)
    assert (tmp_path / "victim").read_text() == "mine"
    assert load_scores(out).equals(NEW)


@pytest.mark.parametrize("name", OUR_FILES)
def test_files_of_our_names_without_scores_of_ours_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    for write in (check_scores_folder, begin_scores, partial(save_scores, NEW)):
        with pytest.raises(InputError, match=f"holds '{name}', but no scores of ours"):
            write(tmp_path)
    assert contents_of(tmp_path) == {name: b"mine"}


def test_another_metrics_file_that_is_not_ours_stays(tmp_path: Path) -> None:
    save_scores(NEW, tmp_path)
    (tmp_path / "scores-random.nc").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds 'scores-random\.nc'"):
        save_scores(OLD, tmp_path)
    assert (tmp_path / "scores-random.nc").read_bytes() == b"mine"


def test_links_of_our_names_are_refused(tmp_path: Path) -> None:
    save_scores(NEW, tmp_path / "before")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.nc").symlink_to(tmp_path / "before" / "scores.nc")
    with pytest.raises(InputError, match="is a link, and would be replaced"):
        save_scores(NEW, tmp_path / "out")


@pytest.mark.parametrize("option", ["--images", "--classes"])
def test_what_is_read_is_not_replaced(tmp_path: Path, option: str) -> None:
    save_scores(NEW, tmp_path, images=IMAGES)
    other = tmp_path / ".." / tmp_path.name / "images.txt"
    with pytest.raises(InputError, match=rf"{option} .*would be replaced by the images\.txt"):
        check_scores_folder(tmp_path, sources={"--image-root": None, option: other})
    check_scores_folder(tmp_path, sources={option: tmp_path.parent / "images.txt"})


def test_an_unfinished_runs_states_go_and_other_files_in_their_folder_stay(tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    progress.mkdir()
    for name in ("rank-0.nc", "rank-1.nc", "arm-0123456789abcdef.nc", "thesis.nc", "notes.txt"):
        (progress / name).write_text("x")
    forget_progress(tmp_path)
    assert names_in(progress) == {"arm-0123456789abcdef.nc", "thesis.nc", "notes.txt"}


def test_a_folder_where_a_name_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "heatmap.png").mkdir()
    with pytest.raises(InputError, match="move it"):
        check_scores_folder(tmp_path)
    (tmp_path / "heatmap.png").rmdir()
    (tmp_path / "progress").write_text("mine")
    for check in (check_scores_folder, check_output_folder):
        with pytest.raises(InputError, match="progress is a file"):
            check(tmp_path)


def test_a_journal_that_cannot_be_read_is_named_by_who_reads_scores(tmp_path: Path) -> None:
    save_scores(NEW, tmp_path)
    (tmp_path / JOURNAL).write_text("{")
    with pytest.raises(InputError, match=JOURNAL):
        load_scores(tmp_path / "scores.nc")
