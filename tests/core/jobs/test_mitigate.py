"""Mitigation: arms are compared on equal terms, and every number can be recomputed."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.generation import generate, proportional_labels
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Adapter, Condition, Sampling
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights, Zero
from iarmem_plugin.neurons.selectors import Highest, Random
from iarmem_plugin.report.report import Report


class Averages(nn.Module):
    """Features that need no training: mean colours of a picture's quarters."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(pictures.float(), 2).flatten(1)


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    groups = np.array(["canary 40"] * 4 + ["held-out"] * 3)
    return Candidates(pictures, groups)


ARMS = (
    Arm("highest", Highest(), Zero(), 1.0),
    Arm("random 1", Random(), ScaleWeights(0.5), 0.25, seed=3, role="control"),
)


def run(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    quality: QualityProtocol | None = None,
    **settings: object,
) -> Report:
    options = ExtractionOptions(prefix_tokens=1, **settings)  # type: ignore[arg-type]  # each test's
    similarity = TokenAgreement(0.5)
    return mitigate(
        model, scores, candidates, ARMS, similarity=similarity, quality=quality, options=options
    )


def test_the_unmodified_model_is_the_first_arm(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    report = run(model, scores, candidates)
    assert [arm.name for arm in report.arms] == ["original", "highest", "random 1"]
    assert [arm.role for arm in report.arms] == ["original", "treatment", "control"]
    assert report.arms[0].intervention is None
    assert report.arms[2].selector is not None
    assert report.arms[2].selector["seed"] == 3


def test_the_provenance_says_how_tokens_were_decoded_where_there_are_several_ways(
    model: ImageARModel,
    scores: xr.Dataset,
    candidates: Candidates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "decoding" not in run(model, scores, candidates).provenance
    monkeypatch.setattr(type(model.adapter), "decoding", "all scales")
    assert run(model, scores, candidates).provenance["decoding"] == "all scales"


@pytest.mark.parametrize("backend", ["trace", "weights"])
def test_ablating_everything_changes_the_completions(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, backend: str
) -> None:
    tokens = run(model, scores, candidates, backend=backend).extraction["tokens"]
    assert not np.array_equal(tokens.sel(arm="highest"), tokens.sel(arm="original"))
    assert np.array_equal(
        tokens.sel(arm="highest").isel(token=0), tokens.sel(arm="original").isel(token=0)
    )


def test_each_arm_edits_its_share_of_neurons(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    neurons = run(model, scores, candidates).neurons
    assert neurons is not None
    assert neurons.sum(("block", "neuron")).values.tolist() == [0, 384, 96]


def test_the_model_comes_back_as_it_was(
    adapter: Adapter, model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    before = {key: value.clone() for key, value in adapter.network.state_dict().items()}
    random = torch.get_rng_state()
    run(model, scores, candidates)
    after = adapter.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_run_repeats_itself(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    first, second = (run(model, scores, candidates) for _ in range(2))
    xr.testing.assert_identical(first.extraction, second.extraction)


def test_quality_is_measured_in_every_arm_against_every_reference(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, pictures: Images
) -> None:
    quality = TorchFidelity(Averages(), "colour averages")
    views = model.adapter.variant.views
    pixels = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    references = {"noise": quality.features([pixels]), "half": quality.features([pixels[:10]])}
    labels = proportional_labels(pictures.labels, 12)
    protocol = QualityProtocol(
        quality, references, Condition.of(labels), Sampling(greedy=False, seed=1)
    )
    report = run(model, scores, candidates, protocol)
    labels_seen = [[value.label for value in arm.quality] for arm in report.arms]
    assert labels_seen[0] == labels_seen[1] == labels_seen[2]
    whole = "FID (colour averages, reference noise n=20, generated n=12), temperature 1, one seed"
    assert labels_seen[0][0] == whole, views
    original, ablated = (report.arms[index].quality[0].value for index in (0, 1))
    assert original != ablated


def test_the_report_can_be_saved_and_its_counts_recomputed(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, tmp_path: Path
) -> None:
    run(model, scores, candidates).save(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    extraction = xr.load_dataset(tmp_path / "out" / "extraction.nc", engine="h5netcdf")
    for arm in report["arms"]:
        one = extraction.sel(arm=arm["name"])
        for group, count in arm["extraction"].items():
            inside = one["group"] == group
            above = one["similarity"].where(inside) > extraction.attrs["threshold"]
            assert int(above.sum()) == count["extracted"]
            assert int(inside.sum()) == count["candidates"]


def test_scores_of_another_model_are_refused(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    with pytest.raises(InputError, match="another model"):
        run(model, scores.isel(block=[0, 1]), candidates)


def test_scores_of_other_weights_are_refused(
    adapter: Adapter, model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    with torch.no_grad():
        adapter.network.head.bias += 1
    with pytest.raises(InputError, match="other weights"):
        run(model, scores, candidates)


def other(adapter: Adapter, change: str = "") -> ImageARModel:
    """Return another model, with its own transformer and a tokenizer that may be changed."""
    twin = deepcopy(adapter)
    with torch.no_grad():
        next(iter(twin.network.parameters())).mul_(0.5)
        if change == "tokenizer":
            tokenizer = next(one for role, one in twin.modules.items() if role != "network")
            next(iter(tokenizer.parameters())).mul_(0.5)
    return ImageARModel(twin)


def asked(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, twin: ImageARModel
) -> Report:
    options = ExtractionOptions(prefix_tokens=1)
    similarity = TokenAgreement(0.5)
    return mitigate(
        model, scores, candidates, ARMS, similarity=similarity, twin=twin, options=options
    )


def test_a_twin_is_the_last_arm_and_gives_what_it_gives_alone(
    model: ImageARModel, adapter: Adapter, scores: xr.Dataset, candidates: Candidates
) -> None:
    twin = other(adapter)
    before = weights_sha256(twin)
    report = asked(model, scores, candidates, twin)
    assert [arm.name for arm in report.arms] == ["original", "highest", "random 1", "twin"]
    assert report.arms[-1].role == "twin"
    assert report.provenance["twin"]["weights_sha256"] == before == weights_sha256(twin)
    views = model.adapter.variant.views
    targets = make_targets(model, candidates, views)
    alone = extract(twin, candidates, targets, similarity=TokenAgreement(0.5), prefix_tokens=1)
    found = report.extraction.sel(arm="twin")["tokens"]
    np.testing.assert_array_equal(found.values, alone["tokens"].values)


def test_a_twin_that_is_none_is_refused_before_the_arms_are_run(
    model: ImageARModel, adapter: Adapter, scores: xr.Dataset, candidates: Candidates
) -> None:
    with pytest.raises(InputError, match="has the model's own weights; give a model that never"):
        asked(model, scores, candidates, model)
    with pytest.raises(InputError, match="has another tokenizer than"):
        asked(model, scores, candidates, other(adapter, "tokenizer"))
    half = other(adapter)
    half.adapter.network.half()
    with pytest.raises(InputError, match=r"twin is torch\.float16 and the model torch\.float32"):
        asked(model, scores, candidates, half)


def test_two_arms_of_one_name_are_refused(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    twice = (ARMS[0], ARMS[0])
    with pytest.raises(InputError, match="different names"):
        mitigate(model, scores, candidates, twice, similarity=TokenAgreement())


def test_generated_images_differ_from_each_other_and_repeat_with_the_seed_in_any_batches(
    model: ImageARModel,
) -> None:
    labels = np.zeros(4, np.int64)
    sampling = Sampling(greedy=False, seed=7)
    first = torch.cat(list(generate(model, Condition.of(labels), sampling, batch_size=2)))
    again = torch.cat(list(generate(model, Condition.of(labels), sampling, batch_size=3)))
    torch.testing.assert_close(first, again, atol=1e-5, rtol=0)  # float32 rounding by batch shape
    assert not torch.allclose(first[:2], first[2:], atol=1e-2)
    assert float(first.min()) >= 0.0
    assert float(first.max()) <= 1.0


def test_the_report_counts_what_batches_change_where_asked(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    options = ExtractionOptions(check_batching=2)
    report = mitigate(model, scores, candidates, ARMS, similarity=TokenAgreement(), options=options)
    batching = report.provenance["batching"]
    assert (batching["images"], batching["batch_sizes"]) == (2, (64, 1))
    assert batching["clear_flips"] == 0


def test_scores_of_bands_choose_neurons_of_the_model(
    model: ImageARModel, pictures: Images, candidates: Candidates
) -> None:
    banded = model.with_scales([model.layout.band("last two", [20, 21])])
    report = run(model, localize(banded, pictures, options=CaptureOptions(views=2)), candidates)
    assert report.provenance["scores"]["scales"] == {"last two": "19-20"}


def test_labels_follow_class_frequencies() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [4] * 1)
    assert np.bincount(proportional_labels(labels, 10)).tolist() == [6, 3, 0, 0, 1]
    assert np.bincount(proportional_labels(labels, 7)).tolist() == [4, 2, 0, 0, 1]
    assert len(proportional_labels(labels, 320)) == 320


def test_provenance_names_candidates_and_similarity(
    model: ImageARModel, scores: xr.Dataset, candidates: Candidates, pictures: Images
) -> None:
    provenance = run(model, scores, candidates).provenance
    assert provenance["candidates"]["images"] == 7
    assert provenance["candidates"]["image_list_sha256"] == pictures.digest
    assert provenance["candidates"]["classes"]["4"] == pictures.classes[4]
    assert provenance["candidates"]["chosen"] == "given"
    assert provenance["similarity"]["name"] == "token-agreement"
    assert provenance["similarity"]["threshold"] == 0.5


def test_scores_of_another_precision_are_refused_by_name(
    adapter: Adapter, model: ImageARModel, scores: xr.Dataset, candidates: Candidates
) -> None:
    adapter.network.to(torch.bfloat16)
    with pytest.raises(InputError, match="dtype float32, not bfloat16"):
        run(model, scores, candidates)
