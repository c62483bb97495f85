"""Plugins in whole jobs: settings side by side, in the provenance, and bad ones refused early."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.activations import checkpoints
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import FingerprintMismatchError, InputError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Completion, Intervention, NeuronWeights, Quality, Similarity
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.measuring import features_of
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.scores import load_scores, save_scores
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights
from iarmem_plugin.neurons.selectors import Highest
from iarmem_plugin.plugins.blame import blame
from iarmem_plugin.report.report import Report

RandomScore: Any = plugins.find("metric", "random")
HERE = r"module test_plugins_in_jobs.py \(no distribution\)"
VIEWS = CaptureOptions(views=2, slab=2)


def test_one_metric_may_be_given_with_several_settings(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    given = ("random:seed=1", RandomScore(2), "random")
    scores = localize(model, pictures, metric=given, options=VIEWS)
    assert list(scores) == ["random(seed=1)", "random(seed=2)", "random"]
    first, second = (scores[f"random(seed={seed})"] for seed in (1, 2))
    assert not np.array_equal(first["score"], second["score"])
    said = json.loads(second.attrs["provenance"])
    assert (said["metric"], said["metric_parameters"]) == ("random(seed=2)", {"seed": 2})
    adapter, metric = said["plugins"]
    assert metric == {
        "kind": "metric",
        "name": "random",
        "parameters": {"seed": 2},
        "distribution": adapter["distribution"],
    }
    assert (adapter["kind"], metric["distribution"].partition(" ")[0]) == ("adapter", "iarmem")
    save_scores(scores, tmp_path / "out")
    kept = load_scores(tmp_path / "out" / "scores-random(seed=2).nc")
    assert kept.attrs["metric"] == "random(seed=2)"
    save_scores(scores["random"], tmp_path / "out")  # what the earlier ones left there goes
    assert not list((tmp_path / "out").glob("scores-*"))


def test_one_setting_given_twice_is_refused(model: ImageARModel, pictures: Images) -> None:
    with pytest.raises(InputError, match=r"\['random\(seed=1\)', 'random\(seed=1\)'\] were given"):
        localize(model, pictures, metric=("random:seed=1", RandomScore(1)), options=VIEWS)


def test_a_run_goes_on_only_with_the_settings_of_its_metrics(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    def run(metric: str) -> xr.Dataset:
        return localize(model, pictures, metric=metric, options=VIEWS, checkpoints=tmp_path / "p")

    first = run("random:seed=1")
    with pytest.raises(FingerprintMismatchError) as refused:
        run("random:seed=3")
    assert "random(seed=1)" in str(refused.value)
    assert "random(seed=3)" in str(refused.value)
    xr.testing.assert_equal(run("random:seed=1"), first)


def test_a_run_goes_on_only_with_the_same_version_of_a_metric(
    model: ImageARModel, pictures: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "progress"
    localize(model, pictures, metric="random", options=VIEWS, checkpoints=kept)
    monkeypatch.setattr(checkpoints, "distribution", lambda _: "iarmem-mine 0.2.0")
    message = 'distribution of random: "iarmem 0.* there, "iarmem-mine 0.2.0" given'
    with pytest.raises(FingerprintMismatchError, match=message):
        localize(model, pictures, metric="random", options=VIEWS, checkpoints=kept)


def test_the_median_is_the_same_from_a_store_block_by_block(
    model: ImageARModel, pictures: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = ("unitmem:reference=median", "unitmem")
    streamed = localize(model, pictures, metric=metric, options=VIEWS)
    monkeypatch.setattr("iarmem_plugin.jobs.localize.MOST_KEPT", 1)
    with pytest.raises(InputError, match=r"'unitmem\(reference=median\)' keeps .* give a store"):
        localize(model, pictures, metric=metric, options=VIEWS)
    stored = localize(model, pictures, metric=metric, options=VIEWS, store=tmp_path / "x.zarr")
    for key in ("unitmem(reference=median)", "unitmem"):
        xr.testing.assert_identical(
            stored[key].drop_attrs(deep=True), streamed[key].drop_attrs(deep=True)
        )
    medians, means = streamed.values()
    assert not np.array_equal(medians["score"], means["score"])


class Measure(Similarity):
    """Share of equal tokens, unless a file says otherwise."""

    name = "measure"

    def __init__(self, file=None) -> None:  # type: ignore[no-untyped-def]  # as some authors write
        self.file, self.threshold, self.threshold_source = file, 0.5, "a test"

    def compare(self, completion: Completion, target: Completion) -> Any:
        return TokenAgreement().compare(completion, target)


class Edit(Intervention):
    """Whatever a test says."""

    name = "edit"

    def __init__(self, function: Callable[[NeuronWeights], Any]) -> None:
        self._function = function

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    def edit(self, neurons: NeuronWeights) -> Any:
        return self._function(neurons)


def run(
    model: ImageARModel,
    scores: xr.Dataset,
    pictures: Images,
    *,
    similarity: Similarity | None = None,
    intervention: Intervention | None = None,
    selector: Any = None,
    kept: Path | None = None,
) -> Report:
    arm = Arm("edited", selector or Highest(), intervention or ScaleWeights(), 0.5)
    return mitigate(
        model,
        scores,
        Candidates(pictures, np.full(len(pictures), "candidate")),
        [arm, replace(arm, name="again", seed=1)],
        similarity=similarity or TokenAgreement(0.5),
        options=ExtractionOptions(prefix_tokens=1, checkpoints=kept),
    )


def test_a_similarity_with_an_optional_file_works_without_one(
    model: ImageARModel, scores: xr.Dataset, pictures: Images
) -> None:
    report = run(model, scores, pictures, similarity=Measure())
    used = {(one["kind"], one["name"]): one for one in report.provenance["plugins"]}
    assert used["similarity", "measure"]["parameters"] == {"file": None}
    found = used["similarity", "measure"]["distribution"]
    assert found == "module test_plugins_in_jobs.py (no distribution)"
    assert used["intervention", "scale-weights"]["parameters"] == {"factor": 0.5}
    assert set(used) >= {("adapter", "tiny"), ("selector", "highest")}


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid what comes after the rehearsal."""

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("the work was begun")

    monkeypatch.setattr("iarmem_plugin.jobs.mitigate.make_attack", forbidden)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned a NoneType for 2 images; expected a tensor with one number for each"),
        (torch.zeros(1), r"returned shape \(1,\) for 2 images"),
        (torch.zeros(2, 2), r"returned shape \(2, 2\) for 2 images"),
        (torch.zeros(2, dtype=torch.complex64), "returned a Tensor for 2 images"),
    ],
)
def test_a_similarity_of_no_use_is_refused_before_the_work(
    model: ImageARModel,
    scores: xr.Dataset,
    pictures: Images,
    monkeypatch: pytest.MonkeyPatch,
    returned: object,
    message: str,
) -> None:
    monkeypatch.setattr(Measure, "compare", lambda *_: returned)
    with pytest.raises(PluginError, match=f"^similarity 'measure' of {HERE} {message}"):
        run(model, scores, pictures, similarity=Measure())


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (
            lambda _: None,
            PluginError,
            f"intervention 'edit' of {HERE} returned None, expected NeuronWeights",
        ),
        (
            lambda given: replace(given, biases={"fc1": given.fc1_bias * torch.nan}),
            PluginError,
            f"intervention 'edit' of {HERE} returned biases 'fc1' with values that are not finite",
        ),
        (lambda given: given.no_such_weights, AttributeError, "no_such_weights"),
    ],
)
def test_an_intervention_of_no_use_is_refused_before_the_work(
    model: ImageARModel,
    scores: xr.Dataset,
    pictures: Images,
    edit: Callable[[NeuronWeights], Any],
    error: type[Exception],
    message: str,
) -> None:
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(error, match=message) as raised:
        run(model, scores, pictures, intervention=Edit(edit))
    if error is AttributeError:
        assert str(blame(raised.value)).startswith("in intervention 'edit' of module test_plugins")
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_a_rehearsal_changes_nothing_and_tries_each_intervention_once(
    model: ImageARModel, scores: xr.Dataset, pictures: Images
) -> None:
    sizes: list[int] = []

    def halve(given: NeuronWeights) -> NeuronWeights:
        sizes.append(len(given.fc1_bias))
        return replace(given, reads={"fc1": given.fc1_weight / 2})

    edited = run(model, scores, pictures, intervention=Edit(halve))
    plain = run(model, scores, pictures)
    few = [size for size in sizes if size <= 4]
    assert sum(few[:2]) == 4  # of all blocks together, once
    xr.testing.assert_equal(edited.extraction, plain.extraction)


def test_an_arm_that_another_version_finished_is_run_again(
    model: ImageARModel,
    scores: xr.Dataset,
    pictures: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(model, scores, pictures, kept=tmp_path / "kept")
    before = {file.name for file in (tmp_path / "kept").glob("*.nc")}
    run(model, scores, pictures, kept=tmp_path / "kept")
    assert {file.name for file in (tmp_path / "kept").glob("*.nc")} == before
    monkeypatch.setattr(
        "iarmem_plugin.jobs.compare.inputs.distribution", lambda _: "iarmem-mine 0.2.0"
    )
    run(model, scores, pictures, kept=tmp_path / "kept")
    after = {file.name for file in (tmp_path / "kept").glob("*.nc")}
    assert len(after) == len(before) + 2  # both edits; the original is the same


def test_what_another_similarity_compared_is_not_taken_for_finished(
    model: ImageARModel, scores: xr.Dataset, pictures: Images, tmp_path: Path
) -> None:
    run(model, scores, pictures, similarity=Measure(), kept=tmp_path)
    before = {file.name for file in tmp_path.glob("*.nc")}
    run(model, scores, pictures, similarity=Measure("other"), kept=tmp_path)
    after = {file.name for file in tmp_path.glob("*.nc")}
    assert len(after) == 2 * len(before)


class Sight(Quality):
    """A quality measure that sees what a test says."""

    name, minimum = "sight", 2

    def __init__(self, seen: object) -> None:
        self.seen = seen

    @property
    def provenance(self) -> dict[str, Any]:
        return {}

    def features(self, images: Any) -> Any:
        for _ in images:
            pass
        return self.seen

    def compare(self, generated: Any, reference: Any, *, reference_name: str) -> Any:
        return None


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (None, "features that are NoneType"),
        (np.zeros(3), "features that are ndarray"),
        (np.zeros((2, 4)), "features that are 2 rows for 3 images"),
        (np.full((3, 4), np.nan), "values that are not finite"),
    ],
)
def test_features_that_cannot_be_are_refused_by_name(seen: object, message: str) -> None:
    with pytest.raises(PluginError, match=f"^quality 'sight' of {HERE} returned .*{message}"):
        features_of(Sight(seen), [torch.zeros(2, 3, 1, 1), torch.zeros(1, 3, 1, 1)])
