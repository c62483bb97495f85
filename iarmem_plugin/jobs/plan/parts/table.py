"""A table of a plan: frozen, with dashes in its keys, and without keys that are not known."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from iarmem_plugin.jobs.plan.mistakes import nearest, wrong_key
from iarmem_plugin.text import shown


def dashed(name: str) -> str:
    """Return the key of a field: ``"per-class"`` for ``"per_class"``."""
    return name.replace("_", "-")


class Part(BaseModel):
    """A table of a plan: frozen, and without keys that are not known."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=dashed,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any, info: Any) -> Any:
        """Refuse keys that are not known, and ask for those that are missing."""
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        known = {dashed(name): name for name in fields}
        accepted = set(known) if info.context else {*known, *fields}
        for key in data:
            if key not in accepted:
                raise wrong_key(f"has no key {shown(repr(key), 60)}; {nearest(key, known)}", key)
        for key, name in known.items():
            if fields[name].is_required() and key not in data and name not in data:
                raise wrong_key(f"lacks {key!r}: {_first(fields[name].description)}", key)
        return data


def form(given: object) -> str:
    """Say whether a key that may be a text or a table is one or the other."""
    return "table" if isinstance(given, dict | BaseModel) else "text"


def _first(description: str | None) -> str:
    text = description or ""
    return text[:1].lower() + text[1:].rstrip(".")
