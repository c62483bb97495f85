"""Cells: pieces of work that any number of workers do, each once, whatever happens to a worker."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.files import is_ours, write_whole
from iarmem_plugin.fingerprint import fingerprint
from iarmem_plugin.stages.claims import PATIENCE, Claims, forget_claims
from iarmem_plugin.stages.stages import Stages
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json, read_small

Make = Callable[["Cell"], xr.DataTree]
CLAIMS = "claims"
EVERY = 30.0  # seconds between two lines about what is waited for
LOGGER = logging.getLogger(__name__)
_FAILED = ".failed.json"
_KEY = re.compile(r"[a-z]+-[0-9a-f]{16}")
_WAITS = (0.05, 5.0)  # seconds between two looks, at first and at most
_LIMIT = 1_000_000  # bytes of the record of a failure


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of work, known by all that changes its result.

    Attributes:
        stage: what kind of piece it is, lower-case letters, such as ``"losses"``.
        name: of what, such as an arm; for messages.
        inputs: all that changes the result, as JSON values.
        key: name of its file: the stage and a hash of the inputs.
    """

    stage: str
    name: str
    inputs: Mapping[str, Any] = field(repr=False)
    key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Hash the inputs."""
        object.__setattr__(self, "key", f"{self.stage}-{fingerprint(self.inputs)[:16]}")


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that could not be done.

    Attributes:
        stage: its stage.
        name: of what it is a piece.
        error: kind and message of the error, in one line.
        traceback: where it was raised.
    """

    stage: str
    name: str
    error: str
    traceback: str = field(repr=False, default="")


class Cells:
    """A folder of cells that workers fill together: processes of one machine or of many.

    Every worker names the same cells and takes the next one that is neither finished nor taken;
    see `Claims` for how two never take the same, and how that of a dead worker is taken over. A
    cell is whole or absent. One that fails is recorded, and the others go on; it is tried again by
    workers that begin afterwards.

    Args:
        folder: folder of the cells; nothing is touched before it is needed.
        patience: see `Claims`.
    """

    def __init__(self, folder: Path | str, *, patience: float = PATIENCE) -> None:
        self.folder = Path(folder)
        # apart: whoever writes a cell deletes what was half written beside it
        self.claims = Claims(self.folder / CLAIMS, patience)
        self._began: float | None = None
        self._failed: dict[str, Failure] = {}

    def __repr__(self) -> str:
        """Return the folder."""
        return f"Cells({str(self.folder)!r})"

    def done(self, cell: Cell) -> bool:
        """Tell whether a cell is finished."""
        return (self.folder / f"{cell.key}.nc").is_file()

    def load(self, cell: Cell) -> xr.DataTree:
        """Return a finished cell.

        Raises:
            InputError: it is not there, or damaged.
        """
        return Stages(self.folder, cell.inputs).load(cell.key)

    def one(self, cell: Cell, make: Make) -> xr.DataTree:
        """Return what a cell holds; it is made by this worker, or waited for.

        Raises:
            Exception: what `make` raises; it is not recorded.
        """
        self.fill([cell], make, records=False)
        return self.load(cell)

    def wait_for(self, cell: Cell, write: Callable[[], None]) -> None:
        """See that a cell is there whose file has a form of its own; as `one`.

        Args:
            cell: the cell.
            write: function that writes its file, as a whole or not at all.
        """
        told, wait = time.monotonic(), _WAITS[0]
        while not self.done(cell):
            with self.claims.taken(cell.key) as mine:
                if mine and not self.done(cell):
                    write()
            if not self.done(cell):
                told, wait = self._tell(cell, told), min(2 * wait, _WAITS[1])
                time.sleep(wait)

    def fill(
        self,
        cells: Sequence[Cell],
        make: Make,
        *,
        records: bool = True,
        advance: Callable[[int], object] = lambda _: None,
    ) -> dict[str, Failure]:
        """Do all cells that are not done, together with other workers; return when none is left.

        Args:
            cells: what is to be done, in the order in which it is taken.
            make: function that returns what a cell is to hold; always the same for the same cell.
            records: whether a failure is recorded, and the others go on; otherwise it is raised.
            advance: told whenever cells are found to be finished, and how many.

        Returns:
            cells that failed, by key.

        Raises:
            DiskFullError: there is no room; what was done before stays.
        """
        self._begin()
        left, wait, failed = list(cells), _WAITS[0], dict[str, Failure]()
        told = time.monotonic()
        while left:
            before = len(left)
            for cell in left:
                if not self._settled(cell):
                    self._try(cell, make, records=records)
            left = [cell for cell in left if not self._settled(cell)]
            advance(before - len(left))
            wait = _WAITS[0] if len(left) < before else min(2 * wait, _WAITS[1])
            if len(left) < before:
                told = time.monotonic()
            elif left:
                told = self._tell(left[0], told)
                time.sleep(wait)
        for cell in cells:
            if not self.done(cell) and (failure := self.failure(cell)) is not None:
                failed[cell.key] = failure
        return failed

    def _tell(self, cell: Cell, told: float) -> float:
        """Say now and then what is waited for; return when that was said last."""
        if time.monotonic() - told < EVERY:
            return told
        who = self.claims.holder(cell.key) or "another worker"
        LOGGER.warning("waiting for the %s of %s, which %s has", cell.stage, cell.name, who)
        return time.monotonic()

    def check_free(self) -> None:
        """Refuse to go on where a worker that lives has a cell, as before all are deleted.

        Raises:
            InputError: naming it.
        """
        if held := self.claims.held():
            raise InputError(
                f"a worker is at work in {shown(self.folder)}: {held[0]}; wait for its end, or end "
                "it first"
            )

    def failure(self, cell: Cell) -> Failure | None:
        """Return why a cell was not done since this worker began; None where it has not failed."""
        if cell.key in self._failed:
            return self._failed[cell.key]
        file = self.folder / f"{cell.key}{_FAILED}"
        try:
            if file.stat().st_mtime < self._begin():
                return None
            said = parse_json(read_small(file, "the record", limit=_LIMIT), "the record")
            return Failure(cell.stage, cell.name, str(said["error"]), str(said["traceback"]))
        except (OSError, InputError, KeyError, TypeError):
            return None

    def _settled(self, cell: Cell) -> bool:
        return self.done(cell) or self.failure(cell) is not None

    def _try(self, cell: Cell, make: Make, *, records: bool) -> None:
        """Do a cell if it is free."""
        with self.claims.taken(cell.key) as mine:
            if not mine or self._settled(cell):
                return
            try:
                tree = make(cell)
            except DiskFullError:
                raise
            except Exception as error:  # whatever a plugin raises; it is recorded
                if not records:
                    raise
                self._record(cell, error)
                return
            Stages(self.folder, cell.inputs).save(cell.key, tree)
            (self.folder / f"{cell.key}{_FAILED}").unlink(missing_ok=True)

    def _record(self, cell: Cell, error: Exception) -> None:
        told = "".join(traceback.format_exception(error))[-_LIMIT // 2 :]
        failure = Failure(cell.stage, cell.name, f"{type(error).__name__}: {shown(error)}", told)
        self._failed[cell.key] = failure
        said = {"stage": cell.stage, "name": cell.name, "error": failure.error, "traceback": told}
        write_whole(self.folder / f"{cell.key}{_FAILED}", json.dumps(said, indent=1).encode())

    def _begin(self) -> float:
        """Return when this worker began, by the clock of the disk; failures before are history."""
        if self._began is None:
            self._began = self.claims.now()
        return self._began


def forget_cells(folder: Path) -> None:
    """Delete all cells in a folder, and the folder where it holds nothing else."""
    if not folder.is_dir():
        return
    forget_claims(folder / CLAIMS)
    for file in folder.iterdir():
        key = file.name.removesuffix(_FAILED).removesuffix(".nc")
        if is_ours(file.name) or (key != file.name and _KEY.fullmatch(key)):
            file.unlink(missing_ok=True)
    with suppress(OSError):  # it holds something else
        folder.rmdir()
