"""Finding and making what plugins provide."""

from __future__ import annotations

from iarmem_plugin.plugins.registry import (
    DEFAULT_PLUGINS,
    KINDS,
    STRICT,
    Kind,
    Manager,
    PluginWarning,
    Provided,
    conditions,
    families,
    find,
    find_variant,
    make_manager,
    names,
    num_classes,
    problems,
    provided,
    variants,
)

__all__ = [
    "DEFAULT_PLUGINS",
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
    "variants",
]
