"""Finding and making what plugins provide."""

from __future__ import annotations

from iarmem_plugin.plugins.loading import (
    DEFAULT_PLUGINS,
    DISABLED,
    STRICT,
    Manager,
    PluginWarning,
    make_manager,
)
from iarmem_plugin.plugins.registry import (
    KINDS,
    Kind,
    Provided,
    conditions,
    families,
    find,
    find_variant,
    names,
    num_classes,
    problems,
    provided,
    recognising,
    variants,
)

__all__ = [
    "DEFAULT_PLUGINS",
    "DISABLED",
    "KINDS",
    "STRICT",
    "Kind",
    "Manager",
    "PluginWarning",
    "Provided",
    "conditions",
    "families",
    "find",
    "find_variant",
    "make_manager",
    "names",
    "num_classes",
    "problems",
    "provided",
    "recognising",
    "variants",
]
