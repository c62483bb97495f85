"""A comparison from a plan: the numbers of `mitigate`, by any number of workers, whatever fails."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.compare import cells as arm_cells
from iarmem_plugin.jobs.compare.estimate import estimate
from iarmem_plugin.jobs.compare.job import compare
from iarmem_plugin.jobs.compare.settings import image_measure
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.plan.plan import Plan
from iarmem_plugin.jobs.protocol import with_held_out
from iarmem_plugin.jobs.recalibration import Recalibration
from iarmem_plugin.jobs.scores import save_scores
from iarmem_plugin.models.loading import load
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights
from iarmem_plugin.neurons.selectors import Highest, Random
from iarmem_plugin.report.netcdf import netcdf
from iarmem_plugin.report.report import Report
from iarmem_plugin.stages import Cells

pytestmark = pytest.mark.filterwarnings("ignore:the threshold .* was fixed on 3 held-out images")

MODEL = "var-organism"
GRID = {"fractions": [0.1], "random-sets": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> ImageARModel:
    return load(MODEL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: ImageARModel) -> Path:
    """A folder with ``tried``, ``held-out`` and ``real`` pictures, and ``scores``."""
    place, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, count in (("tried", 5), ("held-out", 6), ("real", 10)):
        for number in range(count):
            file = place / name / str(number % 2) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    pictures = Images.from_folder(place / "tried", num_classes=9)
    scores = localize(model, pictures, options=CaptureOptions(views=2))
    save_scores(scores, place / "scores")
    return place


Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def planned(folder: Path) -> Planned:
    """Make the plan, or one with other tables."""

    def plan(**tables: Any) -> Plan:
        document: dict[str, Any] = {
            "model": {"name": MODEL},
            "pictures": {
                "candidates": str(folder / "tried"),
                "held-out": str(folder / "held-out"),
            },
            "scores": {"unitmem": str(folder / "scores")},
            "attack": {"few-held-out": True, "batch-size": 8},
            "grid": [GRID],
        }
        return Plan.from_document(document | tables)

    return plan


@pytest.fixture(scope="module")
def whole(planned: Planned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison that was left in peace."""
    out = tmp_path_factory.mktemp("whole") / "out"
    compare(planned(), out)
    return out


@pytest.fixture
def run_stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages of arms that are run."""
    names, known = list[str](), arm_cells.run_stages

    def told(model: ImageARModel, arm: Arm, *rest: Any) -> object:
        names.append(f"{rest[-1][0]} of {arm.name}")
        return known(model, arm, *rest)

    monkeypatch.setattr(arm_cells, "run_stages", told)
    return names


def numbers(report: Report) -> tuple[object, ...]:
    assert report.neurons is not None
    return netcdf(report.extraction), report.neurons.to_numpy().tobytes(), report.arms


def test_it_gives_the_numbers_of_mitigate(whole: Path, folder: Path, model: ImageARModel) -> None:
    tried = Images.from_folder(folder / "tried", num_classes=9)
    held_out = Images.from_folder(folder / "held-out", num_classes=9)
    unseen, views = held_out.subset(range(0, 6, 2)), model.adapter.variant.views
    similarity, recognition = PixelCorrelation(), Recognition()
    candidates = with_held_out(
        *(model, Candidates(tried, np.full(5, "candidate")), held_out, similarity),
        few=True,
        recognition=recognition,
        batch_size=8,
    )
    halved = ScaleWeights(0.5)
    arms = [Arm("highest, scale-weights(factor=0.5), 10%", Highest(), halved)]
    arms += [
        Arm(f"random {n}, scale-weights(factor=0.5), 10%", Random(), halved, seed=n, role="control")
        for n in (1, 2)
    ]
    expected = mitigate(
        model,
        xr.load_dataset(folder / "scores" / "scores.nc", engine="h5netcdf"),
        candidates,
        arms,
        similarity=similarity,
        recognition=recognition,
        losses=loss_protocol(model, HeldOutLoss(), unseen, views, batch_size=8),
        recalibration=Recalibration(Candidates(unseen, np.full(3, "held-out"))),
        options=ExtractionOptions(batch_size=8),
    )
    found = Report.load(whole)
    for one in (found, expected):
        for name in ("threshold_source", "recognition_threshold_source"):
            del one.extraction.attrs[name]
    xr.testing.assert_identical(found.extraction, expected.extraction)
    assert found.neurons is not None
    assert expected.neurons is not None
    np.testing.assert_array_equal(found.neurons.values, expected.neurons.values)
    assert [arm.role for arm in found.arms] == [arm.role for arm in expected.arms]


def test_the_plan_is_in_the_report_and_makes_it_again(
    whole: Path, planned: Planned, tmp_path: Path
) -> None:
    report = Report.load(whole)
    plan = Plan.from_document(report.provenance["plan"])
    assert plan == planned()
    assert (report.provenance["dropped"], report.provenance["failed"]) == ([], [])
    again = compare(plan, tmp_path / "again")
    assert numbers(again) == numbers(report)


def test_an_arm_under_another_name_is_not_run_again(
    planned: Planned, whole: Path, tmp_path: Path, run_stages: list[str]
) -> None:
    shutil.copytree(whole, tmp_path / "out")
    arm = {"selector": "highest", "intervention": "scale-weights", "fraction": 0.1}
    named = planned(grid=[], arm=[arm | {"name": name} for name in ("the paper's", "control")])
    report = compare(named, tmp_path / "out")
    assert run_stages == []
    assert [one.name for one in report.arms] == ["original", "the paper's"]


def test_what_is_there_is_not_done_again_and_arms_may_be_added(
    whole: Path, planned: Planned, run_stages: list[str]
) -> None:
    before = numbers(Report.load(whole))
    assert numbers(compare(planned(), whole)) == before
    assert run_stages == []
    more = planned(grid=[GRID | {"random-sets": 3}])
    assert len(compare(more, whole).arms) == 5
    third = "random 3, scale-weights(factor=0.5), 10%"
    assert run_stages == [f"losses of {third}", f"completions of {third}"]


def test_an_arm_that_fails_is_said_and_the_others_go_on(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, broken = arm_cells.run_stages, "random 2, scale-weights(factor=0.5), 10%"

    def fail(model: ImageARModel, arm: Arm, *rest: Any) -> object:
        if arm.name == broken:
            raise RuntimeError("no such\nthing")
        return known(model, arm, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(arm_cells, "run_stages", fail)
        report = compare(planned(), tmp_path)
    assert [arm.name for arm in report.arms][2:] == ["random 1, scale-weights(factor=0.5), 10%"]
    (failed,) = report.provenance["failed"]
    assert (failed["name"], failed["stage"]) == (broken, "losses")
    assert failed["error"].startswith("RuntimeError: no such")
    assert compare(planned(), tmp_path).arms[-1].name == broken  # what is missing is done


def test_rules_drop_arms_and_their_controls_before_a_stage(
    planned: Planned, tmp_path: Path, run_stages: list[str]
) -> None:
    rule = {"before": "extraction", "outcome": "held-out change", "above": -1000.0}
    report = compare(planned(drop=[rule]), tmp_path)
    assert [arm.name for arm in report.arms] == ["original"]
    first, *controls = report.provenance["dropped"]
    assert first["name"].startswith("highest")
    assert "above -1000" in first["why"]
    assert [one["why"] for one in controls] == [f"control of {first['name']}"] * 2
    assert [one for one in run_stages if one.startswith("completions")] == [
        "completions of original"
    ]
    kept = compare(planned(drop=[rule | {"above": 1000.0}]), tmp_path)
    assert len(kept.arms) == 4


def test_an_arm_that_leaves_the_model_changed_fails_and_harms_no_other(
    planned: Planned, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, spoiling = arm_cells.run_stages, "highest, scale-weights(factor=0.5), 10%"

    def spoil(model: ImageARModel, arm: Arm, *rest: Any) -> object:
        found = known(model, arm, *rest)
        if arm.name == spoiling:
            with torch.no_grad():
                next(iter(model.adapter.network.parameters())).mul_(1.3)
        return found

    monkeypatch.setattr(arm_cells, "run_stages", spoil)
    report = compare(planned(), tmp_path)
    (failed,) = report.provenance["failed"]
    assert failed["name"] == spoiling
    assert "weights are not as they were before this arm" in failed["error"]
    expected = Report.load(whole).extraction
    for one in ("original", "random 1, scale-weights(factor=0.5), 10%"):
        xr.testing.assert_equal(report.extraction.sel(arm=one), expected.sel(arm=one))


def test_an_intervention_that_cannot_be_made_fails_alone(planned: Planned, tmp_path: Path) -> None:
    grid = GRID | {"interventions": ["scale-weights", "scale-weights:reads=gate"], "random-sets": 1}
    report = compare(planned(grid=[grid]), tmp_path)
    assert len(report.arms) == 3
    failed = report.provenance["failed"]
    assert [one["stage"] for one in failed] == ["rehearsal"] * 2
    assert "no map named 'gate'" in failed[0]["error"]


def test_cells_that_vanish_are_missed_before_the_report(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = arm_cells.run_stages

    def lose(model: ImageARModel, arm: Arm, *rest: Any) -> object:
        if rest[-1] == ("completions",):
            for file in (tmp_path / "progress").glob("losses-*.nc"):
                file.unlink()
        return known(model, arm, *rest)

    monkeypatch.setattr(arm_cells, "run_stages", lose)
    with pytest.raises(InputError, match="the losses of arm 'original' were finished, and are"):
        compare(planned(), tmp_path)


def test_restarting_beside_a_worker_that_lives_is_refused(planned: Planned, tmp_path: Path) -> None:
    with Cells(tmp_path / "progress").claims.taken("losses-0123456789abcdef"):
        with pytest.raises(InputError, match=r"a worker is at work in .*process"):
            compare(planned(), tmp_path, restart=True)


def test_an_estimate_counts_images_and_passes(planned: Planned) -> None:
    found = {one.name: one for one in estimate(planned()).steps}
    assert (found["losses"].arms, found["losses"].images) == (4, 4 * (5 + 3 + 3))
    assert found["losses"].passes == found["losses"].images  # one each
    assert found["completions"].images == 4 * (5 + 3 + 3)
    assert found["completions"].passes > 3 * found["completions"].images  # a pass a scale
    assert all(one.seconds > 0 for one in found.values())


def test_a_list_of_neurons_that_cannot_be_is_refused_before_anything_is_run(
    planned: Planned, tmp_path: Path, run_stages: list[str]
) -> None:
    (tmp_path / "list.csv").write_text("block,neuron\n0,1\n0,2\n")
    listed = f"listed:file={tmp_path / 'list.csv'}"
    arm = {"name": "mine", "selector": listed, "intervention": "zero", "fraction": 0.5}
    for run in (estimate, lambda plan: compare(plan, tmp_path / "out")):
        with pytest.raises(InputError, match=r"^the neuron list .*holds 2 of 2048 neurons"):
            run(planned(grid=[], arm=[arm]))
    assert run_stages == []


def test_a_folder_that_is_not_ours_is_refused(planned: Planned, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds no report"):
        compare(planned(), tmp_path)


def test_the_model_that_is_given_back_is_the_one_that_was_loaded(model: ImageARModel) -> None:
    assert weights_sha256(model) == weights_sha256(load(MODEL))


def test_what_all_arms_share_is_made_once_for_all_workers(
    folder: Path, planned: Planned, dinov2_folder: Path, tmp_path: Path
) -> None:
    names = {"images": "tried", "held-out": "held-out", "reference": "real"}
    plan = planned(
        pictures={key: str(folder / name) for key, name in names.items()},
        attack={"few-held-out": True, "batch-size": 8, "per-class": 1},
        quality={"images": f"fd-dinov2:weights={dinov2_folder}", "generated": 10},
        grid=[{"selectors": ["gradient-weight"], "random-sets": 0, "matched-sets": 1}],
    )
    report = compare(plan, tmp_path / "out")
    assert [arm.role for arm in report.arms] == ["original", "treatment", "control"]
    assert report.provenance["candidates"]["chosen"] == "best predicted of each class"
    assert report.extraction["group"].values.tolist() == ["ranked"] * 2 + ["held-out"] * 3
    assert all(len(arm.quality) for arm in report.arms)
    assert report.neurons is not None
    assert report.neurons.sum(("block", "neuron")).values.tolist() == [[0, 0], [205] * 2, [205] * 2]
    made = Counter(file.name.partition("-")[0] for file in (tmp_path / "out/progress").glob("*.nc"))
    assert made["ranking"] == made["contrast"] == made["thresholds"] == 1
    assert (made["tokens"], made["features"], made["images"]) == (2, 1, 3)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/progress").glob("*.nc")}
    again = compare(plan, tmp_path / "out")
    assert numbers(again) == numbers(report)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_pictures_that_were_changed_in_place_are_not_taken_for_the_same(
    folder: Path, planned: Planned, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "mine")
    pictures = {
        "candidates": str(tmp_path / "mine" / "tried"),
        "held-out": str(tmp_path / "mine" / "held-out"),
    }
    plan = planned(pictures=pictures, grid=[GRID | {"random-sets": 0}])
    first = compare(plan, tmp_path / "out")
    changed = tmp_path / "mine" / "tried" / "0" / "0.png"
    Image.open(changed).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    second = compare(plan, tmp_path / "out")
    fresh = compare(plan, tmp_path / "fresh")
    assert numbers(second) == numbers(fresh)
    assert numbers(second) != numbers(first)


def test_ranked_pictures_that_were_changed_are_ranked_anew(
    folder: Path, planned: Planned, tmp_path: Path
) -> None:
    shutil.copytree(folder / "tried", tmp_path / "tried")
    plan = planned(
        pictures={"images": str(tmp_path / "tried"), "held-out": str(folder / "held-out")},
        attack={"few-held-out": True, "batch-size": 8, "per-class": 1},
        grid=[GRID | {"random-sets": 0}],
    )
    first = compare(plan, tmp_path / "out")
    tried = set(first.extraction["path"].values.tolist())
    for shade, file in enumerate(sorted((tmp_path / "tried").rglob("*.png"))):
        if str(file.relative_to(tmp_path / "tried")) not in tried:
            Image.new("RGB", (32, 32), (255, 255, 255 - shade)).save(file)
    second = compare(plan, tmp_path / "out")
    assert numbers(second) == numbers(compare(plan, tmp_path / "fresh"))
    assert set(second.extraction["path"].values.tolist()) != tried


def test_an_organism_is_seen_by_its_own_classifier() -> None:
    document = {"model": {"name": MODEL}, "pictures": {"organism": True}, "grid": [{}]}
    plan = Plan.from_document(document | {"quality": {"images": "fid"}})
    assert "emoji classifier" in str(image_measure(plan, "cpu").provenance)
    alone = document | {"pictures": {"images": "."}, "quality": {"images": "fid"}}
    with pytest.raises(InputError, match="'fid', which needs an extractor"):
        Plan.from_document(alone)
