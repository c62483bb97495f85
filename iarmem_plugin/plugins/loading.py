"""Plugins are loaded, each on its own: what one of them does wrong harms no other."""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from collections.abc import Iterable
from importlib import metadata

import pluggy

from iarmem_plugin.errors import EndedBySignal, PluginError
from iarmem_plugin.plugins import hookspecs
from iarmem_plugin.text import one_line, shown

DEFAULT_PLUGINS = (
    "iarmem_adapters.rar",
    "iarmem_adapters.var",
    "iarmem_metrics.unitmem",
    "iarmem_metrics.mean_activation",
    "iarmem_metrics.random_score",
    "iarmem_metrics.difference_of_means",
    "iarmem_metrics.gradient_weight",
    "iarmem_metrics.weight_norm",
    "iarmem_plugin.neurons.interventions",
    "iarmem_plugin.neurons.selectors",
    "iarmem_plugin.neurons.listed",
    "iarmem_plugin.evaluation.similarity",
    "iarmem_plugin.evaluation.likelihood",
    "iarmem_plugin.evaluation.quality",
    "iarmem_plugin.evaluation.dinov2",
    "iarmem_plugin.jobs.edits.noise",
    "iarmem_plugin.jobs.edits.training",
    "iarmem_plugin.jobs.triggers.completing",
    "iarmem_plugin.jobs.triggers.embedding",
    "iarmem_plugin.jobs.triggers.relearning",
)
STRICT = "IARMEM_STRICT_PLUGINS"
DISABLED = "IARMEM_DISABLE_PLUGINS"
SLOW_SECONDS = 1.0
TORCH_SECONDS = 9.0  # and more where a slow disk is read for the first time
CANNOT = " cannot be imported"
_HOOKS = ", ".join(name for name in vars(hookspecs) if name.startswith("provide_"))


class PluginWarning(UserWarning):
    """A plugin, or a part of it, was skipped, or is slow; the message names it and says why."""


class Manager(pluggy.PluginManager):
    """Pluggy's manager, with what is wrong with plugins.

    Attributes:
        problems: what is wrong with each plugin that was skipped, or of which a part was, by its
            name.
        origins: distribution and module of each plugin, by its name.
    """

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.problems: dict[str, str] = {}
        self.origins: dict[str, str] = {}

    def skip(self, plugin: str, what: str, error: BaseException | None = None) -> None:
        """Note that a plugin, or a part of it, is skipped; say so once.

        Args:
            plugin: its name.
            what: what is wrong with it.
            error: what it raised, if it did.

        Raises:
            PluginError: with ``IARMEM_STRICT_PLUGINS=1`` in the environment.
        """
        reason = "" if error is None else one_line(f"{type(error).__name__}: {error}")
        join = " " if what.endswith(" with") else ": "
        if os.environ.get(STRICT) == "1":
            raise PluginError(f"plugin {plugin!r}{what}{reason and join + reason}") from error
        said = reason if what == CANNOT else f"{what.removeprefix(': ')}{reason and join + reason}"
        known = self.problems.get(plugin, "")
        if said in known:
            return
        self.problems[plugin] = one_line(f"{known}; {said}" if known else said)
        skipped = f"{what} and is skipped" if what == CANNOT else what
        message = f"plugin {plugin!r}{skipped}{reason and join + reason}"
        warnings.warn(message, PluginWarning, stacklevel=2)


def make_manager(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Manager:
    """Load the default plugins, then those of other distributions, each on its own.

    A plugin that cannot be loaded is skipped with a `PluginWarning`, and one that takes seconds
    to import is named in one; with ``IARMEM_STRICT_PLUGINS=1`` in the environment, what cannot be
    loaded is an error. ``IARMEM_DISABLE_PLUGINS`` names plugins to leave out, by their entry
    point, module or distribution, with commas between them.

    Args:
        entry_points: plugins of other distributions; by default the installed entry points of
            the group ``iarmem``.

    Returns:
        a manager with the plugins, and with what is wrong with those that were skipped.

    Raises:
        PluginError: when strict, a plugin cannot be imported, is there twice, or has a hook of a
            misspelt name.
    """
    manager = Manager()
    manager.add_hookspecs(hookspecs)
    for name in DEFAULT_PLUGINS:
        _add(manager, metadata.EntryPoint(name, name, hookspecs.PROJECT), slow=float("inf"))
    if entry_points is None:
        entry_points = metadata.entry_points(group=hookspecs.PROJECT)
    for entry_point in entry_points:
        _add(manager, entry_point, slow=SLOW_SECONDS)
    _drop_misspelt(manager)
    return manager


def _add(manager: Manager, entry_point: metadata.EntryPoint, *, slow: float) -> None:
    name, origin = entry_point.name, _origin(entry_point)
    if _disabled(entry_point):
        return
    begun, before = time.perf_counter(), "torch" in sys.modules
    try:
        plugin = entry_point.load()
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's module may raise anything
        manager.skip(name, CANNOT, error)
        return
    if not before and "torch" in sys.modules:  # every model needs it, so adapters import it
        slow += TORCH_SECONDS
    if (spent := time.perf_counter() - begun) > slow:
        message = (
            f"plugin {name!r} took {spent:.1f} s to import; have it import heavy libraries where "
            "they are used"
        )
        warnings.warn(message, PluginWarning, stacklevel=2)
    if other := manager.get_name(plugin) or (name if manager.has_plugin(name) else None):
        twice = (
            f" is installed twice, as {other!r} from {manager.origins[other]} and as {name!r} from "
            f"{origin}; uninstall one of them"
        )
        manager.skip(name, twice)
        return
    manager.origins[name] = origin
    try:
        manager.register(plugin, name=name)
    except pluggy.PluginValidationError as error:
        manager.unregister(plugin)
        manager.skip(name, f": {error}")


def _drop_misspelt(manager: Manager) -> None:
    """Leave out plugins that have a hook which is none of ours."""
    while True:
        try:
            manager.check_pending()
            return
        except pluggy.PluginValidationError as error:
            name = str(manager.get_name(error.plugin))
            manager.unregister(error.plugin)
            manager.skip(name, f": {error}; the hooks are: {_HOOKS}")


def _disabled(entry_point: metadata.EntryPoint) -> bool:
    named = {_normal(one) for one in os.environ.get(DISABLED, "").split(",") if one.strip()}
    distribution = "iarmem" if entry_point.dist is None else entry_point.dist.name
    known = {entry_point.name, entry_point.module, distribution}
    return not named.isdisjoint(map(_normal, known))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _origin(entry_point: metadata.EntryPoint) -> str:
    module = shown(entry_point.value, 60)
    return module if entry_point.dist is None else f"{shown(entry_point.dist.name, 60)} ({module})"
