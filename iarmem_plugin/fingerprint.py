"""Fingerprint of a capture's settings: a capture is only continued with those it began with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from iarmem_plugin.errors import FingerprintMismatchError, InputError


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the sha256 of settings, whatever the order of their names.

    Raises:
        InputError: if a setting is not a JSON value.

    >>> fingerprint({"seed": 0, "views": 10}) == fingerprint({"views": 10, "seed": 0})
    True
    """
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()


def canonical_json(value: Mapping[str, Any]) -> str:
    """Return one text for equal mappings: names sorted, no spaces.

    Raises:
        InputError: if a value is not JSON; NaN and numpy's numbers are not.
    """
    try:
        return json.dumps(dict(value), allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InputError(f"an attribute of the store is not a JSON value: {error}") from error


def differences(
    stored: Mapping[str, Any], given: Mapping[str, Any], *, where: str = "in the store"
) -> list[str]:
    """Say which settings differ, one sentence part each: ``"seed: 0 in the store, 1 given"``."""
    absent = object()
    return [
        f"{name}: {_shown(stored, name)} {where}, {_shown(given, name)} given"
        for name in sorted({*stored, *given})
        if stored.get(name, absent) != given.get(name, absent)
    ]


def require_same(
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    place: str,
    where: str = "in the store",
    cure: str = "name a new store",
) -> None:
    """Refuse to go on with a capture that was begun with other settings.

    Args:
        stored: settings in the store.
        given: settings of this run.
        place: name of the store, for the message.
        where: place of the stored settings, for the message.
        cure: advice besides using the same settings, for the message.

    Raises:
        FingerprintMismatchError: naming every field that differs.
    """
    as_stored = json.loads(canonical_json(given))  # tuples become lists, as on disk
    if fields := differences(stored, as_stored, where=where):
        raise FingerprintMismatchError(
            f"{place} was captured with other settings ({'; '.join(fields)}); use the same to "
            f"resume, or {cure}"
        )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    text = json.dumps(settings[name]) if name in settings else "nothing"
    return text if len(text) <= 80 else f"{text[:77]}..."
