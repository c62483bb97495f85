"""Arms that edit the whole model stand in a report beside those that edit neurons."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Condition, EditData, Sampling
from iarmem_plugin.jobs.arms import Arm, run_stages
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.compare import cells
from iarmem_plugin.jobs.edits.making import edited_by
from iarmem_plugin.jobs.edits.noise import LogitNoise
from iarmem_plugin.jobs.edits.training import FineTune, GradientAscent
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.neurons.selectors import Highest, Random
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import columns, findings
from iarmem_plugin.testing.tiny import CLASSES, PIXELS

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "report.schema.json"
TUNED = Arm("fine-tuned", edit=FineTune(2, 1e-2), seed=3)
NOISY = tuple(Arm(f"noise {n}", edit=LogitNoise(3.0), seed=n, role="control") for n in range(2))
NEURONS = Arm("highest", Highest(), Zero(), 0.5)
DRAWN = tuple(Arm(f"random {n}", Random(), Zero(), 0.5, seed=n, role="control") for n in range(2))


@pytest.fixture
def others() -> Images:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (9, PIXELS, PIXELS, 3), np.uint8)
    return Images.from_arrays(pixels, np.arange(9) % CLASSES)


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    return Candidates(pictures, np.array(["canary 40"] * 4 + ["held-out"] * 3))


def run(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    arms: tuple[Arm, ...],
    **more: Any,
) -> Report:
    options = ExtractionOptions(prefix_tokens=1, checkpoints=more.pop("checkpoints", None))
    similarity = TokenAgreement(0.5)
    return mitigate(model, scores, candidates, arms, similarity=similarity, options=options, **more)


def test_an_edit_is_measured_as_an_edit_of_neurons_is(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, others: Images
) -> None:
    before = {name: one.clone() for name, one in model.adapter.network.state_dict().items()}
    report = run(model, scores, candidates, (NEURONS, TUNED, *NOISY), retained=others)
    after = model.adapter.network.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())
    views = model.adapter.variant.views
    targets, measure = make_targets(model, candidates, views), TokenAgreement(0.5)
    with edited_by(FineTune(2, 1e-2), model, EditData(retained=others), seed=3) as edited:
        expected = extract(edited, candidates, targets, similarity=measure, prefix_tokens=1)
    found = report.extraction.sel(arm="fine-tuned")
    assert np.array_equal(found["tokens"], expected["tokens"])
    assert not np.array_equal(found["tokens"], report.extraction["tokens"].sel(arm="original"))
    noise = report.extraction["tokens"].sel(arm=["noise 0", "noise 1"])
    assert not np.array_equal(noise[0], noise[1])


def test_the_report_says_what_was_done_and_that_no_neurons_were_chosen(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    others: Images,
    tmp_path: Path,
) -> None:
    arms = (NEURONS, TUNED, *DRAWN, *NOISY)
    report = run(model, scores, candidates, arms, retained=others)
    edits = {arm.name: arm.edit for arm in report.arms}
    given = {"steps": 2, "lr": 0.01, "batch_size": 32}
    assert edits["fine-tuned"] == {"name": "fine-tune", **given, "seed": 3}
    assert edits["highest"] is edits["original"] is None
    tuned = next(arm for arm in report.arms if arm.name == "fine-tuned")
    assert (tuned.intervention, tuned.selector, tuned.fraction) == (None, None, None)
    assert tuned.role == "treatment"
    assert report.neurons is not None
    assert int(report.neurons.sel(arm="fine-tuned").sum()) == 0
    assert [one["name"] for one in report.provenance["plugins"] if one["kind"] == "edit"] == [
        "fine-tune",
        "logit-noise",
    ]
    assert report.provenance["retained"]["images"] == 9
    assert columns(report.arms)["noise 0 … (2 sets)"] == ("noise 0", "noise 1")
    told = next(one for one in findings(report) if one.startswith("fine-tuned:"))
    assert "It edits no chosen neurons, so random ones are no control of it." in told
    folder = report.save(tmp_path / "report")
    document = json.loads((folder / "report.json").read_text())
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    assert [arm["name"] for arm in document["arms"] if "edit" in arm] == [
        *("fine-tuned", "noise 0", "noise 1")
    ]
    assert Report.load(folder).arms == report.arms
    page = (folder / "report.html").read_text()
    assert "edit of the whole model.name" in page
    assert "neurons edited" in page


def test_images_are_generated_by_the_edited_model_too(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, others: Images
) -> None:
    measure = TorchFidelity(Averages(), "averages")
    noise = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    protocol = QualityProtocol(
        measure,
        {"noise": measure.features([noise])},
        Condition.of([0] * 10),
        Sampling(greedy=False),
    )
    report = run(model, scores, candidates, (TUNED, NOISY[0]), retained=others, quality=protocol)
    values = [arm.quality[0].value for arm in report.arms]
    assert len(set(values)) == 3


class Averages(torch.nn.Module):
    """Features that need no training: mean colours of a picture's quarters."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures.float(), 2).flatten(1)


def test_a_finished_edit_is_not_made_again_unless_it_is_given_other_images(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    others: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def noted(model: ImageARModel, arm: Arm, *rest: Any) -> Any:
        made.append(arm.name)
        return run_stages(model, arm, *rest)

    def again(retained: Images, *arms: Arm) -> list[str]:
        made.clear()
        run(model, scores, candidates, arms, retained=retained, checkpoints=tmp_path)
        return list(made)

    monkeypatch.setattr(cells, "run_stages", noted)
    assert again(others, TUNED) == ["original", "fine-tuned"]
    assert again(others, TUNED) == []
    assert again(others, replace(TUNED, seed=4)) == ["fine-tuned"]
    assert again(others.subset([0, 1, 2]), TUNED) == ["fine-tuned"]


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (TUNED, "the edit 'fine-tune' cannot be made: there are no images of its training"),
        (
            Arm("quiet", edit=LogitNoise(change=0.1)),
            "the edit 'logit-noise' cannot be made: there are no images that it was not trained on",
        ),
    ],
)
def test_an_edit_without_the_images_that_it_needs_is_refused(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, arm: Arm, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(model, scores, candidates, (arm,))


def test_images_to_retain_that_are_candidates_are_refused(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, pictures: Images
) -> None:
    with pytest.raises(InputError, match="images to retain are among the candidates"):
        run(model, scores, candidates, (TUNED,), retained=pictures.subset([6]))


def test_an_arm_edits_neurons_or_the_whole_model() -> None:
    with pytest.raises(InputError, match="give either the edit, or both of the others"):
        Arm("both", Highest(), Zero(), edit=FineTune())
    with pytest.raises(InputError, match="edits the model, so its role is not 'original'"):
        Arm("edited", edit=FineTune(), role="original")
    with pytest.raises(InputError, match="has scores and no selector"):
        Arm("scored", edit=GradientAscent(), scores=xr.Dataset())
