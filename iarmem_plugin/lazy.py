"""A package whose public names are imported on first use."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package that imports a public name when it is first asked for.

    A function may bear the name of its module (``capture`` lives in ``capture.py``).
    The import system stores a submodule in its package, which would hide the function as soon as
    anything imports the module; here the public name wins, and the module is still reached by
    ``from iarmem_plugin.capture import ...``.
    """

    _sources: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        """Import a public name from its module; submodules are imported only when named."""
        if name not in self._sources:
            message = f"module {self.__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        value = getattr(import_module(self._sources[name]), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        """Keep a public name when the import system would put its module in its place."""
        if not (isinstance(value, ModuleType) and name in self._sources):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """List the public names that are not loaded yet, too."""
        return sorted({*super().__dir__(), *self._sources})


def make_lazy(package: str, names: Mapping[str, tuple[str, ...]]) -> None:
    """Let a package import its public names on first use.

    Args:
        package: name of a package that is being imported.
        names: public names by the module they come from.
    """
    module = sys.modules[package]
    sources = {name: source for source, group in names.items() for name in group}
    module.__dict__["_sources"] = sources
    module.__class__ = LazyPackage
