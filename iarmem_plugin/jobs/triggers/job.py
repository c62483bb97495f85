"""The plan of an attack with triggers: a model as it is, or after the edits of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import ORIGINAL, TWIN
from iarmem_plugin.jobs.plan.mistakes import nearest
from iarmem_plugin.jobs.plan.plan import Plan
from iarmem_plugin.jobs.plan.planned import PlannedArm
from iarmem_plugin.jobs.plan.reading import plan_of, read_plan, with_given
from iarmem_plugin.report.report import Report
from iarmem_plugin.text import shown

TRIGGERS = ("learned-embedding", "prefix", "samples")
"""What is tried where no trigger is named: what needs nothing but the model."""


def attack_plan(
    model: Mapping[str, Any],
    *,
    triggers: Sequence[str] = TRIGGERS,
    mitigated: str | Path | None = None,
    arms: Sequence[str] = (),
    candidates: str | Path | None = None,
    held_out: str | Path | None = None,
    pictures: int = 108,
    seed: int = 0,
) -> Plan:
    """Return the plan of which `compare` makes a report that says how much work brings what back.

    Args:
        model: a plan's ``[model]``: its ``name``, and its files.
        triggers: the triggers, be it with options.
        mitigated: a comparison of this model, whose edits are tried, too: the folder of its report
            or the file of its plan; None tries the model as it is, and an organism's twin.
        arms: names of the arms in which they are tried; none: all of them.
        candidates: pictures to bring back; of an organism its canaries.
        held_out: pictures never seen; of an organism its own.
        pictures: how many are brought back at most, and how many never-seen ones are tried.
        seed: seed of everything drawn at random.

    Raises:
        InputError: a comparison of another model, or without such arms; or no pictures.
    """
    recovery = {"triggers": list(triggers), "pictures": pictures, "arms": list(arms)}
    if mitigated is not None:
        if candidates is not None or held_out is not None:
            raise InputError(
                "the comparison has pictures of its own; leave out --candidates and --held-out"
            )
        return _of_comparison(str(model["name"]), Path(mitigated), recovery)
    document: dict[str, Any] = {"seed": seed, "model": dict(model), "recovery": recovery}
    document["attack"] = {"recalibrate": False}
    if candidates is None and held_out is None:
        document |= _of_organism(str(model["name"]))
    elif candidates is None or held_out is None:
        raise InputError(
            "pictures to bring back need others beside them that were never seen; give both "
            "--candidates and --held-out"
        )
    else:
        document["pictures"] = {"candidates": str(candidates), "held-out": str(held_out)}
    return Plan.from_document(document)


def _of_organism(name: str) -> dict[str, Any]:
    known = plugins.variants().get(name)
    if known is None or known[1].organism is None or known[1].twin_of:
        raise InputError(
            f"{shown(name, 60)} comes without pictures; give those to bring back (--candidates) "
            "and others that it never saw (--held-out)"
        )
    twins = [one for one, (_, variant) in plugins.variants().items() if variant.twin_of == name]
    found: dict[str, Any] = {"pictures": {"organism": True, "members": 0}}
    return {**found, **({"twin": {"name": twins[0]}} if twins else {})}


def _of_comparison(model: str, path: Path, recovery: Mapping[str, Any]) -> Plan:
    """Return the plan of a comparison with triggers: the arms that are named, and no images.

    Where a split is named that is not the first, the splits before it are run, too.
    """
    whole = plan_of(Report.load(path), name=str(path)) if path.is_dir() else read_plan(path)
    if whole.model.name != model:
        raise InputError(
            f"{shown(path)} compares edits of {shown(whole.model.name, 60)}, not of "
            f"{shown(model, 60)}; name that model"
        )
    document = {**whole.to_document(), "recovery": dict(recovery), "drop": [], "expect": []}
    drawn = whole.quality.temperature
    document["quality"] = {"losses": whole.quality.losses} | (
        {"temperature": drawn} if isinstance(drawn, float) else {}
    )
    wanted, arms = list(recovery["arms"]), {one.name: one for one in whole.arms()}
    known = [ORIGINAL, *arms, *((TWIN,) if whole.twin else ())]
    if missing := [one for one in wanted if one not in known]:
        raise InputError(
            f"{shown(path)} has no arm {shown(missing[0], 80)!r}; {nearest(missing[0], known)}"
        )
    if wanted:
        chosen = [arms[one] for one in wanted if one in arms]
        splits = max((one.split for one in chosen), default=0) + 1
        tables = {one.whole_name: _table(one) for one in chosen}
        document |= {"grid": [], "arm": list(tables.values())}
        document["evidence"] = {**document["evidence"], "splits": splits}
        if TWIN not in wanted:
            document.pop("twin", None)
    return with_given(document, (), name=str(path))


def _table(arm: PlannedArm) -> dict[str, Any]:
    """Return an arm as a table of its own, as a plan's ``[[arm]]`` has it."""
    told = {
        "name": arm.whole_name,
        "selector": arm.scorer or arm.selector,
        "scores": arm.scores,
        "intervention": arm.intervention,
        "fraction": arm.fraction,
        "edit": arm.edit,
        "seed": arm.seed,
        "role": arm.role,
    }
    return {key: value for key, value in told.items() if value is not None}
