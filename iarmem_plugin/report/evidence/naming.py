"""What a plan calls things, and which of a report's settings it means by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from iarmem_plugin.errors import IarmemError
from iarmem_plugin.plugins.create import create
from iarmem_plugin.plugins.options import Written

Settings = Mapping[str, Any]


def chosen_as(text: str, selector: Settings, metric: str) -> bool:
    """Tell whether a text, such as ``"highest:pool=block"`` or a scorer, means a selector.

    Args:
        text: a selector or what scores neurons by contrast, be it with options.
        selector: settings of a report's arm.
        metric: of the scores that all arms share, which a selector means.
    """
    scores = selector.get("scores")
    if scores in (None, metric):
        return selected_as(text, selector)
    return scores in (text, _key(text))


def selected_as(text: str, selector: Settings) -> bool:
    """Tell whether a selector takes neurons as a text says, whatever it takes them by."""
    return _named("selector", text, selector)


def edited_as(text: str, intervention: Settings | None) -> bool:
    """Tell whether a text, such as ``"scale-weights:factor=0.5"``, means an intervention."""
    return intervention is not None and _named("intervention", text, intervention)


def read_images(scorer: str) -> bool:
    """Tell whether a scorer reads the images that it is given; one that is not known does."""
    try:
        return create("scorer", scorer.replace("(", ":").rstrip(")")).needs_images
    except IarmemError:
        return True


def _named(kind: Literal["selector", "intervention"], text: str, settings: Settings) -> bool:
    name, options = _meant(kind, text)
    same = (_plain(settings.get(key)) == _plain(value) for key, value in options.items())
    return settings.get("name") == name and all(same)


@lru_cache(maxsize=1000)  # every arm is held against the same few texts
def _meant(kind: Literal["selector", "intervention"], text: str) -> tuple[str, Settings]:
    """Return the name and the options of what a text means, defaults included."""
    try:
        made = create(kind, text)
    except IarmemError:  # a plugin that is not installed here
        try:
            written = Written.of(text)
        except IarmemError:
            return "", {}
        return written.name, written.texts
    return made.name, dict(made.parameters)


def _plain(value: object) -> str:
    """Return a value as a file has it, which knows no tuples."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _key(text: str) -> str | None:
    try:
        return create("scorer", text).key
    except IarmemError:
        return None
