"""An arm is checked before it is run, and run by itself gives what it gives among others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import AnyIntervention, Condition, Sampling
from iarmem_plugin.jobs.arms import UNMODIFIED, Arm, run_arm, select_neurons
from iarmem_plugin.jobs.attack import ExtractionOptions, make_attack
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import Clamp, MeanAblate, Zero
from iarmem_plugin.neurons.selectors import Highest


class Averages(nn.Module):
    """Features that need no training: mean colours of a picture's quarters."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(pictures.float(), 2).flatten(1)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="fraction"):
        Arm("none", Highest(), Zero(), fraction)


def test_half_an_edit_is_refused() -> None:
    with pytest.raises(InputError, match="both"):
        Arm("half", Highest())


def test_too_few_images_for_the_quality_measure_are_refused_before_anything_runs() -> None:
    quality = TorchFidelity(Averages(), "colour averages")
    enough, few = np.zeros((10, 12)), np.zeros((9, 12))
    with pytest.raises(InputError, match=r"9 images \(small\) are too few"):
        QualityProtocol(quality, {"small": few}, Condition.of([0] * 10), Sampling())
    with pytest.raises(InputError, match=r"3 images \(generated\) are too few"):
        QualityProtocol(quality, {"fine": enough}, Condition.of([0] * 3), Sampling())


def test_the_original_edits_nothing() -> None:
    with pytest.raises(InputError, match="not 'original'"):
        Arm("edited", Highest(), Zero(), role="original")


def test_an_arm_run_alone_gives_what_it_gives_after_others(
    model: ImageARModel, scores: xr.Dataset, pictures: Images
) -> None:
    candidates = Candidates(pictures, np.array(["some"] * len(pictures)))
    similarity, options = TokenAgreement(0.5), ExtractionOptions(prefix_tokens=1)
    edited = Arm("highest", Highest(), Zero(), 0.5)
    attack = make_attack(model, candidates, similarity, options)
    report = mitigate(model, scores, candidates, [edited], similarity=similarity, options=options)
    for place, arm in enumerate((UNMODIFIED, edited)):
        neurons = select_neurons(arm, scores, model.layout)
        outcome = run_arm(model, arm, neurons, attack)
        assert outcome.result == report.arms[place]
        mine = report.extraction.isel(arm=place).drop_vars("arm")
        xr.testing.assert_equal(outcome.extraction, mine.drop_vars("target_tokens"))
        assert int(outcome.neurons.sum()) == (0, 192)[place]


@pytest.mark.parametrize("edit", [MeanAblate(), Clamp(-0.1, 0.1)], ids=["mean-ablate", "clamp"])
def test_values_are_edited_by_the_trace_whatever_is_asked_for_weights(
    model: ImageARModel, scores: xr.Dataset, pictures: Images, edit: AnyIntervention
) -> None:
    candidates = Candidates(pictures, np.array(["some"] * len(pictures)))
    similarity, options = TokenAgreement(0.5), ExtractionOptions(prefix_tokens=1)
    arms = [Arm("values", Highest(), edit, 0.5), Arm("weights", Highest(), Zero(), 0.5)]
    report = mitigate(model, scores, candidates, arms, similarity=similarity, options=options)
    _, values, weights = report.arms
    assert values.intervention == {"name": edit.name, **edit.parameters, "backend": "trace"}
    assert weights.intervention == {"name": "zero", "backend": "weights"}
    mean = scores["mean_activation"].mean("scale")
    neurons = select_neurons(arms[0], scores, model.layout)
    attack = make_attack(model, candidates, similarity, options)
    with intervene(model, neurons, edit, mean=mean) as edited:
        expected = attack.run(edited)
    found = report.extraction.isel(arm=1).drop_vars(["arm", "target_tokens"])
    xr.testing.assert_equal(found, expected)


def test_mean_ablation_is_refused_before_the_attack_where_the_scores_hold_no_means(
    model: ImageARModel, scores: xr.Dataset, pictures: Images
) -> None:
    candidates = Candidates(pictures, np.array(["some"] * len(pictures)))
    arms = [Arm("mean", Highest(), MeanAblate(), 0.5)]
    with pytest.raises(InputError, match=r"'mean-ablate' of arm 'mean' needs .*'mean_activation'"):
        mitigate(
            model,
            scores.drop_vars("mean_activation"),
            candidates,
            arms,
            similarity=TokenAgreement(),
        )


def test_arms_and_protocols_are_shown_as_text(model: ImageARModel, pictures: Images) -> None:
    arm = Arm("cut", Highest(), Zero(), fraction=0.2)
    assert "selector=Highest(pool='model'" in repr(arm)
    assert "intervention=Zero()" in repr(arm)
    candidates = Candidates(pictures, np.full(len(pictures), "member"))
    attack = make_attack(model, candidates, TokenAgreement())
    assert "candidates=Candidates(7 member), targets=Targets(7 of 21 tokens" in repr(attack)
    assert "completing=Batching(64)" in repr(attack)
    measure = TorchFidelity(Averages(), "averages")
    protocol = QualityProtocol(
        measure, {"real": np.zeros((19, 4))}, Condition.of([0] * 13), Sampling()
    )
    assert "images={'generated': 13, 'real': 19}" in repr(protocol)
    for shown in map(repr, (arm, attack, protocol, model.adapter)):
        assert " at 0x" not in shown
        assert len(shown) < 1000
