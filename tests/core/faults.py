"""A disk that dies, or is full, at the n-th operation: what a killed process leaves behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OPERATIONS = ("open", "write", "fsync", "fchmod", "mkdir", "rename", "replace", "unlink", "rmdir")
GROWING = ("open", "write", "fsync", "mkdir", "rename", "replace")  # what a full disk refuses
_REAL = {name: getattr(os, name) for name in OPERATIONS}


class Death(BaseException):
    """The process is gone; whatever it would have done afterwards is not done."""


class Disk:
    """Operations on files, counted.

    Attributes:
        count: number of operations so far.
    """

    def __init__(self, fail_at: int, error: int | None, *, lasting: bool) -> None:
        self.count, self._fail_at, self._error, self._lasting = 0, fail_at, error, lasting

    def operation(self, name: str) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return _REAL[name](*arguments, **options)
            self.count += 1
            if self._error is None:
                self._die(name, arguments)
            elif self._is_full(name):
                raise OSError(self._error, os.strerror(self._error))
            return None if name == "fsync" else _REAL[name](*arguments, **options)

        return act

    def _die(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.count < self._fail_at:
            return
        if self.count == self._fail_at and name == "write":  # half of it was written
            _REAL["write"](arguments[0], arguments[1][: len(arguments[1]) // 2])
        raise Death

    def _is_full(self, name: str) -> bool:
        if self._lasting:
            return self.count >= self._fail_at and name in GROWING
        return self.count == self._fail_at and name != "fchmod"


@contextmanager
def faulty(fail_at: int, error: int | None = None, *, lasting: bool = False) -> Iterator[Disk]:
    """Let the operations of this process on files fail from the n-th on.

    Args:
        fail_at: number of the operation, from 1.
        error: number of the error that it ends with; None ends the process.
        lasting: the disk stays full, so that nothing can be made, and something deleted.
    """
    disk = Disk(fail_at, error, lasting=lasting)
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, disk.operation(name))
        yield disk
