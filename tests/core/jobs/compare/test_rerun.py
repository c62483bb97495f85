"""Two reports of one plan: what differs is found, and small differences of rounding are not."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from iarmem_plugin import InputError, Plan, QualityValue, Report
from iarmem_plugin.evaluation.recovery.curves import OUTCOMES
from iarmem_plugin.jobs.compare.rerun.differences import Differences, differences
from iarmem_plugin.jobs.plan.reading import plan_of
from iarmem_plugin.report.results import ArmResult, ArmRole

DIMS = ("arm", "attempt", "candidate")
GROUPS = ["canary 40"] * 3 + ["held-out"] * 2
ARMS: dict[str, ArmRole] = {"original": "original", "highest": "treatment", "random 1": "control"}
PLAN = {"model": {"name": "var-organism"}, "pictures": {"organism": True}, "grid": [{}]}


def make(**provenance: Any) -> Report:
    shape = (len(ARMS), len(GROUPS))
    similarity = np.linspace(0.1, 0.99, num=15).reshape(shape).astype("float32")
    extraction = xr.Dataset(
        {
            "similarity": (("arm", "candidate"), similarity),
            "equal_tokens": (("arm", "candidate"), np.full(shape, 4, "int32")),
            "extracted": (("arm", "candidate"), similarity > 0.5),
            "tokens": (("arm", "candidate", "token"), np.zeros((*shape, 8), "int32")),
        },
        coords={
            "arm": list(ARMS),
            "group": ("candidate", GROUPS),
            "role": ("candidate", ["canary"] * 3 + ["held-out"] * 2),
            "path": ("candidate", [f"{place}.png" for place in range(5)]),
            "label": ("candidate", np.zeros(5, "int32")),
            "image": ("candidate", np.arange(5)),
        },
        attrs={
            "threshold": 0.5,
            "threshold_source": "by hand",
            "similarity": "correlation",
            "prefix_tokens": 1,
        },
    )
    scores = xr.Dataset(
        {"score": (("block", "scale", "neuron"), np.ones((1, 1, 2), "float32"))},
        coords={"valid": (("block", "scale", "neuron"), np.ones((1, 1, 2), bool))},
        attrs={"metric": "unitmem"},
    )
    values = (QualityValue("FID", 2.5, 10),)
    arms = tuple(ArmResult(name, None, None, None, values, role) for name, role in ARMS.items())
    return Report(
        "tiny", {"cost": {"cpu_seconds": 1}, **provenance}, scores, arms, extraction, (), None
    )


def changed(report: Report, name: str, value: float, *, by: bool = True) -> Report:
    """Return a report with another value for the second candidate of the arm ``highest``."""
    extraction = report.extraction.copy(deep=True)
    extraction[name][1, 1] = extraction[name][1, 1] + value if by else value
    return replace(report, extraction=extraction)


def recovered(
    report: Report, *, by: float = 0.0, arms: int = 3, attempts: int = 2, trigger: str = "prefix"
) -> Report:
    """Return a report with what a trigger found, the last number apart by so much."""
    shape = (arms, attempts, len(GROUPS))
    similarity = np.full(shape, 0.25)
    similarity[-1, -1, 0] += by
    found = xr.Dataset(
        {
            "similarity": (DIMS, similarity),
            "agreement": (DIMS, np.zeros(shape)),
            **dict.fromkeys(OUTCOMES, (DIMS, similarity > 0.9)),
            **{f"{name}_threshold": (DIMS[:2], np.full(shape[:2], np.inf)) for name in OUTCOMES},
        },
        coords={
            "arm": list(ARMS)[:arms],
            "trigger": ("attempt", [trigger] * attempts),
            "unit": ("attempt", ["tokens"] * attempts),
            "budget": ("attempt", np.arange(attempts)),
            "calibrates": ("candidate", np.zeros(len(GROUPS), bool)),
            **{name: report.extraction[name] for name in ("group", "role", "path", "image")},
        },
    )
    return replace(report, recovery=found)


def told(found: Differences) -> str:
    console = Console(file=StringIO(), width=200)
    with console.capture() as shown:
        console.print(found.table())
    return shown.get()


def test_the_same_report_does_not_differ() -> None:
    found = differences(make(seed=1), make(seed=1, cost={"cpu_seconds": 9}))
    assert found == Differences((), (), (), (), 3)
    assert not found.found
    assert "Nothing differs in 3 arms" in told(found)


def test_settings_and_versions_differ_without_a_verdict() -> None:
    old = make(seed=1, versions={"torch": "2.6", "numpy": "2"}, plan={"seed": 1})
    found = differences(old, make(seed=1, versions={"torch": "2.7", "numpy": "2"}, device="cuda"))
    assert [(one.key, one.old, one.new) for one in found.settings] == [
        ("device", "", '"cuda"'),
        ("plan.seed", "1", ""),
        ("versions.torch", '"2.6"', '"2.7"'),
    ]
    assert not found.found
    assert "versions.torch" in told(found)


def test_a_similarity_that_differs_is_found_and_rounding_is_not() -> None:
    old = make()
    assert not differences(old, changed(old, "similarity", 5e-7)).found
    found = differences(old, changed(old, "similarity", 0.01))
    (one,) = found.numbers
    assert (one.arm, one.what, one.numbers) == ("highest", "similarity of 1.png", 1)
    assert one.largest == pytest.approx(0.01, abs=1e-6)  # float32
    assert "similarity of 1.png" in told(found)


def test_a_count_that_differs_is_found_with_its_group() -> None:
    old = make()
    before = bool(old.extraction["extracted"][1, 1])
    found = differences(old, changed(old, "extracted", not before, by=False))
    by_kind = {one.what.partition(",")[0]: one for one in found.numbers if one.arm == "highest"}
    assert by_kind["extraction"].what.startswith("extraction, canary 40")
    assert by_kind["extraction"].numbers >= 1
    assert "paired" in by_kind


def test_a_quality_that_differs_or_is_missing_is_found() -> None:
    old = make()
    worse = replace(old.arms[1], quality=(QualityValue("FID", 2.75, 10),))
    without = replace(old.arms[2], quality=())
    found = differences(old, replace(old, arms=(old.arms[0], worse, without)))
    first, second = found.numbers
    assert (first.what, first.old, first.new, first.largest) == (
        "quality, FID, value",
        2.5,
        2.75,
        0.25,
    )
    assert (second.arm, second.new, second.largest) == ("random 1", None, None)


def test_arms_on_one_side_are_found() -> None:
    old = make()
    fewer = replace(old, arms=old.arms[:2], extraction=old.extraction.isel(arm=slice(2)))
    found = differences(old, fewer)
    assert (found.missing, found.added, found.arms) == (("random 1",), (), 2)
    assert found.found
    assert "the arm is missing" in told(found)
    back = differences(fewer, old)
    assert (back.missing, back.added) == ((), ("random 1",))


def test_other_candidates_are_said_and_not_compared_one_by_one() -> None:
    old = make()
    others = old.extraction.assign_coords(image=("candidate", np.arange(5) + 1))
    found = differences(old, replace(old, extraction=others))
    assert [one.what for one in found.numbers] == ["candidates: as many, but others"]
    fewer = replace(old, extraction=old.extraction.isel(candidate=slice(4)))
    assert differences(old, fewer).numbers[0].what == "candidates: 5 in the report, 4 again"


def test_what_triggers_found_is_compared_too() -> None:
    report = recovered(make())
    assert not differences(report, recovered(make())).found
    (one,) = differences(report, recovered(make(), by=0.25)).numbers
    assert (one.arm, one.what, one.numbers) == ("random 1", "recovery, similarity", 1)
    assert one.largest == pytest.approx(0.25)


def test_what_was_tried_on_one_side_alone_is_said() -> None:
    report = recovered(make())
    (one,) = differences(report, recovered(make(), arms=2)).numbers
    assert (one.arm, one.what) == ("random 1", "recovery: missing now")
    found = differences(make(), report).numbers
    assert [one.what for one in found] == ["recovery: missing in the report"] * 3
    for other in (recovered(make(), attempts=1), recovered(make(), trigger="samples")):
        found = differences(report, other).numbers
        assert [one.what for one in found] == ["recovery: of other pictures or attempts"] * 3


def test_what_differs_is_json_too() -> None:
    old = make()
    document = json.loads(json.dumps(differences(old, changed(old, "similarity", 1.0)).to_dict()))
    assert document["found"] is True
    assert document["numbers"][0]["arm"] == "highest"


def test_the_plan_of_a_report_is_run_again_with_keys_in_place_of_its_own() -> None:
    document = Plan.from_document(PLAN).to_document()
    assert plan_of(make(plan=document)) == Plan.from_document(PLAN)
    again = plan_of(make(plan=document), given=("attack.per-class=7",))
    assert again.attack.per_class == 7
    with pytest.raises(InputError, match="the report holds no plan, so it cannot be run again"):
        plan_of(make())
    with pytest.raises(InputError, match=r"the plan in the report: \[attack\] has no key 'x'"):
        plan_of(make(plan={**document, "attack": {"x": 1}}))
    with pytest.raises(InputError, match=r"--set seed=x: seed is 'x'; expected a whole number"):
        plan_of(make(plan=document), given=("seed=x",))
