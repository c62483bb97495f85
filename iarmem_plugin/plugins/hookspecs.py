"""The hooks: each returns classes, and none calls back into a registry."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from iarmem_plugin.interfaces import (
    Adapter,
    AnyIntervention,
    AnyQuality,
    AnyTrigger,
    ImageScorer,
    Metric,
    ModelEdit,
    Selector,
    Similarity,
)

PROJECT = "iarmem"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def provide_adapters() -> Iterable[type[Adapter]]:  # type: ignore[empty-body]  # a specification
    """Return adapter classes, each for one model family."""


@hookspec
def provide_metrics() -> Iterable[type[Metric]]:  # type: ignore[empty-body]  # a specification
    """Return metric classes, which score neurons from activations."""


@hookspec
def provide_scorers() -> Iterable[type[ImageScorer]]:  # type: ignore[empty-body]  # a specification
    """Return scorer classes, which score neurons by what tells candidates from other images."""


@hookspec
def provide_interventions() -> Iterable[type[AnyIntervention]]:  # type: ignore[empty-body]  # a specification
    """Return intervention classes, which change the weights or the values of selected neurons."""


@hookspec
def provide_selectors() -> Iterable[type[Selector]]:  # type: ignore[empty-body]  # a specification
    """Return selector classes, which pick neurons from their scores."""


@hookspec
def provide_similarities() -> Iterable[type[Similarity]]:  # type: ignore[empty-body]  # a specification
    """Return similarity classes, which compare a completion with its target."""


@hookspec
def provide_qualities() -> Iterable[type[AnyQuality]]:  # type: ignore[empty-body]  # a specification
    """Return quality classes, which measure what an intervention cost."""


@hookspec
def provide_edits() -> Iterable[type[ModelEdit]]:  # type: ignore[empty-body]  # a specification
    """Return edit classes, which change a whole model and choose no neurons."""


@hookspec
def provide_triggers() -> Iterable[type[AnyTrigger]]:  # type: ignore[empty-body]  # a specification
    """Return trigger classes, which try to bring back what a model was made to forget."""
