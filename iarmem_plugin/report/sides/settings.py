"""Which settings and versions differ between two reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from iarmem_plugin.text import shown

LONGEST = 80  # signs of a value
_NOT_SETTINGS = ("cost", "declared")  # what a run took, and when it was


@dataclass(frozen=True, slots=True)
class Change:
    """A setting or a version that differs.

    Attributes:
        key: where it is, such as ``"versions.torch"``.
        old: its value in the first report, as text; empty where it is not there.
        new: its value in the second.
    """

    key: str
    old: str
    new: str


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the settings that differ, by their keys from the outermost.

    Args:
        old: provenance, as ``report.json`` has it; what a run took is left out.
        new: likewise.
    """
    before, after = (
        dict(leaves({key: one for key, one in side.items() if key not in _NOT_SETTINGS}))
        for side in (old, new)
    )
    return tuple(
        Change(".".join(key), _text(before, key), _text(after, key))
        for key in sorted({*before, *after})
        if before.get(key, ...) != after.get(key, ...)
    )


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all that is no mapping, with its keys from the outermost; in lists, places are keys."""
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield at, value
        return
    for key, one in value.items():
        yield from leaves(one, (*at, str(key)))


def _text(values: Mapping[tuple[str, ...], Any], key: tuple[str, ...]) -> str:
    return shown(json.dumps(values[key], ensure_ascii=False), LONGEST) if key in values else ""
