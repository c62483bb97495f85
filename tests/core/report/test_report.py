"""The report as a folder: written whole or not at all, and read again as it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.files import JOURNAL, is_ours, write_results
from iarmem_plugin.report import figures as plots
from iarmem_plugin.report import page
from iarmem_plugin.report import report as saving
from iarmem_plugin.report.report import FIGURES, FILES, Report, check_output_folder
from iarmem_plugin.report.results import CapturedImage


def test_arms_of_another_order_than_the_extraction_are_refused(report: Report) -> None:
    with pytest.raises(InputError, match="'original' first"):
        replace(report, arms=report.arms[::-1])


def test_the_captured_images_are_listed(report: Report, tmp_path: Path) -> None:
    listed = (CapturedImage('a, b/"c".png', 3, 7), CapturedImage("=sum.png", -1, None))
    folder = replace(report, captured=listed).save(tmp_path / "report")
    lines = (folder / "captured_images.csv").read_text().splitlines()
    assert lines == ["image,label,path", '7,3,"a, b/""c"".png"', ",-1,=sum.png"]
    assert Report.load(folder).captured == listed
    (folder / "captured_images.csv").write_text("path\na.png\n")
    with pytest.raises(InputError, match=r"damaged.*captured_images\.csv"):
        Report.load(folder)
    report.save(folder)  # whose images are not known
    assert not (folder / "captured_images.csv").exists()


def test_the_folder_holds_every_file(folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    drawn = {
        "extraction_by_group", "extraction_against_quality", "heatmap", "neurons_by_block",
        "histogram", "selected_by_block", "sums_by_block", "neurons_sorted",
    }  # fmt: skip
    files = {"report.json", "report.html"}
    files |= {"extraction.nc", "scores.nc", "neurons.nc", "gallery.nc"}
    tables = {
        "arms", "neurons_by_block", "outcomes", "paired", "quality", "scores_by_block",
        "thresholds",
    }  # fmt: skip
    files |= {f"tables/{name}.csv" for name in tables}
    assert found == files | {f"figures/{name}.png" for name in drawn}


def test_scores_and_neurons_come_back_from_their_files(report: Report, folder: Path) -> None:
    with xr.open_dataset(folder / "scores.nc", engine="h5netcdf") as scores:
        xr.testing.assert_equal(scores["score"], report.scores["score"])
        assert scores["valid"].dtype == bool
        assert json.loads(scores.attrs["settings"]) == {"views": 10}
    with xr.open_dataset(folder / "neurons.nc", engine="h5netcdf") as neurons:
        assert report.neurons is not None
        assert np.array_equal(neurons["neurons"].values, report.neurons.values)


def test_a_failing_figure_leaves_nothing_behind(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(figure: object) -> bytes:
        raise RuntimeError("no ink")

    monkeypatch.setattr(plots, "png", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        report.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_file_leaves_the_earlier_report_as_it_was(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = report.save(tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        report.save(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_earlier_report_is_replaced_and_other_files_stay(report: Report, tmp_path: Path) -> None:
    out = report.save(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    replace(report, model="var-d16", neurons=None).save(out)
    assert json.loads((out / "report.json").read_text())["model"] == "var-d16"
    assert not (out / "neurons.nc").exists()
    assert not (out / "figures" / "selected_by_block.png").exists()
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"schema": 1}', "[]", "no json", None])
def test_a_folder_that_is_not_ours_is_refused(
    report: Report, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="not overwritten"):
        report.save(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="not overwritten"):
        check_output_folder(tmp_path / "out")


def test_an_empty_folder_is_used(report: Report, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (report.save(tmp_path / "out") / "report.json").exists()


def test_the_folder_can_be_read_by_whom_any_new_folder_can(report: Report, tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    out = report.save(tmp_path / "out")
    assert out.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_report_without_quality_pictures_and_neurons_can_be_saved(
    report: Report, tmp_path: Path
) -> None:
    arms = tuple(replace(arm, quality=()) for arm in report.arms)
    bare = replace(report, arms=arms, gallery=(), neurons=None)
    out = bare.save(tmp_path / "bare")
    assert (
        "Neither the held-out loss nor image quality was measured"
        in (out / "report.html").read_text()
    )
    assert not (out / "figures" / "extraction_against_quality.png").exists()


@pytest.fixture
def drawn_once(report: Report, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a report's figures and page from its folder, since only its files matter."""
    drawn = {file.stem: file.read_bytes() for file in (folder / "figures").iterdir()}
    missing = {"outcomes_against_loss", "recovery"}  # it has no losses, and no triggers were tried
    assert {*drawn, *missing} == set(FIGURES)
    less = {name: one for name, one in drawn.items() if name != "selected_by_block"}
    monkeypatch.setattr(page, "figures", lambda one: less if one.neurons is None else drawn)
    monkeypatch.setattr(page, "render", lambda one, _: f"a page of {one.model}")
    monkeypatch.setattr(os, "fsync", lambda _: None)


Write = Callable[[Path], None]


def writes(one: Report) -> Write:
    """Return what the end of `save` does, so that it can be done many times."""
    given: list[tuple[object, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            saving, "write_results", lambda *files, remove: given.append((*files, remove))
        )
        one.save("new")
    ((_, contents, remove),) = given
    return lambda folder: write_results(folder, contents, remove=remove)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("error", [None, errno.ENOSPC], ids=["killed", "full"])
def test_killed_or_full_at_any_operation_a_folder_holds_the_old_report_or_the_new_one(
    report: Report, tmp_path: Path, faults: ModuleType, error: int | None
) -> None:
    old, new = writes(report), writes(replace(report, model="var-d16", neurons=None))
    mine = {"notes.txt": b"mine", "figures/mine.png": b"mine", "scores.nc.partial": b"mine"}
    sets, seen = [], []
    for write in (old, new):
        write(tmp_path / "whole")
        sets.append({**files_of(tmp_path / "whole"), **mine})
    for step in range(1, 200):
        out = tmp_path / f"at{step}"
        old(out)
        for name, content in mine.items():
            (out / name).write_bytes(content)
        try:
            with faults.faulty(step, error, lasting=True):
                new(out)
        except (faults.Death, DiskFullError):
            check_output_folder(out)  # of the next run
            found = {name: one for name, one in files_of(out).items() if not is_ours(name)}
        else:
            break
        seen.append(sets.index(found))
        new(out)
        assert files_of(out) == sets[1]
    assert set(seen) == {0, 1}
    assert seen == sorted(seen)


@pytest.mark.usefixtures("drawn_once")
def test_a_report_that_was_killed_in_the_middle_is_finished_by_who_reads_it(
    report: Report, tmp_path: Path, faults: ModuleType
) -> None:
    old, new = writes(report), writes(replace(report, model="var-d16", neurons=None))
    old(tmp_path / "counted")
    with faults.faulty(10**9) as counted:
        new(tmp_path / "counted")
    shutil.rmtree(tmp_path / "counted")
    old(tmp_path)
    with pytest.raises(faults.Death), faults.faulty(counted.count - 20):  # while names change
        new(tmp_path)
    assert JOURNAL in os.listdir(tmp_path)
    found = Report.load(tmp_path)
    assert (found.model, found.neurons) == ("var-d16", None)
    lacking = {"neurons.nc", "figures/selected_by_block.png", "calibration.nc", "quality.nc"}
    lacking |= {"captured_images.csv", "figures/outcomes_against_loss.png", "membership.nc"}
    lacking |= {"recovery.nc", "figures/recovery.png", "depth.nc", "tables/depth.csv"}
    lacking |= {"tables/membership.csv", "tables/membership_sets.csv"}
    absent = (
        "losses",
        "dropped",
        "failed",
        "neurons_by_block",
        "evidence",
        "hypotheses",
        "recovery",
    )
    lacking |= {f"tables/{one}.csv" for one in absent}
    assert set(files_of(tmp_path)) == {*FILES} - lacking


@pytest.mark.usefixtures("drawn_once")
def test_the_folder_stays_the_one_that_it_was(report: Report, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    before = out.stat()
    report.save(out)
    (out / "report.html").chmod(0o640)
    report.save(out)
    assert (out.stat().st_ino, out.stat().st_mode) == (before.st_ino, before.st_mode)
    assert (out / "report.html").stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("drawn_once")
def test_the_current_folder_can_hold_the_report(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        check_output_folder(".")
        report.save(".")
        assert Path("report.json").exists()  # still the current one


@pytest.mark.parametrize("name", ["report.json", "figures/heatmap.png", "figures"])
def test_a_folder_in_which_a_name_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "out" / name
    place.parent.mkdir(parents=True)
    if name == "figures":
        place.write_text("mine")
    else:
        place.mkdir()
    with pytest.raises(InputError, match="move it"):
        check_output_folder(tmp_path / "out")


def test_pictures_of_the_users_alone_are_no_report(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    check_output_folder(tmp_path)  # a killed run may have made it
    (tmp_path / "figures" / "heatmap.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="not overwritten"):
        check_output_folder(tmp_path)


def assert_equal(found: Report, expected: Report) -> None:
    assert (found.model, found.arms) == (expected.model, expected.arms)
    assert found.provenance == {**expected.provenance, "loss": None}  # NaN, as JSON has it
    xr.testing.assert_identical(found.scores, expected.scores)
    xr.testing.assert_identical(found.extraction, expected.extraction)
    assert [row.path for row in found.gallery] == [row.path for row in expected.gallery]
    assert [row.group for row in found.gallery] == [row.group for row in expected.gallery]
    for row, other in zip(found.gallery, expected.gallery, strict=True):
        np.testing.assert_array_equal(row.target, other.target)
        assert (row.original is None) == (other.original is None)
        assert list(row.completions) == list(other.completions)
        for (pixels, *said), (wanted, *told) in zip(
            row.completions.values(), other.completions.values(), strict=True
        ):
            np.testing.assert_array_equal(pixels, wanted)
            assert said == told


def test_what_was_written_is_read_as_it_was(report: Report, folder: Path) -> None:
    found = Report.load(folder)
    assert_equal(found, report)
    assert report.neurons is not None
    assert found.neurons is not None
    xr.testing.assert_equal(found.neurons, report.neurons)
    np.testing.assert_array_equal(found.gallery[0].original, report.gallery[0].original)


def test_what_was_read_is_written_as_it_was(folder: Path, tmp_path: Path) -> None:
    Report.load(folder).save(tmp_path / "again")
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").rglob("*.*")}
    before = {path.name: path.read_bytes() for path in folder.rglob("*.*")}
    assert again.pop("report.html") != before.pop("report.html")  # NaN in the provenance
    assert again == before


def test_pictures_of_several_sizes_and_none_come_back(report: Report, tmp_path: Path) -> None:
    (row,) = report.gallery
    small = replace(row, path="small.png", target=row.target[:5, :7], original=None)
    bare = replace(report, gallery=(row, small), neurons=None)
    found = Report.load(bare.save(tmp_path / "several"))
    assert_equal(found, bare)
    assert found.neurons is None
    none = replace(bare, gallery=())
    assert Report.load(none.save(tmp_path / "none")).gallery == ()


@pytest.mark.parametrize("content", ['{"schema": 1}', "[]", "no json", None])
def test_a_folder_without_a_report_is_not_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match=r"holds no report\.json of schema 1.*; give the folder"):
        Report.load(tmp_path)


def damage(folder: Path, name: str) -> None:
    """Break one file of a report: take it away, cut it, or let it say something else."""
    file = folder / "report.json"
    document = json.loads(file.read_text())
    match name:
        case "a file less":
            (folder / "scores.nc").unlink()
        case "a file cut short":
            content = (folder / "extraction.nc").read_bytes()
            (folder / "extraction.nc").write_bytes(content[: len(content) // 2])
        case "no netCDF":
            (folder / "gallery.nc").write_text("no netCDF")
        case "another count":
            document["arms"][1]["extraction"]["canary 1360"]["extracted"] += 1
        case "another sum":
            document["scores"]["by_block_and_scale"][0][0] += 0.5
        case "an arm less":
            del document["arms"][-1]
        case "an arm without its selector":
            del document["arms"][1]["selector"]
        case "a scores file of another model":
            other = xr.load_dataset(folder / "scores.nc", engine="h5netcdf").isel(block=[0, 1])
            other.to_netcdf(folder / "scores.nc", engine="h5netcdf")
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "name",
    [
        "a file less",
        "a file cut short",
        "no netCDF",
        "another count",
        "another sum",
        "an arm less",
        "an arm without its selector",
        "a scores file of another model",
    ],
)
def test_a_damaged_report_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy, name)
    with pytest.raises(InputError, match=r"the report in .*copy is damaged \(.*copy the whole"):
        Report.load(copy)
