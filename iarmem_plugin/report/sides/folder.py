"""Folders into which comparisons are written, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from iarmem_plugin.disk import Content
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_results, is_ours, write_results


def check_folder(folder: Path, files: Sequence[str], *, holding: str = "comparison") -> None:
    """Refuse a folder that holds other files; ask before the work.

    Args:
        folder: folder to write.
        files: all files that may be written; the first is in every folder that was.
        holding: what is written, in a word.

    Raises:
        InputError: it is a file, cannot be made, or holds files and not the first of these.
    """
    check_results(folder, files)
    if not folder.exists() or (folder / files[0]).is_file():
        return
    if others := [one.name for one in folder.iterdir() if not is_ours(one.name)]:
        raise InputError(
            f"{folder} holds other files, such as {min(others)!r}, and no {files[0]}; name a new "
            f"or empty folder, or one that holds an earlier {holding}"
        )


def write_folder(folder: Path, contents: Mapping[str, Content], files: Sequence[str]) -> Path:
    """Write a comparison in place of an earlier one: all of it, or nothing.

    Returns:
        the folder.

    Raises:
        InputError: see `check_folder`.
        DiskFullError: there is no room; what was there stays.
    """
    check_folder(folder, files)
    write_results(folder, contents, remove=files)
    return folder
