"""How candidates are attacked: the same in every arm, where thresholds are fixed, and told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.data.augmentation import OneView
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.ranking.run import rank
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.protocol import Pictures, calibrate_on, choose_candidates
from iarmem_plugin.jobs.recalibration import Recalibration
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.neurons.selectors import Highest

DRAWN = Sampling(greedy=False, temperature=1.5, seed=3)
OPTIONS = ExtractionOptions(prefix_tokens=1, reference="original", sampling=DRAWN)
ARM = Arm("highest", Highest(), Zero(), 0.2)


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    return Candidates(pictures, np.full(len(pictures), "candidate"))


def test_arms_and_thresholds_are_completed_with_the_same_options(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    similarity, recognition = PixelCorrelation(), Recognition()
    how: Any = {"source": "these", "rate": 0.2, "recognition": recognition, "options": OPTIONS}
    calibrate_on(model, candidates, similarity, **how)
    targets = make_targets(model, candidates, model.adapter.variant.views, reference="original")
    other = PixelCorrelation()
    settings: Any = {"similarity": other, "prefix_tokens": 1, "sampling": DRAWN}
    expected = extract(model, candidates, targets, **settings)["similarity"]
    fixed = recognition.completions
    assert fixed is not None
    assert np.array_equal(fixed["similarity"], expected)
    again = Recalibration(candidates, rate=0.2)
    report = mitigate(
        *(model, scores, candidates, [ARM]),
        similarity=similarity,
        recognition=recognition,
        recalibration=again,
        options=OPTIONS,
    )
    found = report.extraction
    assert np.array_equal(found["similarity"].sel(arm="original"), expected)
    calibration = report.calibration
    assert calibration is not None  # of each arm, by the same options: here its own candidates
    anew = calibration["recalibrated_similarity"].sel(arm="highest").to_numpy()
    assert np.array_equal(anew, found["similarity"].sel(arm="highest"))
    known = report.provenance["attack"]
    assert known["reference"] == "original"
    assert known["decoding"] == asdict(DRAWN) | {"tries": 1}


def test_thresholds_that_were_fixed_otherwise_are_refused(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    similarity, recognition = PixelCorrelation(), Recognition()
    how: Any = {"source": "these", "rate": 0.2, "recognition": recognition}
    calibrate_on(model, candidates, similarity, prefix_tokens=1, **how)
    with pytest.raises(InputError, match="fixed with the reference reconstruction, and here origi"):
        mitigate(
            *(model, scores, candidates, [ARM]),
            similarity=similarity,
            recognition=recognition,
            options=OPTIONS,
        )


def test_a_resumed_comparison_minds_the_sampling(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, tmp_path: Path
) -> None:
    def compare(sampling: Sampling) -> None:
        options = ExtractionOptions(prefix_tokens=1, sampling=sampling, checkpoints=tmp_path / "p")
        similarity = PixelCorrelation()
        mitigate(model, scores, candidates, [], similarity=similarity, options=options)

    compare(Sampling())
    before = set((tmp_path / "p").glob("completions-*.nc"))
    compare(DRAWN)
    assert len(set((tmp_path / "p").glob("completions-*.nc")) - before) == 1


def test_a_reference_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="'photo'; expected reconstruction or original"):
        ExtractionOptions(reference="photo")


def test_candidates_of_a_ranking_are_chosen_and_told(
    model: ImageARModel, scores: xr.Dataset, pictures: Images
) -> None:
    ranking = rank(model, pictures)
    similarity = PixelCorrelation(threshold=0.9)
    chosen = choose_candidates(
        model, Pictures(pictures, ranking=ranking), similarity, per_class=1, near_duplicates=0.8
    )
    plain = choose_candidates(model, Pictures(pictures), similarity, per_class=1)
    assert chosen.images.paths == plain.images.paths
    report = mitigate(model, scores, chosen, [], similarity=similarity)
    known = report.provenance["candidates"]
    assert known["ranking"]["images"] == len(pictures)
    assert known["ranking"]["positions"] == "5 to 20"
    assert known["near_duplicates"]["threshold"] == 0.8
    assert report.extraction["cluster"].dims == ("candidate",)
    with pytest.raises(InputError, match="give one"):
        choose_candidates(model, Pictures(pictures, pictures, ranking=ranking), similarity)


def test_another_view_of_the_training_is_completed_and_told(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    views, images = model.adapter.variant.views, candidates.images
    taken = OneView(views, 2)
    drawn = views.draw(images.load(0), image=int(images.ids[0]), count=3, seed=0)
    assert torch.equal(taken.still(images.load(0), image=int(images.ids[0])), drawn[2])
    targets = make_targets(model, candidates, taken)
    centre = make_targets(model, candidates, views)
    assert not torch.equal(targets.tokens, centre.tokens)
    options = ExtractionOptions(view=2)
    report = mitigate(
        model, scores, candidates, [ARM], similarity=PixelCorrelation(), options=options
    )
    found = report.extraction["target_tokens"].to_numpy()
    assert np.array_equal(found, targets.tokens.numpy())
    assert report.provenance["attack"]["view"] == "training view 2"
    with pytest.raises(InputError, match="view"):
        ExtractionOptions(view=-1)
