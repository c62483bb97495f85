"""A place that cannot be written is refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_writable
from iarmem_plugin.jobs.scores import check_scores_folder
from iarmem_plugin.report.report import check_output_folder


@pytest.mark.parametrize("check", [check_writable, check_scores_folder, check_output_folder])
def test_a_folder_below_a_file_is_refused(tmp_path: Path, check: object) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file is a file"):
        check(tmp_path / "file" / "deep" / "out")  # type: ignore[operator]  # one of three


def test_a_folder_that_may_not_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the superuser may write anywhere
    with pytest.raises(InputError, match="may not be written to"):
        check_writable(tmp_path / "out")


def test_a_new_folder_in_a_new_folder_is_fine(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_the_current_folder_is_not_replaced_by_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="current folder"):
        check_output_folder(".")
