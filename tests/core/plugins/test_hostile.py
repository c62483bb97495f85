"""Hostile plugins: each ends in an error that names it, or cannot do what it tries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.activations import metrics
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import (
    ActivationIntervention,
    Completion,
    Condition,
    Intervention,
    NeuronFacts,
    NeuronWeights,
    Quality,
    QualityValue,
    Selector,
    Similarity,
)
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.measuring import compared, features_of
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.selectors import Highest, select
from iarmem_plugin.testing.tiny import TinyAdapter

from .hostile import HOSTILE, Do, UnitMem, boom, give, leave, refuse, refused, same


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def few(pictures: Images) -> Images:
    return pictures.subset(range(4))


@pytest.fixture
def neurons() -> xr.DataArray:
    chosen = np.zeros((3, 128), bool)
    chosen[0, [3, 5]] = chosen[2, 7] = True
    return xr.DataArray(chosen, dims=("block", "neuron"))


# Metrics.


class HostileMetric(UnitMem):  # type: ignore[misc]  # found at run time
    name = HOSTILE


def scored(few: Images, **methods: Do) -> dict[str, xr.Dataset]:
    """Score by a hostile metric and an honest one beside it."""
    bad = type("Bad", (HostileMetric,), {"__module__": __name__, **methods})
    model = ImageARModel(TinyAdapter.make())
    options = CaptureOptions(views=2, batch_size=2)
    return localize(model, few, metric=(bad(), "unitmem"), options=options)


def computed(change: Callable[[xr.DataArray], object]) -> Do:
    return lambda self: change(UnitMem.compute(self))


def nan_where_valid(scores: xr.DataArray) -> xr.DataArray:
    return scores.where(scores["neuron"] != 1)


METRICS: dict[str, dict[str, Do]] = {
    "update raises": {"update": boom},
    "update refuses": {"update": refuse},
    "update exits": {"update": leave},
    "update writes": {"update": lambda _, batch: batch.values.__imul__(0)},
    "update writes by xarray": {"update": lambda _, batch: batch.__setitem__({"image": 0}, 0.0)},
    "update writes coordinates": {"update": lambda _, batch: batch["image"].values.__iadd__(1)},
    "compute raises": {"compute": boom},
    "compute gives None": {"compute": give(None)},
    "compute gives numpy": {"compute": computed(lambda scores: scores.to_numpy())},
    "compute gives NaN": {"compute": computed(nan_where_valid)},
    "compute gives infinity": {"compute": computed(lambda scores: scores / 0)},
    "compute lacks valid": {"compute": computed(lambda scores: scores.drop_vars("valid"))},
    "compute lacks a neuron": {"compute": computed(lambda scores: scores[:, :, 1:])},
    "compute turns neurons round": {"compute": computed(lambda scores: scores[:, :, ::-1])},
    "compute gives complex": {"compute": computed(lambda scores: scores * 1j)},
    "valid is a number": {
        "compute": computed(lambda s: s.assign_coords(valid=s["valid"].astype(float)))
    },
}


@pytest.mark.parametrize("methods", METRICS.values(), ids=METRICS)
def test_a_hostile_metric_is_named(few: Images, methods: dict[str, Do]) -> None:
    refused(lambda: scored(few, **methods))


@pytest.mark.parametrize("state", [boom, give(None), give(xr.Dataset({"a": ("x", [object()])}))])
def test_a_hostile_state_is_named(state: Do) -> None:
    bad = type("Bad", (HostileMetric,), {"__module__": __name__, "state": state})
    refused(lambda: metrics.state_of(bad()))


def unlock(_: object, batch: xr.DataArray) -> None:
    batch.values.flags.writeable = True
    batch.values[:] = 0


def test_a_metric_that_unlocks_its_batch_is_named(few: Images) -> None:
    refused(lambda: scored(few, update=unlock))


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_metric_that_writes_by_torch_leaves_others_alone(few: Images) -> None:
    honest = scored(few)
    changes = {"update": lambda _, batch: torch.from_numpy(batch.values).zero_()}
    found = scored(few, compute=lambda _: honest[HOSTILE]["score"], **changes)
    same(found["unitmem"]["score"], honest["unitmem"]["score"])


# Selectors.


class HostileSelector(Selector):
    name = HOSTILE

    def __init__(self, do: Do) -> None:
        self.do = do

    parameters: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # a property in the base

    def select(self, scores: xr.Dataset, *, fraction: float, seed: int) -> Any:
        chosen = Highest().select(scores, fraction=fraction, seed=seed)
        return self.do(scores, chosen)


@pytest.fixture
def scores(model: ImageARModel, few: Images) -> xr.Dataset:
    return localize(model, few, options=CaptureOptions(views=1))


SELECTORS: dict[str, Do] = {
    "raises": boom,
    "refuses": refuse,
    "exits": leave,
    "None": give(None),
    "numpy": lambda _, chosen: chosen.to_numpy(),
    "another size": lambda _, chosen: chosen[:, 1:],
    "everything": lambda _, chosen: xr.ones_like(chosen),
    "nothing": lambda _, chosen: xr.zeros_like(chosen),
    "a neuron twice": lambda _, chosen: chosen.assign_coords(neuron=[0] * chosen.sizes["neuron"]),
}


@pytest.mark.parametrize("do", SELECTORS.values(), ids=SELECTORS)
def test_a_hostile_selector_is_named(scores: xr.Dataset, do: Do) -> None:
    refused(lambda: select(scores, fraction=0.1, selector=HostileSelector(do)))


def test_a_selector_that_writes_changes_no_scores(scores: xr.Dataset) -> None:
    def erase(given: xr.Dataset, chosen: xr.DataArray) -> xr.DataArray:
        given["score"].values[:] = 0
        given["valid"].values[:] = True
        return chosen

    before = scores.copy(deep=True)
    found = select(scores, fraction=0.1, selector=HostileSelector(erase))
    same(scores, before)
    same(found, select(scores, fraction=0.1))


# Interventions.


class HostileEdit(Intervention):
    name = HOSTILE

    def __init__(self, do: Do) -> None:
        self.do = do

    parameters: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # a property in the base

    def edit(self, neurons: NeuronWeights) -> Any:
        return self.do(neurons)


class HostileValues(ActivationIntervention):
    name = HOSTILE

    def __init__(self, do: Do) -> None:
        self.do = do

    parameters: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # a property in the base

    def apply(self, neuron: torch.Tensor, facts: NeuronFacts) -> Any:
        return self.do(neuron, facts)


def halved(given: NeuronWeights) -> NeuronWeights:
    return replace(given, writes=given.writes / 2)


def logits(
    model: ImageARModel, few: Images, neurons: xr.DataArray, edit: Any, backend: str
) -> torch.Tensor:
    """Return the logits of an edited model, and see that the weights come back."""
    before = {name: one.clone() for name, one in model.state_dict().items()}
    told = Condition.of_images(few)
    tokens = torch.randint(0, 4, (4, 21), generator=torch.Generator().manual_seed(0))
    try:
        with intervene(model, neurons, edit, backend=backend) as edited, edited.borrowed():
            return edited.logits(tokens, told)
    finally:
        assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


EDITS: dict[str, Do] = {
    "raises": boom,
    "refuses": refuse,
    "exits": leave,
    "None": give(None),
    "NaN": lambda given: replace(given, writes=given.writes * torch.nan),
    "another shape": lambda given: replace(given, writes=given.writes.mT),
    "another dtype": lambda given: replace(given, writes=given.writes.double()),
    "no biases": lambda given: replace(given, biases={}),
}


@pytest.mark.parametrize("backend", ["weights", "trace"])
@pytest.mark.parametrize("do", EDITS.values(), ids=EDITS)
def test_a_hostile_intervention_is_named(
    model: ImageARModel, few: Images, neurons: xr.DataArray, do: Do, backend: str
) -> None:
    refused(lambda: logits(model, few, neurons, HostileEdit(do), backend))


def moving(given: NeuronWeights) -> NeuronWeights:
    given.index.add_(1)
    return halved(given)


def renumbering(given: NeuronWeights) -> NeuronWeights:
    return replace(halved(given), block=1, index=given.index + 1)


def reusing() -> Do:
    kept: dict[tuple[int, ...], torch.Tensor] = {}

    def edit(given: NeuronWeights) -> NeuronWeights:
        whole = kept.setdefault(("whole",), torch.zeros(len(given.writes), 128))
        own = whole[:, : len(given.index)]
        return replace(given, writes=own.copy_(given.writes / 2))

    return edit


@pytest.mark.parametrize("backend", ["weights", "trace"])
@pytest.mark.parametrize(
    "do", [moving, renumbering, reusing()], ids=["moves the index", "renumbers", "reuses memory"]
)
def test_an_intervention_edits_what_was_selected(
    model: ImageARModel, few: Images, neurons: xr.DataArray, do: Do, backend: str
) -> None:
    honest = logits(model, few, neurons, HostileEdit(halved), backend)
    same(logits(model, few, neurons, HostileEdit(do), backend), honest)


VALUES: dict[str, Do] = {
    "raises": boom,
    "refuses": refuse,
    "exits": leave,
    "None": give(None),
    "NaN": lambda values, _: values * torch.nan,
    "another shape": lambda values, _: values[:1],
}


@pytest.mark.parametrize("do", VALUES.values(), ids=VALUES)
def test_a_hostile_edit_of_values_is_named(
    model: ImageARModel, few: Images, neurons: xr.DataArray, do: Do
) -> None:
    refused(lambda: logits(model, few, neurons, HostileValues(do), "trace"))


def test_an_edit_of_values_moves_no_index(
    model: ImageARModel, few: Images, neurons: xr.DataArray
) -> None:
    def move(values: torch.Tensor, facts: NeuronFacts) -> torch.Tensor:
        facts.index.add_(1)
        return values.mul_(0)

    honest = HostileValues(lambda values, _: values * 0)
    same(
        logits(model, few, neurons, HostileValues(move), "trace"),
        logits(model, few, neurons, honest, "trace"),
    )


# Similarities.


class HostileSimilarity(Similarity):
    name, threshold, threshold_source = HOSTILE, 0.5, "a test"
    parameters: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # a property in the base

    def __init__(self, do: Do, **attributes: Any) -> None:
        self.do = do
        for name, value in attributes.items():
            setattr(self, name, value)

    def compare(self, completion: Completion, target: Completion) -> Any:
        return self.do(completion, target)


def agreement(completion: Completion, target: Completion) -> torch.Tensor:
    return TokenAgreement().compare(completion, target)


def extracted(model: ImageARModel, few: Images, similarity: Similarity) -> xr.Dataset:
    candidates = Candidates(few, np.full(len(few), "candidate"))
    targets = make_targets(model, candidates, model.adapter.variant.views)
    return extract(
        model, candidates, targets, similarity=similarity, prefix_tokens=1, batch_size=2
    ).drop_attrs()


SIMILARITIES: dict[str, Do] = {
    "raises": boom,
    "refuses": refuse,
    "exits": leave,
    "None": give(None),
    "a column": give(torch.zeros(2, 1)),
    "complex": give(torch.zeros(2, dtype=torch.complex64)),
    "NaN": give(torch.full((2,), torch.nan)),
}


@pytest.mark.parametrize("do", SIMILARITIES.values(), ids=SIMILARITIES)
def test_a_hostile_similarity_is_named(model: ImageARModel, few: Images, do: Do) -> None:
    refused(lambda: extracted(model, few, HostileSimilarity(do)))


@pytest.mark.parametrize(
    "attributes", [{"threshold": torch.nan}, {"threshold": "high"}, {"threshold_source": None}]
)
def test_a_hostile_threshold_is_named(
    model: ImageARModel, few: Images, attributes: dict[str, Any]
) -> None:
    refused(lambda: extracted(model, few, HostileSimilarity(agreement, **attributes)))


def overwriting(completion: Completion, target: Completion) -> torch.Tensor:
    found = agreement(completion, target)
    completion.tokens.zero_(), target.tokens.zero_(), target.images.zero_()
    return found


def in_one_place() -> Do:
    kept = torch.zeros(2)
    return lambda completion, target: kept.copy_(agreement(completion, target))


@pytest.mark.parametrize("do", [overwriting, in_one_place()], ids=["writes", "reuses memory"])
def test_a_similarity_changes_nothing(model: ImageARModel, few: Images, do: Do) -> None:
    honest = extracted(model, few, HostileSimilarity(agreement))
    same(extracted(model, few, HostileSimilarity(do)), honest)


# Qualities.


class HostileQuality(Quality):
    name, minimum = HOSTILE, 2
    parameters: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # a property in the base
    provenance: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # a property in the base

    def __init__(self, do: Do) -> None:
        self.do = do

    def features(self, images: Iterable[torch.Tensor]) -> Any:
        return self.do(images)

    def compare(self, generated: Any, reference: Any, *, reference_name: str) -> Any:
        return self.do(generated, reference)


def batches() -> Iterator[torch.Tensor]:
    yield from (torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def seen(images: Iterable[torch.Tensor], width: int = 2) -> np.ndarray:
    return np.concatenate([np.ones((len(batch), width)) for batch in images])


FEATURES: dict[str, Do] = {
    "raises": boom,
    "refuses": refuse,
    "exits": leave,
    "None": give(None),
    "a tensor": lambda images: torch.from_numpy(seen(images)),
    "numbers": lambda images: seen(images).astype(int),
    "a row too few": lambda images: seen(images)[1:],
    "infinity": lambda images: seen(images) / 0,
    "only the first batch": lambda images: seen([next(iter(images))]),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("do", FEATURES.values(), ids=FEATURES)
def test_hostile_features_are_named(do: Do) -> None:
    refused(lambda: features_of(HostileQuality(do), batches()))


COMPARED: dict[str, Do] = {
    "raises": boom,
    "refuses": refuse,
    "a number": give(0.5),
    "NaN": give([QualityValue("x", float("nan"), 2)]),
    "no error": give([QualityValue("x", 0.5, 2, float("nan"))]),
    "text": lambda *_, **__: [QualityValue("x", "low", 2)],  # type: ignore[arg-type]  # the misdeed
}


def measured(do: Do) -> Any:
    two = np.ones((2, 2))
    found = compared(HostileQuality(do), two, two, "pictures")
    assert (two == 1).all()
    return found


@pytest.mark.parametrize("do", COMPARED.values(), ids=COMPARED)
def test_a_hostile_quality_is_named(do: Do) -> None:
    refused(lambda: measured(do))


def test_a_quality_that_writes_changes_no_reference() -> None:
    def overwrite(generated: np.ndarray, reference: np.ndarray) -> list[QualityValue]:
        generated *= 0
        reference *= 0
        return [QualityValue("x", 1.0, 2)]

    assert measured(overwrite) == [QualityValue("x", 1.0, 2)]
