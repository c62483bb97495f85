"""Arguments of the wrong kind end in one plain line that says what was given and expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.similarity import PixelCorrelation, TokenAgreement, check_threshold
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.quality import quality_protocol
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import Clamp, ScaleWeights
from iarmem_plugin.neurons.selectors import Highest, select


class Given(NamedTuple):
    """A model, its pictures, and what the attack takes."""

    model: ImageARModel
    pictures: Images
    scores: xr.Dataset
    candidates: Candidates


@pytest.fixture
def given(model: ImageARModel, pictures: Images, scores: xr.Dataset) -> Given:
    return Given(model, pictures, scores, Candidates(pictures, np.array(["member"] * 7)))


@pytest.fixture(autouse=True)
def any_type() -> Iterator[None]:
    """Let the gate's checks of types pass what users without them can hand over."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def edited(neurons: Any, intervention: Any = ScaleWeights()) -> Callable[[Given], Any]:  # noqa: B008
    return lambda given: intervene(given.model, neurons, intervention).__enter__()


def chosen(given: Given) -> xr.DataArray:
    return select(given.scores, fraction=0.1)


def changed(change: Callable[[xr.DataArray], Any]) -> Callable[[Given], Any]:
    return lambda given: edited(change(chosen(given)))(given)


def selected(scores: Any = None, **settings: Any) -> Callable[[Given], Any]:
    def run(given: Given) -> Any:
        return select(given.scores if scores is None else scores, **{"fraction": 0.1, **settings})

    return run


def attacked(**settings: Any) -> Callable[[Given], Any]:
    def run(given: Given) -> Any:
        targets = make_targets(given.model, given.candidates, given.model.adapter.variant.views)
        usual = {"targets": targets, "similarity": TokenAgreement(), "prefix_tokens": 1}
        return extract(given.model, given.candidates, **{**usual, **settings})

    return run


def unset() -> TokenAgreement:
    similarity = TokenAgreement()
    similarity.threshold = float("nan")
    return similarity


def compared(arms: Any) -> Callable[[Given], Any]:
    return lambda given: mitigate(
        given.model, given.scores, given.candidates, arms, similarity=TokenAgreement()
    )


def mitigated(**others: Any) -> Callable[[Given], Any]:
    def run(given: Given) -> Any:
        usual = {"scores": given.scores, "similarity": TokenAgreement()} | others
        return mitigate(given.model, candidates=given.candidates, arms=[Arm("a")], **usual)

    return run


def localized(**others: Any) -> Callable[[Given], Any]:
    return lambda given: localize(**{"model": given.model, "images": given.pictures, **others})


WRONG: dict[str, tuple[Callable[[Given], Any], str]] = {
    "numpy": (edited(np.zeros((2, 8), bool)), "neurons is a ndarray; expected an xarray.DataArray"),
    "nothing": (edited(None), "neurons is None"),
    "dataset": (edited(xr.Dataset()), "neurons is a Dataset"),
    "floats": (changed(lambda one: one.astype(float)), "the neurons are float64; expected .*truth"),
    "nan": (changed(lambda one: one.where(one)), "the neurons are (float|object)"),
    "text": (changed(lambda one: one.astype(str)), "the neurons are <U5"),
    "twos": (changed(lambda one: one.astype(int) * 2), "the neurons are int64"),
    "shifted": (
        changed(lambda one: one.assign_coords(block=one["block"] + 1)),
        "give all from 0, each once",
    ),
    "no edit": (
        lambda given: edited(chosen(given), "zero")(given),
        "the intervention is 'zero'; expected an intervention",
    ),
    "scores": (selected(np.zeros(3)), "scores is a ndarray; expected what localize returned"),
    "fraction": (selected(fraction="0.1"), "the fraction is '0.1'; expected a finite number"),
    "true": (selected(fraction=True), "the fraction is True; expected a finite number"),
    "seed": (selected(seed="a"), "the seed is 'a'; expected an integer of 0 or more"),
    "selector": (selected(selector=None), "the selector is None; expected a selector"),
    "scales": (lambda _: Highest(scales=3), "scales is 3; expected one of mean"),
    "scale": (lambda _: Highest(scales=(3,)), "the name of a scale is 3; expected a text"),
    "prefix": (attacked(prefix_tokens="14"), "prefix_tokens is '14'; expected an integer"),
    "prefix true": (attacked(prefix_tokens=True), "prefix_tokens is True; expected an integer"),
    "targets": (attacked(targets=None), "the targets is None; expected what make_targets"),
    "threshold": (attacked(similarity=unset()), "the threshold of 'token-agreement' is nan"),
    "no arms": (compared(None), "arms is None; expected a list of arms"),
    "near": (lambda given: given.pictures.near_duplicates("0.8"), "threshold is '0.8'; expected a"),
    "a side": (
        lambda given: given.pictures.near_duplicates(0.8, side=1.5),
        "side is 1.5; expected",
    ),
    "a role": (lambda _: Arm("a", role="contol"), "role of arm 'a' is 'contol'; expected one of o"),
    "a class": (
        lambda _: Arm("a", Highest(), ScaleWeights),
        "intervention of arm 'a' is the class ScaleWeights, and no instance; expected an instance",
    ),
    "a measure": (mitigated(similarity="correlation"), "the similarity is 'correlation'; expected"),
    "recognition": (mitigated(recognition=0.5), "recognition is 0.5; expected a Recognition, or"),
    "recognised": (attacked(recognition=0.5), "recognition is 0.5; expected a Recognition, or"),
    "losses": (mitigated(losses="held-out-loss"), "losses is 'held-out-loss'; expected what loss_"),
    "loss": (
        lambda given: loss_protocol(
            given.model, "held-out-loss", given.pictures, given.model.adapter.variant.views
        ),
        "the quality is 'held-out-loss'; expected a LossQuality, such as HeldOutLoss",
    ),
    "a loss for images": (
        lambda given: quality_protocol(
            given.model, HeldOutLoss(), {"real": given.pictures}, generated=7, seed=0
        ),
        "the measure is a HeldOutLoss; expected a Quality, such as TorchFidelity",
    ),
    "twin": (mitigated(twin="rar-organism-twin"), "the twin is 'rar-organism-twin'; expected a wr"),
    "no scores": (mitigated(scores=None), "the scores is None; expected what localize returned"),
    "extraction": (mitigated(options={"batch_size": 2}), "options is a dict; expected Extraction"),
    "a backend": (lambda _: ExtractionOptions(backend="trcae"), "no backend named 'trcae'; there"),
    "a batch": (lambda _: ExtractionOptions(batch_size=0), "batch_size is 0; expected an integer"),
    "all tokens": (
        mitigated(options=ExtractionOptions(prefix_tokens=21)),
        "a prefix of 21 tokens leaves nothing to complete: these images have 21",
    ),
    "an array": (localized(images=np.zeros((2, 8, 8, 3))), "the images is a ndarray; expected"),
    "a network": (localized(model=nn.Linear(1, 1)), "the model is a Linear; expected a wrapped"),
    "options": (localized(options={"views": 2}), "options is a dict; expected CaptureOptions"),
    "labels told": (
        lambda given: given.model.teacher_forced(torch.zeros(2, 21).long(), torch.zeros(2).long()),
        r"the condition is a Tensor; expected a Condition, such as Condition\.of\(\[3, 5\]\)",
    ),
    "names": (compared(["highest"]), "an arm is 'highest'; expected an Arm"),
    "one arm": (compared(Arm("a", Highest(), ScaleWeights())), "arms is a Arm; expected a list"),
    "arm": (lambda _: Arm("a", "highest", "zero"), "selector of arm 'a' is 'highest'; expected an"),
    "arm's edit": (lambda _: Arm("a", Highest(), "zero"), "the intervention of arm 'a' is 'zero'"),
    "whole edit": (
        lambda _: Arm("a", edit="fine-tune"),
        "the edit of arm 'a' is 'fine-tune'; ",
    ),
    "retained": (mitigated(retained="train"), "the images to retain is 'train'; expected Images"),
    "no name": (lambda _: Arm(" "), "the name of an arm is empty"),
    "views": (lambda _: CaptureOptions(views="2"), "views is '2'; expected an integer"),
    "half": (lambda _: CaptureOptions(batch_size=1.5), "batch_size is 1.5; expected an integer"),
    "capture": (
        lambda given: next(capture(given.model, given.pictures, views="2")),
        "views is '2'; expected an integer",
    ),
    "metric": (
        lambda given: localize(given.model, given.pictures, metric=None),
        "metric is None; expected the name of a metric",
    ),
    "metrics": (
        lambda given: localize(given.model, given.pictures, metric=[3]),
        "a metric is 3; expected the name of a metric",
    ),
    "factor": (lambda _: ScaleWeights(True), "the factor is True; expected a finite number"),
    "bound": (lambda _: Clamp("0"), "a bound of clamp is '0'; expected a finite number"),
    "greedy": (lambda _: Sampling(greedy="no"), "greedy is 'no'; expected True or False"),
    "top k": (lambda _: Sampling(top_k=1.5), "top_k is 1.5; expected an integer"),
    "seeds": (lambda _: Sampling(seed=(1, -1)), "the seed is -1; expected an integer of 0 or more"),
    "temperature": (lambda _: Sampling(temperature="hot"), "temperature is 'hot'"),
    "correlation": (lambda _: PixelCorrelation(1.5), r"the threshold 1\.5 .*is in \[-1, 1\]"),
    "correlated": (lambda _: PixelCorrelation(True), "the threshold is True"),
    "sscd": (lambda _: check_threshold(-2, "sscd:path=a.pt"), r"sscd is in \[-1, 1\]"),
    "agreement": (lambda _: TokenAgreement("0.5"), "the threshold is '0.5'"),
    "groups": (
        lambda given: replace(given.candidates, group=np.full(7, np.nan)),
        "the group of a candidate is nan; expected a text",
    ),
    "subset": (lambda given: given.pictures.subset([True, False]), "a position is True"),
    "floats of a subset": (
        lambda given: given.pictures.subset(np.array([0.0, 1.5])),
        "positions of type float64",
    ),
    "mask of a subset": (
        lambda given: given.pictures.subset(np.ones(7, bool)),
        "positions of type bool",
    ),
    "text of a subset": (lambda given: given.pictures.subset("01"), "positions is '01'; expected"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_wrong_kind_is_refused_in_words(given: Given, wrong: str) -> None:
    run, message = WRONG[wrong]
    with pytest.raises(InputError, match=message) as caught:
        run(given)
    assert "\n" not in str(caught.value)


def test_zeros_and_ones_select_neurons_as_truth_values_do(given: Given) -> None:
    with intervene(given.model, chosen(given).astype(int), ScaleWeights()) as model:
        assert model is not given.model


def test_groups_may_be_a_list(given: Given) -> None:
    candidates = Candidates(given.pictures, ["member"] * 6 + ["held-out"])  # type: ignore[arg-type]  # an array to a type checker
    assert candidates.role.tolist() == ["member"] * 6 + ["held-out"]


def test_targets_of_other_candidates_are_refused(given: Given) -> None:
    turned = replace(given.candidates, images=given.pictures.subset(range(6, -1, -1)))
    targets = make_targets(given.model, turned, given.model.adapter.variant.views)
    with pytest.raises(InputError, match="made for other candidates, or for these in another"):
        attacked(targets=targets)(given)
