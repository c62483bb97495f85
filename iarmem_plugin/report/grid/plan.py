"""What was planned, and what came of it: the plan of a comparison, its dropped and failed parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from iarmem_plugin.report.grid.csv_tables import records

LONGEST_VALUE = 300  # signs; report.json has the whole


def plan_rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the keys and values of a plan, flat, each cut to what can be read at a glance."""
    plan = provenance.get("plan")
    return list(_flat(plan, "")) if isinstance(plan, Mapping) else []


def left_out(provenance: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what is not, or not wholly, among the arms: its name, what became of it, and why."""
    dropped = [
        (str(one.get("name")), f"dropped before its {one.get('before')}", str(one.get("why")))
        for one in records(provenance.get("dropped"))
    ]
    failed = [
        (str(one.get("name")), f"failed in {one.get('stage')}", str(one.get("error")))
        for one in records(provenance.get("failed"))
    ]
    return [*dropped, *failed]


def _flat(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Yield what a plan says, one key a line; lists of tables are numbered from 1."""
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _flat(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for place, entry in enumerate(value, start=1):
            yield from _flat(entry, f"{name} {place}")
    else:
        listed = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        cut = len(listed) > LONGEST_VALUE
        yield name, f"{listed[:LONGEST_VALUE]}…" if cut else "–" if value is None else listed
