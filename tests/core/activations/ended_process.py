"""``iarmem`` in a process that is ended once so many of its results are in place; a program.

``python ended_process.py FOLDER PATTERN COUNT SIGNAL ARGUMENT…`` runs ``iarmem ARGUMENT…`` and
sends the signal to its group (of torchrun's processes each has its own) when another file is about
to be renamed to one that fits the pattern, and the folder holds so many of these. No clock has a
part in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def end_at(folder: Path, pattern: str, count: int, number: int) -> None:
    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event != "os.rename" or not Path(str(arguments[1])).match(pattern):
            return
        if sum(file.suffix != ".partial" for file in folder.glob(pattern)) >= count:
            os.killpg(0, number)

    sys.addaudithook(watch)


if __name__ == "__main__":
    folder, pattern, count, number = sys.argv[1:5]
    end_at(Path(folder), pattern, int(count), int(number))
    sys.argv[1:] = sys.argv[5:]
    from iarmem_plugin.cli import app

    app()
