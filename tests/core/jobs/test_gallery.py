"""Of many arms, the gallery shows some of each role."""

from __future__ import annotations

from iarmem_plugin.jobs.gallery import MOST_SHOWN, pictured
from iarmem_plugin.report.results import ArmResult


def arm(called: str, role: str, **selector: object) -> ArmResult:
    made = {"name": "highest", "seed": 0, **selector}
    return ArmResult(called, {"name": "zero"}, made, 0.1, (), role=role)  # type: ignore[arg-type]  # a role


def test_of_few_arms_all_are_shown() -> None:
    arms = [arm(str(number), "treatment") for number in range(5)]
    assert pictured(arms) == list("01234")


def test_of_many_one_of_each_kind_is_shown_and_the_twin() -> None:
    plain = {"intervention": None, "selector": None, "fraction": None, "quality": ()}
    original = ArmResult("original", **plain, role="original")  # type: ignore[arg-type]  # as above
    twin = ArmResult("twin", **plain, role="twin")  # type: ignore[arg-type]  # as above
    splits = [arm(f"split {n}", "treatment", cross_fit={"seed": n, "halves": 2}) for n in range(5)]
    others = [arm(f"by {n}", "treatment", by=str(n)) for n in range(20)]
    sets = [arm(f"random {n}", "control", name="random", seed=n) for n in range(30)]
    found = pictured([original, *splits, *others, *sets, twin])
    treated = MOST_SHOWN["treatment"] - 1
    assert found == [
        *("original", "split 0", *(f"by {n}" for n in range(treated))),
        *("random 0", "twin"),
    ]
