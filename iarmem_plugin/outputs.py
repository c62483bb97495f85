"""Whether a result can be written where the user wants it; asked before the expensive part."""

from __future__ import annotations

import os
from pathlib import Path

from iarmem_plugin.errors import InputError


def check_place(path: Path) -> None:
    """Refuse a path that cannot be made.

    Raises:
        InputError: one of its parents is a file, or may not be written to.
    """
    target = path.resolve()
    parent = target
    while not parent.exists():
        parent = parent.parent
    if parent != target and not parent.is_dir():
        raise InputError(f"{path} cannot be made, since {parent} is a file; name another place")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path} cannot be made: {parent} may not be written to")
