"""A plan as the text of a file, each key with what it says as a comment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from pydantic import BaseModel

from iarmem_plugin.jobs.plan.parts.table import Part, dashed


def as_toml(plan: Part) -> str:
    """Return a plan as TOML that `read_plan` makes an equal plan of; paths are absolute."""
    document = tomlkit.document()
    _fill(document, plan)
    return str(document.as_string())


def _fill(table: Any, part: BaseModel) -> None:
    """Put keys with their values into a table, and then the tables that are inside of it."""
    fields = type(part).model_fields
    named = {name: getattr(part, name) for name in fields}
    known = {name: value for name, value in named.items() if value not in (None, (), {})}
    for name in sorted(known, key=lambda one: _is_table(known[one])):  # keys before tables
        value, key = known[name], dashed(name)
        if not _is_table(value):
            item = tomlkit.item(_plain(value))
            item.comment(_first(fields[name].description))
            table.add(key, item)
        elif isinstance(value, tuple):
            table.add(key, tomlkit.aot())
            for one in value:
                table[key].append(_table(one))
        else:
            table.add(key, _table(value))


def _table(value: BaseModel | Mapping[str, Any]) -> Any:
    table = tomlkit.table()
    if isinstance(value, BaseModel):
        _fill(table, value)
    else:
        for key, one in value.items():
            table.add(key, _plain(one))
    return table


def _is_table(value: object) -> bool:
    listed = isinstance(value, tuple) and isinstance(value[0], BaseModel)
    return listed or isinstance(value, BaseModel | Mapping)


def _plain(value: object) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def _first(description: str | None) -> str:
    return (description or "").partition("; ")[0].partition(". ")[0].rstrip(".")
