"""Scores by contrast, and arms that test a candidate with neurons chosen without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.activations.leaving_out import LeavingOut
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError, UnknownNameError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import ImageScorer
from iarmem_plugin.jobs.arms import Arm, select_neurons
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.contrast import CrossFit, contrast, cross_fit, halves
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights, Zero
from iarmem_plugin.neurons.selectors import Highest, select
from iarmem_plugin.plugins.create import create
from iarmem_plugin.report.report import Report

GROUPS = np.array(["canary 40"] * 4 + ["held-out"] * 3)


class ByNumber(ImageScorer):
    """Scores that tell which images they were made on: the first neurons for the first image."""

    name = "by-number"

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def score(self, model: ImageARModel, candidates: Images, reference: Images) -> np.ndarray:
        self.asked.append(candidates.ids.tolist())
        shape = (model.layout.num_blocks, model.layout.neurons_per_block)
        scores = np.random.default_rng(candidates.ids.tolist()).random(shape)
        return scores


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    return Candidates(pictures, GROUPS)


def crossed(model: ImageARModel, candidates: Candidates, scorer: ImageScorer) -> CrossFit:
    unseen = candidates.images.subset(range(4, 7))
    return cross_fit(candidates, lambda one: contrast(model, one, unseen, scorer=scorer), seed=3)


def test_a_contrast_is_scores_that_neurons_are_selected_by(
    model: ImageARModel, candidates: Candidates
) -> None:
    canaries, unseen = candidates.images.subset(range(4)), candidates.images.subset(range(4, 7))
    scores = contrast(model, canaries, unseen, scorer="difference-of-means:views=2")
    expected = create("scorer", "difference-of-means:views=2").score(model, canaries, unseen)
    np.testing.assert_array_equal(scores["score"].values[:, 0], expected)
    chosen = select(scores, fraction=0.1).values
    assert expected[chosen].min() >= expected[~chosen].max()
    said = json.loads(scores.attrs["provenance"])
    assert said["metric"] == "difference-of-means(views=2)"
    assert said["candidates"]["images"] == 4
    assert said["reference"]["images"] == 3
    assert said["weights_sha256"]


def test_every_group_is_halved(pictures: Images) -> None:
    half = halves(Candidates(pictures, np.array(list("aaabbcc"))), seed=1)
    assert [np.sort(half[rows]).tolist() for rows in (slice(3, 5), slice(5, 7))] == [[0, 1]] * 2
    assert half.sum() in (3, 4)
    drawn = {tuple(halves(Candidates(pictures, GROUPS), seed=seed).tolist()) for seed in range(9)}
    assert len(drawn) > 1


def test_what_a_half_is_tested_with_was_chosen_on_the_other(
    model: ImageARModel, candidates: Candidates
) -> None:
    scorer = ByNumber()
    found = crossed(model, candidates, scorer)
    canaries = np.arange(4)
    for half, asked in enumerate(scorer.asked):
        assert asked == canaries[found.half[:4] != half].tolist()


def report_of(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    cross: CrossFit,
    options: ExtractionOptions | None = None,
) -> Report:
    unseen, views = candidates.images.subset(range(4, 7)), model.adapter.variant.views
    return mitigate(
        *(model, scores, candidates),
        [
            Arm("whole", Highest(), Zero(), 0.5),
            Arm("crossed", Highest(), Zero(), 0.5, scores=cross),
        ],
        similarity=TokenAgreement(),
        losses=loss_protocol(model, HeldOutLoss(), unseen, views),
        options=ExtractionOptions(prefix_tokens=5) if options is None else options,
    )


def test_each_half_is_completed_by_its_own_edit(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, tmp_path: Path
) -> None:
    cross = crossed(model, candidates, ByNumber())
    report = report_of(model, scores, candidates, cross)
    arm = Arm("crossed", Highest(), Zero(), 0.5, scores=cross)
    neurons, mine = select_neurons(arm, scores, model.layout), report.extraction.sel(arm="crossed")
    targets = make_targets(model, candidates, model.adapter.variant.views)
    for half in (0, 1):
        with intervene(model, neurons.isel(half=half), Zero()) as edited:
            every = extract(
                *(edited, candidates, targets), similarity=TokenAgreement(), prefix_tokens=5
            )
        rows = np.flatnonzero(cross.half == half)
        np.testing.assert_array_equal(mine["tokens"][rows], every["tokens"][rows])
        np.testing.assert_array_equal(mine["similarity"][rows], every["similarity"][rows])
    np.testing.assert_array_equal(mine["half"], cross.half)
    assert (report.extraction["half"].sel(arm=["original", "whole"]) == -1).all()
    assert report.arms[2].selector is not None
    assert report.arms[2].selector["cross_fit"] == {"halves": 2, "seed": 3}
    assert report.arms[2].selector["scores"] == "by-number"
    used = [(one["kind"], one["name"]) for one in report.provenance["plugins"]]
    assert used.count(("scorer", "by-number")) == 1
    assert [one["images"] for one in report.arms[2].selector["scored_on"]] == [2, 2]
    assert [one["images"] for one in report.arms[2].selector["reference"]] == [3, 3]
    again = Report.load(report.save(tmp_path / "report"))
    xr.testing.assert_identical(again.extraction, report.extraction)
    assert again.neurons is not None
    assert again.neurons.sel(arm="crossed").sum("neuron").sizes == {"half": 2, "block": 3}


def test_a_finished_arm_is_not_taken_for_one_of_other_halves(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, tmp_path: Path
) -> None:
    cross = crossed(model, candidates, ByNumber())
    options = ExtractionOptions(prefix_tokens=5, checkpoints=tmp_path)
    first, again = (report_of(model, scores, candidates, cross, options) for _ in "ab")
    xr.testing.assert_identical(first.extraction, again.extraction)
    assert len(list(tmp_path.glob("completions-*.nc"))) == 3
    other = CrossFit(cross.scores, 1 - cross.half, cross.seed)
    report_of(model, scores, candidates, other, options)
    assert len(list(tmp_path.glob("completions-*.nc"))) == 4


def test_halves_of_other_candidates_are_refused(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    cross = crossed(model, candidates, ByNumber())
    fewer = CrossFit(cross.scores, cross.half[:5])
    with pytest.raises(InputError, match="halves of 5 candidates, and 7 are given, others or"):
        report_of(model, scores, candidates, fewer)


def test_candidates_in_another_order_are_refused(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    cross = crossed(model, candidates, ByNumber())
    turned = candidates.subset(np.array([3, 2, 1, 0, 4, 5, 6]))
    with pytest.raises(InputError, match="others or in another order; cross-fit these"):
        report_of(model, scores, turned, cross)


@pytest.mark.parametrize("half", [[0, 0], [0, 1, 2], [-1, 0, 1]])
def test_halves_other_than_two_are_refused(scores: xr.Dataset, half: list[int]) -> None:
    with pytest.raises(InputError, match=r"the halves are int8 with the values .* each at least"):
        CrossFit((scores, scores), np.array(half, np.int8))


def test_a_scorer_that_changes_the_model_is_named(model: ImageARModel, pictures: Images) -> None:
    class Careless(ByNumber):
        name = "careless"

        def score(self, model: ImageARModel, candidates: Images, reference: Images) -> np.ndarray:
            model.adapter.network.train()
            torch.manual_seed(5)
            with torch.no_grad():
                next(model.adapter.network.parameters()).add_(1)
            return super().score(model, candidates, reference)

    sides = pictures.subset(range(4)), pictures.subset(range(4, 7))
    state = torch.get_rng_state()
    with pytest.raises(PluginError, match=r"scorer 'careless'.* changed the model's weights"):
        contrast(model, *sides, scorer=Careless())
    assert not model.adapter.network.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_reference_of_candidates_is_refused(model: ImageARModel, pictures: Images) -> None:
    four = pictures.subset(range(4))
    with pytest.raises(InputError, match="4 of 4 images that candidates are contrasted with are"):
        contrast(model, four, four, scorer=ByNumber())
    pixels = np.stack([np.asarray(pictures.load(n)) for n in range(7)])
    again = Images.from_arrays(pixels, pictures.labels)  # the same values elsewhere
    with pytest.warns(UserWarning, match="4 of 7 images that candidates are contrasted with are"):
        contrast(model, four, again, scorer=ByNumber())


def test_gradients_are_taken_in_inference_mode_too(model: ImageARModel, pictures: Images) -> None:
    sides = pictures.subset(range(4)), pictures.subset(range(4, 7))
    expected = contrast(model, *sides)
    with torch.inference_mode():
        found = contrast(model, *sides)
    xr.testing.assert_identical(found["score"], expected["score"])


def test_candidates_without_anything_to_forget_cannot_be_cross_fitted(
    model: ImageARModel, pictures: Images
) -> None:
    unseen = Candidates(pictures, np.full(7, "held-out"))
    with pytest.raises(InputError, match="holds no image that is to be forgotten"):
        crossed(model, unseen, ByNumber())


def test_contrasts_that_cannot_be_are_refused(
    model: ImageARModel, scores: xr.Dataset, pictures: Images
) -> None:
    few, others = pictures.subset(range(2)), pictures.subset([5, 6])
    with pytest.raises(InputError, match="there are no reference images"):
        contrast(model, few, pictures.subset(range(0)))
    with pytest.raises(UnknownNameError, match="no scorer named 'best'"):
        contrast(model, few, others, scorer="best")
    chosen = select(scores, fraction=0.1)
    with intervene(model, chosen, ScaleWeights(0.5)) as edited:
        with pytest.raises(InputError, match="edited through the trace"):
            contrast(edited, few, others)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.zeros((2, 2)), r"an array of shape \(2, 2\)"),
        (np.full((3, 128), np.nan), "384 scores that are not finite"),
        ([[0.0]], "a list"),
    ],
)
def test_a_scorer_that_returns_something_else_is_named(
    model: ImageARModel, pictures: Images, given: object, found: str
) -> None:
    class Wrong(ImageScorer):
        name = "wrong"

        def score(self, model: object, candidates: Images, reference: Images) -> np.ndarray:
            return given  # type: ignore[return-value]  # what is tested

    with pytest.raises(PluginError, match=f"scorer 'wrong'.* returned {found}"):
        contrast(model, pictures.subset(range(4)), pictures.subset([4, 5]), scorer=Wrong())


def test_a_metric_that_leaves_images_out_scores_as_if_they_had_not_been_captured(
    model: ImageARModel, pictures: Images
) -> None:
    out = pictures.subset([1, 4])
    options = CaptureOptions(views=2, batch_size=2)
    both = localize(
        model,
        pictures,
        metric=(create("metric", "unitmem"), LeavingOut(create("metric", "unitmem"), out.ids)),
        options=options,
    )
    alone = localize(model, pictures.subset([0, 2, 3, 5, 6]), options=options)
    whole, without = both.values()
    np.testing.assert_array_equal(without["score"], alone["score"])
    np.testing.assert_array_equal(without["valid"], alone["valid"])
    assert (whole["score"] != without["score"]).any()
    assert json.loads(without.attrs["provenance"])["metric_parameters"]["images"] == [1, 4]


def test_a_scorer_that_sees_no_images_minds_not_which_they_are(
    model: ImageARModel, pictures: Images
) -> None:
    found = contrast(model, pictures, pictures, scorer="weight-norm")
    assert found["score"].shape == (3, 1, 128)
    with pytest.raises(InputError, match="are also among the candidates"):
        contrast(model, pictures, pictures, scorer="difference-of-means")
