"""Thresholds fixed anew: what an arm counts at them follows from its own completions alone."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import count_anew, count_extracted
from iarmem_plugin.evaluation.extraction import extract
from iarmem_plugin.evaluation.generation import FIRST_ID, with_generations
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Adapter, Sampling
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.protocol import calibrate_on
from iarmem_plugin.jobs.recalibration import Recalibration, judged_anew, kept_completions
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.neurons.selectors import Highest
from iarmem_plugin.report.report import Report

ARM = Arm("highest", Highest(), Zero(), 1.0)
OPTIONS = ExtractionOptions(prefix_tokens=1)


@pytest.fixture
def unseen(pictures: Images) -> Candidates:
    return Candidates(pictures, np.full(len(pictures), "held-out"))


def run(
    model: ImageARModel,
    scores: xr.Dataset,
    unseen: Candidates,
    again: Recalibration,
    **more: object,
) -> Report:
    similarity, recognition = PixelCorrelation(), Recognition()
    calibrate_on(
        *(model, unseen, similarity),
        source="all pictures",
        prefix_tokens=1,
        rate=0.2,
        recognition=recognition,
    )
    options = more.pop("options", OPTIONS)
    return mitigate(
        *(model, scores, Candidates(unseen.images, np.full(len(unseen), "canary 40")), [ARM]),
        similarity=similarity,
        recognition=recognition,
        recalibration=again,
        options=options,  # type: ignore[arg-type]  # each test's
        **more,  # type: ignore[arg-type]
    )


def test_each_arm_fixes_thresholds_on_its_own_completions_by_the_shared_rule(
    model: ImageARModel, adapter: Adapter, scores: xr.Dataset, unseen: Candidates
) -> None:
    other = deepcopy(adapter)
    with torch.no_grad():
        next(iter(other.network.parameters())).mul_(0.5)
    twin = ImageARModel(other)
    report = run(model, scores, unseen, Recalibration(unseen, rate=0.2), twin=twin)
    found = report.extraction
    for outcome in ("extracted", "recognisable"):
        own = found["recalibrated_threshold"].sel(outcome=outcome)
        name = "similarity" if outcome == "extracted" else "agreement"
        # the candidates are the very pictures, seven of them, of which one may lie above
        expected = [sorted(row)[-2] for row in found[name].values.astype(np.float64).tolist()]
        assert own.values.tolist() == expected
        above = found[name].values.astype(np.float64) > np.array(expected)[:, None]
        np.testing.assert_array_equal(found[f"recalibrated_{outcome}"].values, above)
    assert found["arm"].values.tolist() == ["original", "highest", "twin"]
    own = found["recalibrated_threshold"]
    assert own.values[0].tolist() == [  # the unmodified model fixes what it fixed before
        found.attrs["threshold"],
        found.attrs["recognition_threshold"],
    ]
    assert own.values[1, 0] != own.values[0, 0] != own.values[2, 0]
    assert report.calibration is not None
    np.testing.assert_array_equal(
        report.calibration["recalibrated_similarity"].values, found["similarity"].values
    )
    assert report.calibration["recalibrated_image"].values.tolist() == unseen.images.ids.tolist()
    assert report.provenance["recalibration"]["rate"] == 0.2
    told = report.provenance["recognition"]
    assert told["threshold"] == found.attrs["recognition_threshold"]
    assert "95% interval of the threshold" in told["threshold_source"]


def test_arms_that_are_left_out_have_no_threshold_of_their_own(
    model: ImageARModel, scores: xr.Dataset, unseen: Candidates
) -> None:
    report = run(model, scores, unseen, Recalibration(unseen, arms=frozenset({"highest"})))
    original, highest = report.to_dict()["arms"]
    assert "recalibrated" not in original
    assert highest["recalibrated"]["images"] == 7
    counted = count_anew(report.extraction)
    assert counted is not None
    assert counted["arm"].values.tolist() == ["highest"]
    assert report.calibration is not None
    assert report.calibration["arm"].values.tolist() == ["highest"]
    text = str(report.table())
    assert "highest" in text
    assert "held-out pictures, extracted: highest " in " ".join(text.split())


def test_finished_arms_keep_what_they_fixed_and_other_pictures_fix_it_anew(
    model: ImageARModel, scores: xr.Dataset, unseen: Candidates, tmp_path: Path
) -> None:
    options = replace(OPTIONS, checkpoints=tmp_path)
    first, again = (
        run(model, scores, unseen, Recalibration(unseen, rate=0.2), options=options)
        for _ in range(2)
    )
    assert first.to_dict() == again.to_dict()
    assert first.calibration is not None
    assert again.calibration is not None
    xr.testing.assert_identical(first.calibration, again.calibration)
    fewer = Candidates(unseen.images.subset([0, 1, 2]), unseen.group[:3])
    cells = set(tmp_path.glob("*.nc"))
    run(model, scores, unseen, Recalibration(fewer, rate=0.2), options=options)
    assert len(set(tmp_path.glob("*.nc")) - cells) == len(first.arms)


def test_what_fixed_the_shared_thresholds_is_not_completed_again(
    model: ImageARModel,
    scores: xr.Dataset,
    unseen: Candidates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    completed: list[int] = []

    def counted(
        edited: ImageARModel, candidates: Candidates, *rest: object, **more: object
    ) -> object:
        completed.append(len(candidates))
        return extract(edited, candidates, *rest, **more)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr("iarmem_plugin.jobs.attack.extract", counted)
    run(model, scores, unseen, Recalibration(unseen, rate=0.2))
    assert completed == [7, 7, 7, 7]  # thresholds, the original, the other arm and its own
    completed.clear()
    fewer = Candidates(unseen.images.subset([0, 1, 2]), unseen.group[:3])
    run(model, scores, unseen, Recalibration(fewer, rate=0.2))
    assert completed == [7, 7, 3, 7, 3]


def completions(similarity: list[float], agreement: list[float]) -> xr.Dataset:
    return xr.Dataset(
        {
            "similarity": ("candidate", np.array(similarity, np.float32)),
            "agreement": ("candidate", agreement),
        }
    )


def test_an_edit_that_makes_all_completions_alike_is_seen_by_hand() -> None:
    extraction = xr.Dataset(
        {
            "similarity": (("arm", "candidate"), np.array([[0.9, 0.2], [0.9, 0.8]], np.float32)),
            "extracted": (("arm", "candidate"), [[True, False], [True, True]]),
        },
        coords={
            "arm": ["original", "blurred"],
            "group": ("candidate", ["canary 40", "held-out"]),
            "role": ("candidate", ["canary", "held-out"]),
        },
    )
    own = {"blurred": completions([0.5, 0.95, 0.7, 0.6], [0, 0, 0, 0])}
    found = judged_anew(extraction, own, 0.25)
    threshold = found["recalibrated_threshold"].sel(outcome="extracted")
    np.testing.assert_allclose(threshold.values, [np.nan, 0.7], rtol=1e-6)
    assert found["recalibrated_extracted"].values.tolist() == [[False, False], [True, True]]
    counts = count_anew(found)
    assert counts is not None
    assert counts["extracted"].values.tolist() == [[1, 1]]
    assert count_extracted(found)["extracted"].values.tolist() == [[1, 0], [1, 1]]
    assert judged_anew(extraction, {}, 0.25) is extraction
    assert kept_completions(None, {}) is None
    assert count_anew(extraction) is None


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_is_refused(unseen: Candidates, rate: float) -> None:
    with pytest.raises(InputError, match=r"a rate in \[0, 1\)"):
        Recalibration(unseen, rate=rate)


def test_free_generations_are_completed_and_scored_in_every_arm(
    model: ImageARModel, scores: xr.Dataset, pictures: Images, tmp_path: Path
) -> None:
    tried = Candidates(pictures, np.full(len(pictures), "ranked"), np.arange(7.0))
    drawn = with_generations(
        model, tried, pictures, 5, sampling=Sampling(greedy=False, seed=3), batch_size=2
    )
    report = mitigate(model, scores, drawn, [ARM], similarity=PixelCorrelation(), options=OPTIONS)
    counts = [arm["extraction"] for arm in report.to_dict()["arms"]]
    assert [list(one) for one in counts] == [["ranked", "generated"]] * 2
    assert counts[1]["generated"]["candidates"] == 5
    paired = report.to_dict()["arms"][1]["paired"]["extracted"]
    assert paired["before"] == counts[0]["ranked"]["extracted"]  # generated ones are no canaries
    told = report.provenance["free generations"]
    assert (told["images"], told["seed"], told["greedy"]) == (5, 3, False)
    report.save(tmp_path / "report")
    again = Report.load(tmp_path / "report").extraction
    mine = again.isel(candidate=np.flatnonzero(again["role"].values == "generated"))
    assert mine["image"].values.tolist() == list(range(FIRST_ID, FIRST_ID + 5))
    assert drawn.generations is not None
    np.testing.assert_array_equal(mine["target_tokens"], drawn.generations.tokens.numpy())
    assert json.loads((tmp_path / "report" / "report.json").read_text())["arms"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "5 images that the unmodified model itself drew freely" in page
    assert "candidates that were not held out or generated" in page
