"""What is to be exported: an arm that a report measured, or neurons that a list names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.checks import check_kind
from iarmem_plugin.errors import IarmemError, InputError
from iarmem_plugin.interfaces import ActivationIntervention, Adapter, Intervention
from iarmem_plugin.jobs.scores import mean_activation
from iarmem_plugin.neurons.selectors import by_number
from iarmem_plugin.plugins.create import create
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.results import ArmResult
from iarmem_plugin.text import shown

_LISTED = "to export other neurons, give the model and a list of them (--neurons)"


@dataclass(frozen=True, slots=True)
class Measured:
    """The arm of a report that is exported.

    Attributes:
        report: the report.
        arm: its arm.
        half: of a cross-fitted arm, whose candidates were tested with these neurons; else None.
    """

    report: Report
    arm: ArmResult
    half: int | None = None

    @property
    def score(self) -> xr.DataArray | None:
        """What the neurons were ranked by, dims (block, neuron); None where that is not known."""
        selector, scores = self.arm.selector or {}, self.report.scores
        shared = selector.get("name") in ("highest", "lowest") and "scores" not in selector
        plain = (selector.get("scales", "mean"), selector.get("by", "score")) == ("mean", "score")
        if not shared or not plain:
            return None
        score = by_number(scores["score"])
        return score.where(score["valid"], 0).mean("scale").transpose("block", "neuron")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An edit of a model that can be made in its file.

    Attributes:
        model: name that the adapter loads the model by.
        adapter: its family.
        intervention: change to the neurons' weights.
        neurons: which neurons, bool, dims (block, neuron); or the file that lists them.
        mean: their mean activation, for interventions that ask for it.
        measured: where the effect was measured; None where it was not.
    """

    model: str
    adapter: type[Adapter]
    intervention: Intervention
    neurons: xr.DataArray | Path
    mean: xr.DataArray | None = None
    measured: Measured | None = None


def from_report(report: Report, arm: str | None, half: int | None) -> Wanted:
    """Return the edit of one arm of a report.

    Args:
        report: what was measured.
        arm: name of the arm; None where only one was a treatment.
        half: which of the two sets of neurons of a cross-fitted arm: the one that this half of the
            candidates was tested with.

    Raises:
        InputError: there is no such arm, or what it did cannot be written as weights.
        UnknownNameError: no installed adapter knows the model, or no plugin the intervention.
    """
    found = _arm(report, arm)
    adapter, model = _family(report)
    intervention = _again(found)
    neurons = _neurons(report, found, half)
    mean = mean_activation(report.scores)
    measured = Measured(report, found, half)
    return Wanted(model, adapter, intervention, neurons, mean, measured)


def from_list(
    model: str,
    neurons: xr.DataArray | str | Path | None,
    intervention: str | Intervention | None,
) -> Wanted:
    """Return an edit of listed neurons of a model.

    Args:
        model: name of the model, or of a family.
        neurons: which neurons, or the file that lists them.
        intervention: change to their weights, or how it is called.

    Raises:
        InputError: no neurons, or an intervention that does not change weights.
        UnknownNameError: no installed adapter knows the model, or no plugin the intervention.
    """
    adapter = plugins.families().get(model) or plugins.find_variant(model)[0]
    if neurons is None or intervention is None:
        raise InputError(
            f"{shown(model)} is a model, so give its neurons and an intervention (--neurons, "
            "--intervention); or give a report's folder and an arm"
        )
    kinds = (xr.DataArray, str, Path)
    check_kind("the neurons", neurons, kinds, "what select returned, or the file of a list")
    made = create("intervention", intervention) if isinstance(intervention, str) else intervention
    chosen = neurons if isinstance(neurons, xr.DataArray) else Path(neurons)
    return Wanted(model, adapter, _of_weights(made, "this export"), chosen)


def _arm(report: Report, name: str | None) -> ArmResult:
    treated = [arm for arm in report.arms if arm.role == "treatment"]
    if name is None:
        if len(treated) == 1:
            return treated[0]
        raise InputError(f"which arm is to be exported? Give --arm, one of {_names(treated)}")
    for arm in report.arms:
        if arm.name == name:
            return arm
    raise InputError(f"the report has no arm {shown(name, 80)!r}; its arms: {_names(report.arms)}")


def _names(arms: Any) -> str:
    names = [repr(shown(arm.name, 60)) for arm in arms]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more or "none"


def _family(report: Report) -> tuple[type[Adapter], str]:
    """Return the adapter of a report's model, and the name that loads it."""
    name, family = report.model, str(report.provenance.get("family"))
    adapter = plugins.families().get(family)
    if adapter is None or name in adapter.variants():
        return plugins.find_variant(name)[0], name
    return adapter, family


def _again(arm: ArmResult) -> Intervention:
    """Make the intervention of an arm again, from what the report says of it."""
    called = f"arm {shown(arm.name, 80)!r}"
    if arm.edit is not None:
        raise InputError(
            f"{called} changes the whole model by {shown(arm.edit.get('name'), 40)!r}, not chosen "
            "neurons; a report does not keep such weights, so run the edit in Python and save them"
        )
    if arm.intervention is None:
        raise InputError(f"{called} edits nothing, so there is nothing to export")
    said = {key: value for key, value in arm.intervention.items() if key != "backend"}
    name = str(said.pop("name"))
    kind = plugins.find("intervention", name)
    try:
        made = kind(**said)
        same = dict(made.parameters) == said
    except (IarmemError, TypeError, ValueError) as error:
        raise InputError(f"{called}: {name} cannot be made again: {shown(error)}") from error
    if not same:
        raise InputError(
            f"{called}: {name} cannot be made again from what the report says of it; {_LISTED}"
        )
    return _of_weights(made, called)


def _of_weights(made: object, called: str) -> Intervention:
    if isinstance(made, ActivationIntervention):
        raise InputError(
            f"{called} changes activations by {made.name!r} while the model runs, not weights, so "
            "no file can hold it"
        )
    kind = "an intervention, such as ScaleWeights()"
    check_kind("the intervention", made, Intervention, kind)
    assert isinstance(made, Intervention)
    return made


def _neurons(report: Report, arm: ArmResult, half: int | None) -> xr.DataArray:
    if report.neurons is None:
        raise InputError(f"this report does not hold which neurons were edited; {_LISTED}")
    found = report.neurons.sel(arm=arm.name, drop=True)
    crossed = "cross_fit" in (arm.selector or {})
    called = f"arm {shown(arm.name, 80)!r}"
    if crossed and half not in (0, 1):
        raise InputError(
            f"{called} is cross-fitted: it has two sets of neurons, each chosen on one half of the "
            "candidates and tested on the other. Give --half 0 or --half 1, the candidates that "
            "the set was tested with; or choose neurons on all of them, and give the list"
        )
    if not crossed and half is not None:
        raise InputError(f"{called} is not cross-fitted: leave out --half")
    if "half" in found.dims:
        found = found.isel(half=half or 0, drop=True)
    if set(found.dims) != {"block", "neuron"}:
        raise InputError(f"{called} has several sets of neurons, {dict(found.sizes)}; {_LISTED}")
    return found.astype(bool)


def scored_on(measured: Measured) -> Mapping[str, Any]:
    """Return what the report says of the scores that an arm's neurons were chosen by."""
    selector = measured.arm.selector or {}
    if "scores" in selector:
        return {
            key: selector[key] for key in ("scores", "scored_on", "reference") if key in selector
        }
    known = json.loads(measured.report.scores.attrs.get("provenance", "{}"))
    keys = ("metric", "metric_parameters", "images", "image_list_sha256", "views", "seed")
    return {key: known[key] for key in keys if key in known}
