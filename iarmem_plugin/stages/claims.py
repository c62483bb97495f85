"""Claims: which worker does which piece, so that two never do the same, and none waits for a dead.

A claim is a file of its own that is made as a whole or not at all; whoever makes it has the piece.
A claim is never replaced: the piece of a dead worker is taken over by a claim of the next number,
which only one can make. So there is no moment at which a living claim could be removed by mistake.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from iarmem_plugin.disk import TEMPORARY, new_name, put
from iarmem_plugin.errors import InputError
from iarmem_plugin.stages.owner import Owner
from iarmem_plugin.untrusted import read_small

CLAIM = re.compile(r"(?P<key>[\w-]+)\.(?P<number>\d{1,9})")
PATIENCE = 600.0
"""Seconds without a sign of life after which a worker on another machine counts as dead."""
_SIGNS = 10  # of life, in that time
_LIMIT = 65_536  # bytes of a claim; ours have two hundred
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Claims:
    """The claims in a folder that workers share, be it over a network.

    Args:
        folder: folder of the claims and nothing else; made where it is missing.
        patience: seconds without a sign of life after which a worker on another machine counts as
            dead; on this machine its process is looked at.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        self.folder, self.patience = folder, patience

    def __repr__(self) -> str:
        """Return the folder."""
        return f"Claims({str(self.folder)!r})"

    @contextmanager
    def taken(self, key: str) -> Iterator[bool]:
        """Take a piece for as long as the block lasts, and give it back.

        Args:
            key: name of the piece.

        Yields:
            False where another worker has it, which lives or may live.
        """
        file = self._take(key)
        if file is None:
            yield False
            return
        stop = threading.Event()
        alive = threading.Thread(target=self._show_life, args=(file, stop), daemon=True)
        alive.start()
        try:
            yield True
        finally:
            stop.set()
            alive.join()
            self._give_back(key, file)

    def holder(self, key: str) -> str | None:
        """Say who has a piece: a process that lives or may live; None where nobody has it."""
        claims = self._claims(key)
        if not claims or self._dead(claims[-1]):
            return None
        with suppress(InputError, FileNotFoundError):
            owner = Owner.of(read_small(claims[-1], "the claim", limit=_LIMIT))
            return f"{owner} ({claims[-1]})"
        return None

    def held(self) -> list[str]:
        """Say who has pieces, one text for each claim of a process that lives or may live."""
        names = map(CLAIM.fullmatch, os.listdir(self.folder) if self.folder.is_dir() else ())
        found = (self.holder(key) for key in sorted({one["key"] for one in names if one}))
        return [one for one in found if one is not None]

    def _give_back(self, key: str, mine: Path) -> None:
        """Delete a worker's claim, and first those of the dead before it."""
        for file in self._claims(key):
            if _number(file) <= _number(mine):
                file.unlink(missing_ok=True)

    def _take(self, key: str) -> Path | None:
        """Make the next claim of a piece if nobody who lives has it; only one can."""
        self.folder.mkdir(parents=True, exist_ok=True)
        claims = self._claims(key)
        if claims and not self._dead(claims[-1]):
            return None
        mine = self.folder / f"{key}.{_number(claims[-1]) + 1 if claims else 0}"
        if not self._made(mine):
            return None
        # claims may have been given back, and one made anew, since they were listed
        if all(self._dead(one) for one in self._claims(key) if one != mine):
            return mine
        mine.unlink(missing_ok=True)
        return None

    def _made(self, file: Path) -> bool:
        """Make a claim with its content, which appears at once; tell whether it is ours."""
        content, temporary = json.dumps(asdict(Owner.here())).encode(), self.folder / new_name()
        put(temporary, content)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._made_in_steps(file, content)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    @staticmethod
    def _made_in_steps(file: Path, content: bytes) -> bool:
        """Make a claim where a file cannot have two names: for a moment it is empty."""
        try:
            put(file, content)
        except FileExistsError:
            return False
        return True

    def _dead(self, file: Path) -> bool:
        """Tell whether the worker who made a claim is gone; one that went just now is no claim."""
        try:
            owner = Owner.of(read_small(file, "the claim", limit=_LIMIT))
            silent = self.now() - file.stat().st_mtime
        except (InputError, FileNotFoundError):
            return not file.exists()
        if owner.local and owner.pid:
            return not owner.running
        return silent > self.patience

    def now(self) -> float:
        """Return the time by the clock of the disk, which is that of its files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        probe = self.folder / new_name()
        put(probe, b"")
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _show_life(self, file: Path, stop: threading.Event) -> None:
        while not stop.wait(self.patience / _SIGNS):
            with suppress(OSError):
                os.utime(file)

    def _claims(self, key: str) -> list[Path]:
        """Return the claims of a piece, the last one at the end."""
        names = map(CLAIM.fullmatch, os.listdir(self.folder) if self.folder.is_dir() else ())
        return sorted(
            (self.folder / one.string for one in names if one and one["key"] == key), key=_number
        )


def forget_claims(folder: Path) -> None:
    """Delete all claims in a folder, and the folder where it holds nothing else."""
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if CLAIM.fullmatch(file.name) or TEMPORARY.fullmatch(file.name):
            file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _number(claim: Path) -> int:
    return int(claim.name.rpartition(".")[2])
