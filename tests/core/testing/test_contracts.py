"""Everything we ship passes the tests that plugin authors are given."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.dinov2 import DinoV2
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.similarity import SSCD
from iarmem_plugin.interfaces import (
    ActivationIntervention,
    ImageScorer,
    Intervention,
    LossQuality,
    Metric,
    ModelEdit,
    ModelTrigger,
    Quality,
    Selector,
    Similarity,
    Trigger,
)
from iarmem_plugin.plugins.create import create
from iarmem_plugin.testing import (
    ActivationInterventionTests,
    ImageScorerTests,
    InterventionTests,
    LossQualityTests,
    MetricTests,
    ModelEditTests,
    ModelTriggerTests,
    QualityTests,
    SelectorTests,
    SimilarityTests,
    TriggerTests,
)

EXAMPLE = Path(__file__).parents[3] / "examples" / "iarmem-example"


class TestMetrics(MetricTests):
    @pytest.fixture(params=["unitmem", "mean-activation", "random"])
    def metric(self, request: pytest.FixtureRequest) -> type[Metric]:
        return plugins.find("metric", request.param)


class TestScorers(ImageScorerTests):
    @pytest.fixture(params=["difference-of-means", "gradient-weight", "weight-norm"])
    def scorer(self, request: pytest.FixtureRequest) -> ImageScorer:
        return plugins.find("scorer", request.param)()


class TestInterventions(InterventionTests):
    @pytest.fixture(
        params=[
            *("scale-weights", "scale-weights-and-biases", "scale-biases", "scale-outgoing"),
            *("zero-weights", "zero"),
        ]
    )
    def intervention(self, request: pytest.FixtureRequest) -> Intervention:
        return plugins.find("intervention", request.param)()


class TestActivationInterventions(ActivationInterventionTests):
    @pytest.fixture(params=["mean-ablate", "clamp"])
    def intervention(self, request: pytest.FixtureRequest) -> ActivationIntervention:
        return plugins.find("intervention", request.param)()


class TestSelectors(SelectorTests):
    @pytest.fixture(params=["highest", "lowest", "random", "random-matched"])
    def selector(self, request: pytest.FixtureRequest) -> Selector:
        return plugins.find("selector", request.param)()


class TestListed(SelectorTests):
    """It selects one fraction, that of its list, and refuses others."""

    @pytest.fixture(params=["listed"])
    def selector(self, request: pytest.FixtureRequest, tmp_path: Path) -> Selector:
        rows = [f"{place // 10},{place % 10}" for place in range(1, 28, 3)]
        (tmp_path / "list.csv").write_text("\n".join(["block,neuron", *rows]))
        return create("selector", f"{request.param}:file={tmp_path / 'list.csv'}")

    @pytest.mark.parametrize("fraction", [0.3])
    def test_it_selects_the_fraction(
        self, selector: Selector, scores: xr.Dataset, fraction: float
    ) -> None:
        super().test_it_selects_the_fraction(selector, scores, fraction)

    @pytest.mark.parametrize("fraction", [0.3])
    def test_it_never_selects_a_neuron_that_is_not_valid(
        self, selector: Selector, scores: xr.Dataset, fraction: float
    ) -> None:
        with pytest.raises(InputError, match="not valid"):
            super().test_it_never_selects_a_neuron_that_is_not_valid(selector, scores, fraction)


class TestSimilarities(SimilarityTests):
    @pytest.fixture(params=["correlation", "sscd", "token-agreement"])
    def similarity(self, request: pytest.FixtureRequest, tmp_path: Path) -> Similarity:
        if request.param != "sscd":
            return plugins.find("similarity", request.param)()
        file = tmp_path / "descriptor.pt"
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning
            )
            torch.jit.script(Descriptor()).save(str(file))
            return SSCD(file)


class TestQualities(QualityTests):
    @pytest.fixture(params=["fid", "fd-dinov2"])
    def quality(self, request: pytest.FixtureRequest, dinov2_folder: Path) -> Quality:
        if request.param == "fd-dinov2":
            return DinoV2(dinov2_folder)
        return TorchFidelity(Features().eval(), "means")


class TestLossQualities(LossQualityTests):
    @pytest.fixture(params=["held-out-loss"])
    def quality(self, request: pytest.FixtureRequest) -> LossQuality:
        found = plugins.find("quality", request.param)()
        assert isinstance(found, LossQuality)
        return found


class TestEdits(ModelEditTests):
    @pytest.fixture(params=["logit-noise", "fine-tune", "gradient-ascent"])
    def edit(self, request: pytest.FixtureRequest) -> ModelEdit:
        options = {"logit-noise": "std=2", "fine-tune": "steps=3", "gradient-ascent": "steps=3"}
        return create("edit", f"{request.param}:{options[request.param]}")


class TestTriggers(TriggerTests):
    @pytest.fixture(params=["learned-embedding", "prefix", "samples"])
    def trigger(self, request: pytest.FixtureRequest) -> Trigger:
        budgets = {"learned-embedding": "0,2,3", "prefix": "0,1,5", "samples": "1,3"}
        found = create("trigger", f"{request.param}:budgets='{budgets[request.param]}'")
        assert isinstance(found, Trigger)
        return found


class TestModelTriggers(ModelTriggerTests):
    @pytest.fixture(params=["relearn", "rounded"])
    def trigger(self, request: pytest.FixtureRequest) -> ModelTrigger:
        options = {"relearn": "budgets='0,1,3',batch_size=3", "rounded": "bits=4"}
        found = create("trigger", f"{request.param}:{options[request.param]}")
        assert isinstance(found, ModelTrigger)
        return found


class Descriptor(nn.Module):
    """In SSCD's place, whose weights cannot be had: a picture's rough shape."""

    def forward(self, images: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(images, [8, 8]).flatten(1)
        return nn.functional.normalize(small - small.mean(1, keepdim=True))


class Features(nn.Module):
    """In Inception's place: a picture's means."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


@pytest.mark.parametrize(
    ("kind", "tests"),
    [
        ("metric", (TestMetrics,)),
        ("scorer", (TestScorers,)),
        ("intervention", (TestInterventions, TestActivationInterventions)),
        ("selector", (TestSelectors, TestListed)),
        ("similarity", (TestSimilarities,)),
        ("quality", (TestQualities, TestLossQualities)),
        ("edit", (TestEdits,)),
        ("trigger", (TestTriggers, TestModelTriggers)),
    ],
)
def test_no_default_plugin_is_left_out(kind: plugins.Kind, tests: tuple[type, ...]) -> None:
    fixtures = [vars(one)[kind] for one in tests]
    tried = {name for one in fixtures for name in one._fixture_function_marker.params}
    shipped = {one.name for one in plugins.provided(kind, plugins.make_manager(entry_points=[]))}
    assert tried == shipped


def test_the_example_distribution_is_found_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE / "src")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    points = [EntryPoint(*item, "iarmem") for item in project["entry-points"]["iarmem"].items()]
    found = plugins.provided("metric", plugins.make_manager(entry_points=points))
    assert [one.plugin for one in found if one.name == "spread"] == ["spread"]


def test_the_example_distribution_passes_its_own_tests() -> None:
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(EXAMPLE),
        "--confcutdir",
        str(EXAMPLE),
    ]
    command = [sys.executable, "-m", "pytest", *options, "-c", str(EXAMPLE / "pyproject.toml")]
    done = subprocess.run(
        [*command, str(EXAMPLE / "tests")],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(EXAMPLE / "src"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout
