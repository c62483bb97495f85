"""Results that are kept: each in a file that is there whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import write_whole


def kept(path: Path, made_by: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> Any:
    """Return what a file holds, or make it and write it.

    Args:
        path: of the file.
        made_by: all settings that the result depends on; plain values.
        make: function that measures.

    Returns:
        the result, with ``cpu_seconds``.

    Raises:
        InputError: the file was made with other settings.
    """
    settings = json.loads(json.dumps(made_by))
    found = read(path)
    if found is None:
        begun = time.process_time()
        result = make()
        spent = round(time.process_time() - begun, 1)
        found = {"made_by": settings, "cpu_seconds": spent, "result": result}
        write_whole(path, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    if found["made_by"] != settings:
        raise InputError(
            f"{path} was made with {found['made_by']}, and not with {settings}: delete it, or give "
            "another folder"
        )
    return found["result"] | {"cpu_seconds": found["cpu_seconds"]}


def read(path: Path) -> Any:
    """Return the content of a result's file; None where there is none."""
    return json.loads(path.read_text()) if path.exists() else None
