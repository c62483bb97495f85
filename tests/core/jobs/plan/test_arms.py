"""What a plan's grids and single arms make, and what each control is the control of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from iarmem_plugin import InputError, Plan, PlannedArm

GRID = {
    "selectors": ["highest", "gradient-weight"],
    "interventions": ["scale-weights", "zero"],
    "fractions": [0.1, 0.05],
    "random-sets": 2,
}


def plan(**more: Any) -> Plan:
    known: dict[str, Any] = {
        "model": {"name": "var-organism"},
        "pictures": {"organism": True},
        "scores": {"unitmem": "scores", "activity": "others"},
    }
    return Plan.from_document({**known, **more})


def arms(**more: Any) -> dict[str, PlannedArm]:
    found = plan(**more).arms()
    named = {one.name: one for one in found}
    assert len(named) == len(found)
    return named


def test_a_grid_crosses_its_selectors_interventions_and_fractions() -> None:
    found = [name for name, one in arms(grid=[GRID]).items() if one.role == "treatment"]
    assert found == [
        "highest, scale-weights(factor=0.5), 10%",
        "highest, scale-weights(factor=0.5), 5%",
        "highest, zero, 10%",
        "highest, zero, 5%",
        "gradient-weight, scale-weights(factor=0.5), 10%",
        "gradient-weight, scale-weights(factor=0.5), 5%",
        "gradient-weight, zero, 10%",
        "gradient-weight, zero, 5%",
    ]


def test_an_arm_by_contrast_is_the_highest_of_its_scorers_own_scores() -> None:
    found = arms(grid=[GRID])
    contrasted = found["gradient-weight, zero, 10%"]
    assert (contrasted.selector, contrasted.scorer) == ("highest", "gradient-weight")
    assert contrasted.scores is None
    plain = found["highest, zero, 10%"]
    assert (plain.selector, plain.scorer, plain.scores) == ("highest", None, "unitmem")


def test_random_sets_have_the_same_seeds_at_every_fraction_and_differ_from_each_other() -> None:
    drawn = [one for one in arms(seed=7, grid=[GRID]).values() if one.role == "control"]
    assert Counter(one.seed for one in drawn) == {8: 4, 9: 4}
    assert {one.selector for one in drawn} == {"random"}
    assert drawn[0].name == "random 1, scale-weights(factor=0.5), 10%"


def test_a_random_set_stands_for_what_has_its_intervention_and_fraction() -> None:
    found = arms(grid=[GRID])
    assert found["random 2, zero, 5%"].stands_for == (
        "highest, zero, 5%",
        "gradient-weight, zero, 5%",
    )
    assert found["highest, zero, 5%"].stands_for == ()


def test_random_sets_of_each_block_stand_for_those_of_each_block_alone() -> None:
    grid = {"selectors": ["highest", "highest:pool=block"], "random-sets": 1}
    found = arms(grid=[grid])
    own = found["random(pool=block) 1, scale-weights(factor=0.5), 10%"]
    assert own.selector == "random:pool=block"
    assert own.stands_for == ("highest(pool=block), scale-weights(factor=0.5), 10%",)
    whole = found["random 1, scale-weights(factor=0.5), 10%"]
    assert whole.stands_for == ("highest, scale-weights(factor=0.5), 10%",)


def test_matched_sets_are_drawn_beside_each_arm_to_its_selector() -> None:
    selectors = ["highest:pool=block,by=mean_activation", "gradient-weight"]
    found = arms(grid=[{"selectors": selectors, "random-sets": 0, "matched-sets": 2}])
    treated = [one for one in found.values() if one.role == "treatment"]
    matched = [one for one in found.values() if one.role == "control"]
    assert [one.stands_for for one in matched] == [(one.name,) for one in treated for _ in "12"]
    assert [one.seed for one in matched] == [1, 2, 1, 2]
    to = "random-matched:to='highest:pool=block,by=mean_activation'"
    assert [one.selector for one in matched] == [to, to, *["random-matched:to=highest"] * 2]
    assert [one.scorer for one in matched] == [None, None, *["gradient-weight"] * 2]
    assert matched[0].name == f"matched 1 with {treated[0].name}"


def test_other_scores_than_the_first_are_named() -> None:
    found = arms(grid=[{"scores": "activity", "random-sets": 1}])
    named = found["highest of activity, scale-weights(factor=0.5), 10%"]
    assert named.scores == "activity"
    assert "random 1, scale-weights(factor=0.5), 10%" in found


def test_arms_that_are_alike_are_one_under_the_first_name() -> None:
    single = {
        "name": "the paper's",
        "selector": "highest:pool=model",
        "intervention": "scale-weights:factor=0.5",
        "fraction": 0.1,
    }
    found = arms(arm=[single, {**single, "name": "again"}], grid=[{"random-sets": 1}] * 2)
    assert list(found) == ["the paper's", "random 1, scale-weights(factor=0.5), 10%"]
    assert found["random 1, scale-weights(factor=0.5), 10%"].stands_for == ("the paper's",)


def test_a_single_control_stands_for_what_has_its_intervention_and_fraction() -> None:
    lowest = {
        "name": "lowest",
        "selector": "lowest",
        "intervention": "scale-weights",
        "fraction": 0.1,
        "role": "control",
    }
    found = arms(arm=[lowest, {**lowest, "name": "more", "fraction": 0.2}], grid=[{}])
    assert found["lowest"].stands_for == ("highest, scale-weights(factor=0.5), 10%",)
    assert found["more"].stands_for == ()


def test_single_random_neurons_are_a_control_and_an_edit_a_treatment() -> None:
    drawn = {"selector": "random", "intervention": "zero", "fraction": 0.01, "seed": 5}
    found = arms(
        seed=2, arm=[{"name": "chance", **drawn}, {"name": "noise", "edit": "logit-noise:std=1"}]
    )
    assert (found["chance"].role, found["chance"].seed) == ("control", 5)
    assert found["noise"] == PlannedArm("noise", edit="logit-noise:std=1", seed=2)


def test_fractions_are_named_exactly() -> None:
    found = arms(grid=[{"fractions": [0.001, 1.0, 0.1000001, 0.3], "random-sets": 0}])
    shares = [name.rpartition(", ")[2] for name in found]
    assert shares == ["0.1%", "100%", "10.00001%", "30%"]


def test_a_plan_without_scores_may_edit_by_contrast_alone() -> None:
    pictures = {"images": "train"}
    grid = {"selectors": ["gradient-weight"], "random-sets": 1}
    found = arms(pictures=pictures, scores={}, grid=[grid])
    assert [one.scores for one in found.values()] == [None, None]
    with pytest.raises(InputError, match="has matched-sets, which needs scores"):
        arms(pictures=pictures, scores={}, grid=[{**grid, "matched-sets": 1}])
    with pytest.raises(InputError, match="has the selector 'lowest', which needs scores"):
        lowest = {"selector": "lowest", "intervention": "zero", "fraction": 0.1}
        arms(pictures=pictures, scores={}, arm=[{"name": "x", **lowest}])


def test_an_organism_without_scores_is_scored_by_unitmem() -> None:
    found = arms(scores={}, grid=[{"random-sets": 0}])
    assert [one.scores for one in found.values()] == ["unitmem"]


def test_too_many_arms_are_refused_before_they_are_made() -> None:
    grid = {"fractions": [0.1] * 1000, "random-sets": 10_000}
    with pytest.raises(InputError, match="has 10,001,000 arms with this"):
        plan(grid=[grid])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "the plan: the plan has nothing to compare; add a"),
        ({"grid": [{"per_class": 1}]}, "the plan: [[grid]] has no key 'per_class'; it has: sel"),
        ({"grid": [{}], "pictures": {"organism": True, "root": "x"}}, "so leave 'root' out"),
        ({"grid": [{}], "model": {"name": "var-d16"}}, "expected one of rar-organism, var-org"),
        ({"grid": [{}], "model": {"name": "var-organism-twin"}}, "expected one of rar-organism"),
    ],
)
def test_a_plan_from_python_is_refused_in_the_same_words(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(**more)
    assert said in str(caught.value)


def test_a_twin_alone_is_something_to_compare() -> None:
    assert plan(twin={"name": "var-organism-twin"}).arms() == []


def test_another_device_is_the_twins_too() -> None:
    found = plan(twin={"name": "var-organism-twin"}).on(device="cuda:1", batch_size=3)
    assert found.twin is not None
    assert (found.model.device, found.twin.device, found.attack.batch_size) == (*["cuda:1"] * 2, 3)
    assert plan(grid=[{}]).on() == plan(grid=[{}])


def test_what_is_chosen_on_candidates_is_split_and_nothing_else() -> None:
    grid = GRID | {"interventions": ["zero"], "fractions": [0.1], "random-sets": 1}
    found = arms(grid=[grid], evidence={"splits": 3})
    assert list(found) == [
        "highest, zero, 10%",
        "gradient-weight, zero, 10%",
        "gradient-weight, zero, 10%, split 2",
        "gradient-weight, zero, 10%, split 3",
        "random 1, zero, 10%",
    ]
    third = found["gradient-weight, zero, 10%, split 3"]
    assert (third.split, third.whole_name) == (2, "gradient-weight, zero, 10%")


def test_an_organisms_unitmem_may_leave_out_what_is_tested() -> None:
    own = {"scores": "unitmem-split", "fractions": [0.1, 1.0], "random-sets": 0, "matched-sets": 1}
    found = plan(scores={}, grid=[own], evidence={"splits": 2}).arms()
    how = "highest of unitmem-split, scale-weights(factor=0.5)"
    assert [one.name for one in found] == [
        f"{how}, 10%",
        f"{how}, 10%, split 2",
        f"{how}, 100%",
        f"matched 1 with {how}, 10%",
        f"matched 1 with {how}, 100%",
    ]


HALVED = {"arm": "highest, scale-weights(factor=0.5), 10%"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"expect": [{"arm": "highest"}]}, r"\[\[expect\]\] arm is 'highest'; it has|did you mean"),
        ({"expect": [{"arm": "x"}]}, r"it has: 'highest, scale-weights\(factor=0.5\), 10%', 'ran"),
        ({"expect": [{"family": "all"}]}, r"\[\[expect\]\] lacks 'arm'"),
        ({"expect": [HALVED | {"against": HALVED["arm"]}]}, "against is the arm itself"),
        ({"expect": [HALVED | {"against": "random-matched"}]}, "no such sets; give a"),
        ({"expect": [HALVED | {"against": "twin"}]}, r"against is 'twin'"),
        ({"expect": [HALVED | {"at": "dawn"}]}, "expected 'equal quality' or 'equal fraction'"),
        ({"expect": [HALVED | {"outcome": "fid"}]}, "expected 'agreement'"),
        (
            {"expect": [HALVED | {"family": "all"}] * 2, "evidence": {"sets": 19}},
            "has more than 1 tests; with 19 sets and alpha 0.05",
        ),
        ({"evidence": {"splits": 0}}, "expected a whole number from 1 to 100"),
        ({"scores": {"unitmem-split": "scores"}}, "give another name"),
    ],
)
def test_what_cannot_be_expected_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(**{"grid": [{}], **more})


def test_what_is_expected_may_be_held_against_other_arms() -> None:
    other = "gradient-weight, scale-weights(factor=0.5), 10%"
    expect = [HALVED | {"against": one} for one in ("random-matched", other)]
    assert len(plan(grid=[GRID | {"matched-sets": 1}], expect=expect).expect) == 2
