"""What is declared before a run: random sets that bracket its cost, splits, and the day."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.jobs.arms import Measured
from iarmem_plugin.jobs.compare.bracketing import brackets, most_added, with_more_sets
from iarmem_plugin.jobs.compare.estimate import estimate
from iarmem_plugin.jobs.compare.job import compare
from iarmem_plugin.jobs.compare.shared import Shared
from iarmem_plugin.jobs.contrast import scored_on
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.plan.plan import Plan
from iarmem_plugin.jobs.scores import save_scores
from iarmem_plugin.models.loading import load
from iarmem_plugin.models.provenance import model_provenance
from iarmem_plugin.stages import Cells

pytestmark = pytest.mark.filterwarnings("ignore:the threshold .* was fixed on 3 held-out images")

MODEL = "var-organism"
ARM = {
    "name": "halved",
    "selector": "highest",
    "intervention": "scale-weights:factor=0.5",
    "fraction": 0.1,
}
GRID = {
    "interventions": ["scale-weights:factor=0.5"],
    "fractions": [0.1, 0.2, 0.4],
    "random-sets": 2,
}
FEW = {"sets": 3, "alpha": 0.4}
EXPECT = {"arm": "halved", "family": "primary"}
HELD_OUT = np.array(["canary"] + ["held-out"] * 4)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def declared(**more: Any) -> Plan:
    known: dict[str, Any] = {
        "model": {"name": MODEL},
        "pictures": {"organism": True},
        "evidence": FEW,
        "arm": [ARM],
        "grid": [GRID],
        "expect": [EXPECT],
    }
    return Plan.from_document({**known, **more})


def costing(costs: dict[str, Sequence[float]]) -> Callable[[str], Measured]:
    """Give each arm the changes of the held-out pictures' losses, the same for all arms named so.

    Random sets are named by their fraction alone.
    """

    def measured(name: str) -> Measured:
        key = name if name in costs else name.rpartition(", ")[2]
        return Measured(xr.Dataset({"loss": ("candidate", [9.0, *costs[key]])}))

    return measured


ORIGINAL = Measured(xr.Dataset({"loss": ("candidate", np.zeros(5))}))


@pytest.mark.parametrize(
    ("halved", "expected"),
    [
        ([0.3] * 4, (0.2, 0.4)),
        ([0.2] * 4, (0.2,)),  # just what these cost
        ([0.0, 0.2, 0.3, 0.6], (0.2, 0.4)),  # on average
        ([-0.3] * 4, (0.1,)),  # costs nothing: the first reaches that
        ([9.0] * 4, (0.4,)),  # none costs as much
    ],
)
def test_the_fractions_lie_on_both_sides_of_what_the_arm_costs(
    halved: list[float], expected: tuple[float, ...]
) -> None:
    plan = declared()
    costs = {"10%": [0.1] * 4, "20%": [0.2] * 4, "40%": [0.4] * 4, "halved": halved}
    (found,) = brackets(plan, plan.arms(), costing(costs), ORIGINAL, HELD_OUT)
    assert found == ("halved", "scale-weights:factor=0.5", expected)


def test_more_fractions_are_needed_where_sets_differ_in_what_they_cost() -> None:
    plan = declared(grid=[GRID | {"random-sets": 10}])
    costs: dict[str, Sequence[float]] = {"10%": [0.1] * 4, "20%": [0.2] * 4, "40%": [0.4] * 4}
    one = {"random 7, scale-weights(factor=0.5), 20%": [0.5] * 4}
    for odd, expected in ((1, (0.2, 0.4)), (2, (0.1, 0.2, 0.4))):
        more = one if odd == 1 else one | {"random 8, scale-weights(factor=0.5), 20%": [0.5] * 4}
        halved = costing(costs | more | {"halved": [0.3] * 4})
        (found,) = brackets(plan, plan.arms(), halved, ORIGINAL, HELD_OUT)
        assert found.fractions == expected
    late = {"random 3, scale-weights(factor=0.5), 40%": [0.25] * 4}
    full = declared(grid=[GRID | {"random-sets": 10, "fractions": [0.1, 0.2, 0.4, 1.0]}])
    halved = costing(costs | late | {"100%": [0.9] * 4, "halved": [0.3] * 4})
    (found,) = brackets(full, full.arms(), halved, ORIGINAL, HELD_OUT)
    assert found.fractions == (0.2, 0.4, 1.0)  # one of ten does not reach it at 40%


def test_nothing_is_bracketed_without_losses_or_without_a_family() -> None:
    plan, costs = declared(), {"10%": [0.1] * 4, "20%": [0.2] * 4, "40%": [0.4] * 4}
    everything = costing(costs | {"halved": [0.3] * 4})
    assert brackets(plan, plan.arms(), everything, Measured(), HELD_OUT) == []
    nobody = np.full(5, "canary")
    assert brackets(plan, plan.arms(), everything, ORIGINAL, nobody) == []
    plain = declared(expect=[{"arm": "halved"}])
    assert brackets(plain, plain.arms(), everything, ORIGINAL, HELD_OUT) == []
    assert most_added(plain) == 0


def test_the_added_sets_go_on_where_the_plans_end() -> None:
    plan = declared()
    costs = {"10%": [0.1] * 4, "20%": [0.2] * 4, "40%": [0.4] * 4, "halved": [0.3] * 4}
    found = brackets(plan, plan.arms(), costing(costs), ORIGINAL, HELD_OUT)
    known = {one.name for one in plan.arms()}
    more = [one for one in with_more_sets(plan, found).arms() if one.name not in known]
    assert [(one.name, one.seed) for one in more] == [
        ("random 3, scale-weights(factor=0.5), 20%", 3),
        ("random 3, scale-weights(factor=0.5), 40%", 3),
    ]
    assert most_added(plan) == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, count in (("tried", 6), ("held-out", 6)):
        for number in range(count):
            file = place / name / str(number % 2) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    pictures = Images.from_folder(place / "tried", num_classes=9)
    save_scores(localize(load(MODEL), pictures, options=CaptureOptions(views=1)), place / "scores")
    return place


def of_folder(folder: Path, **more: Any) -> Plan:
    pictures = {"candidates": str(folder / "tried"), "held-out": str(folder / "held-out")}
    attack = {"few-held-out": True, "batch-size": 8, "recalibrate": False}
    scores = {"unitmem": str(folder / "scores")}
    return declared(pictures=pictures, attack=attack, scores=scores, **more)


def test_a_run_adds_sets_says_where_and_when_it_was_declared(folder: Path, tmp_path: Path) -> None:
    few = GRID | {"fractions": [0.1, 0.4]}
    plan = of_folder(folder, grid=[few])
    report = compare(plan, tmp_path / "out")
    (found,) = report.provenance["bracketed"]
    assert found["arm"] == "halved"
    added = [arm for arm in report.arms if arm.name.startswith("random 3")]
    assert added
    assert [arm.fraction for arm in added] == list(found["fractions"])
    assert report.provenance["declared"]["completions"] == 0

    later = of_folder(folder, grid=[few], expect=[EXPECT | {"direction": "more"}])
    again = compare(later, tmp_path / "out")
    assert [arm.name for arm in again.arms] == [arm.name for arm in report.arms]
    known = again.provenance["declared"]["completions"]
    assert known == len(report.arms)  # what is expected now was not said before these


def test_the_added_sets_are_counted_before(folder: Path) -> None:
    found = estimate(of_folder(folder))
    assert found.steps[-1].name == "completions"
    assert found.steps[-1].arms == 1 + 1 + 2 + 6 + 2
    assert any("What the family 'primary' can show: At α = 0.4" in one for one in found.notes)
    assert any("2 of the arms are random sets for what is declared" in one for one in found.notes)


def test_candidates_are_halved_anew_for_each_split(folder: Path, tmp_path: Path) -> None:
    grid = {"selectors": ["difference-of-means"], "fractions": [0.1, 1.0], "random-sets": 1}
    plan = of_folder(
        folder, evidence={"splits": 2}, expect=[], arm=[], grid=[grid | {"random-sets": 2}]
    )
    report = compare(plan, tmp_path)
    treated = [arm for arm in report.arms if arm.role == "treatment"]
    how = "difference-of-means, scale-weights(factor=0.5)"
    assert [arm.name for arm in treated] == [f"{how}, 10%", f"{how}, 10%, split 2", f"{how}, 100%"]
    first, second = (arm.selector["cross_fit"]["seed"] for arm in treated[:2] if arm.selector)
    assert (first, second) == (0, 1)
    half = report.extraction["half"]
    one, other = (half.sel(arm=arm.name).values for arm in treated[:2])
    assert (one != other).any()
    assert (np.bincount(one) == np.bincount(other)).all()
    cells = list((tmp_path / "progress").glob("completions-*.nc"))
    assert len(cells) == len(report.arms) - 1  # all neurons are all neurons, whoever drew them


def test_unitmem_is_scored_without_the_half_that_is_tested(folder: Path, tmp_path: Path) -> None:
    model = load(MODEL)
    images = Images.from_folder(folder / "tried", num_classes=9)
    candidates = Candidates(images, np.full(6, "candidate"))
    shared = Shared(Cells(tmp_path), model, model_provenance(model), 8, 0)
    found = shared.unitmem_split(images, candidates, 2)
    assert [one.seed for one in found] == [0, 1]
    for one in found:
        for half in (0, 1):
            scored = scored_on(candidates, one.half != half)
            alone = localize(model, scored, options=CaptureOptions(seed=0))
            np.testing.assert_allclose(
                *(one.scores[half]["score"].values, alone["score"].values), rtol=0, atol=1e-4
            )
