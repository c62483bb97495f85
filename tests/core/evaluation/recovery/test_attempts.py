"""What triggers make of pictures is compared with them, kept by budget, and refused if nonsense."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import make_targets
from iarmem_plugin.evaluation.recovery.attempts import TriggerProtocol, check_triggers
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import (
    AnyTrigger,
    Attempt,
    Condition,
    EditData,
    ModelTrigger,
    Trigger,
)
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import PIXELS, TinyAdapter

COUNT, CALIBRATING = 7, 4
Made = Callable[[torch.Tensor], list[Attempt]]


class Scripted(Trigger):
    """Makes what a test says of the true tokens."""

    name, unit, budgets = "scripted", "tries", (1, 3)

    def __init__(self, make: Made) -> None:
        self.make = make

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    def attempts(
        self, model: Any, tokens: torch.Tensor, condition: Condition, *, given: int, seed: int
    ) -> Iterator[Attempt]:
        yield from self.make(tokens)


class Stopping(ModelTrigger):
    name, unit, budgets = "stopping", "steps", (0, 2)

    def __init__(self, *stops: int) -> None:
        self.stops = stops

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    def models(
        self, model: Any, data: EditData, *, seed: int
    ) -> Generator[tuple[int, Any], None, None]:
        for spent in self.stops:
            yield spent, model


@pytest.fixture
def model() -> ImageARModel:
    return ImageARModel(TinyAdapter.make())


@pytest.fixture
def protocol(model: ImageARModel) -> Callable[[AnyTrigger], TriggerProtocol]:
    size = (COUNT + CALIBRATING, PIXELS, PIXELS, 3)
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    images = Images.from_arrays(pixels, np.arange(len(pixels), dtype=np.int32) % 5)
    candidates = Candidates(images, np.full(len(images), "tried"))
    targets = make_targets(model, candidates, model.adapter.variant.views)
    places = np.concatenate([np.arange(COUNT)[::-1], np.full(CALIBRATING, -1)])

    def made(trigger: AnyTrigger) -> TriggerProtocol:
        return TriggerProtocol(
            triggers=(trigger,),
            candidates=candidates,
            calibrates=places < 0,
            targets=targets,
            similarity=PixelCorrelation(),
            given=5,
            data=EditData(),
            seed=0,
            batching=Batching(3),
            places=places,
        )

    return made


def wrong(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """Return tokens of which so many, from the end, are others."""
    other = tokens.clone()
    other[:, tokens.shape[1] - count :] = (other[:, tokens.shape[1] - count :] + 1) % 16
    return other


def test_each_budget_keeps_the_best_of_its_attempts(
    model: ImageARModel, protocol: Callable[[AnyTrigger], TriggerProtocol]
) -> None:
    """Whatever comes after it; of the first budget what was spent within it alone."""
    made = [(0, 16), (1, 4), (1, 8), (2, 12), (3, 2)]
    trigger = Scripted(lambda true: [Attempt(spent, wrong(true, n), 5) for spent, n in made])
    found = protocol(trigger).attempted(model)
    np.testing.assert_allclose(found["agreement"].values[0], 12 / 16)
    np.testing.assert_allclose(found["agreement"].values[1], 14 / 16)
    assert found["budget"].values.tolist() == [1, 3]
    assert found["unit"].values.tolist() == ["tries", "tries"]
    assert found["calibrates"].values.sum() == CALIBRATING


def test_the_true_tokens_are_as_like_as_can_be(
    model: ImageARModel, protocol: Callable[[AnyTrigger], TriggerProtocol]
) -> None:
    trigger = Scripted(lambda true: [Attempt(1, true, 0), Attempt(3, true, 20)])
    found = protocol(trigger).attempted(model)
    np.testing.assert_allclose(found["similarity"].values, 1, atol=1e-5)
    assert (found["agreement"].values == 1).all()


def test_a_trigger_that_writes_into_its_tokens_changes_no_target(
    model: ImageARModel, protocol: Callable[[AnyTrigger], TriggerProtocol]
) -> None:
    def cheat(true: torch.Tensor) -> list[Attempt]:
        true[:] = 0
        return [Attempt(1, true, 0), Attempt(3, true, 0)]

    found, right = (protocol(Scripted(one)) for one in (cheat, lambda true: []))
    before = right.targets.tokens.clone()
    assert (found.attempted(model)["agreement"].values < 1).all()
    assert torch.equal(found.targets.tokens, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda true: [Attempt(1, true[:, 1:], 0)], "all tokens"),
        (lambda true: [Attempt(1, true[:1], 0)], "all tokens"),
        (lambda true: [(1, true, 0)], "no Attempt"),
        (lambda true: [Attempt(4, true, 0)], "spent 4 tries"),
        (lambda true: [Attempt(-1, true, 0)], "spent -1 tries"),
        (lambda true: [Attempt(1, true, 21)], "gave 21 tokens"),
        (lambda true: [Attempt(1, true, 0)], r"no attempt, .*budgets \[1, 3\]"),
        (lambda true: [Attempt(3, true, 0)], r"no attempt, .*budgets \[1, 3\]"),
        (lambda true: [], r"no attempt, .*budgets \[1, 3\]"),
    ],
)
def test_attempts_that_are_none_are_refused_by_the_triggers_name(
    model: ImageARModel,
    protocol: Callable[[AnyTrigger], TriggerProtocol],
    make: Made,
    message: str,
) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        protocol(Scripted(make)).attempted(model)
    assert "'scripted'" in str(caught.value)


@pytest.mark.parametrize("stops", [(), (0,), (2,), (0, 3)])
def test_models_at_other_budgets_are_refused(
    model: ImageARModel,
    protocol: Callable[[AnyTrigger], TriggerProtocol],
    stops: tuple[int, ...],
) -> None:
    with pytest.raises(PluginError, match="'stopping'"):
        protocol(Stopping(*stops)).attempted(model)


def test_models_are_compared_at_each_budget(
    model: ImageARModel, protocol: Callable[[AnyTrigger], TriggerProtocol]
) -> None:
    found = protocol(Stopping(0, 1, 2)).attempted(model)
    assert found["budget"].values.tolist() == [0, 2]
    assert np.array_equal(*found["similarity"].values)


def test_halves_are_put_back_in_order(
    protocol: Callable[[AnyTrigger], TriggerProtocol],
) -> None:
    """Every picture once: of the first half, of the second, and those that calibrate by turns."""
    every = protocol(Stopping())
    half = np.array([0, 1, 1, 0, 1, 0, 0], np.int8)  # of the attack's candidates, in reverse here
    parts = [every.on(half, number) for number in (0, 1)]
    tried = [one.candidates.images.ids[~one.calibrates] for one in parts]
    assert [half[COUNT - 1 - ids].tolist() for ids in tried] == [[0] * 4, [1] * 3]
    assert [int(one.calibrates.sum()) for one in parts] == [2, 2]
    made = [
        xr.Dataset(
            {"similarity": (("attempt", "candidate"), one.targets.tokens[:, 1:2].T.numpy())},
            coords={"image": ("candidate", np.asarray(one.candidates.images.ids))},
        )
        for one in parts
    ]
    whole = every.whole(made, half)
    assert whole["image"].values.tolist() == list(every.candidates.images.ids)
    assert whole["similarity"].values[0].tolist() == every.targets.tokens[:, 1].tolist()


def test_what_is_no_trigger_or_comes_twice_is_refused() -> None:
    with pytest.raises(PluginError, match="int is no trigger"):
        check_triggers([3])
    with pytest.raises(InputError, match="'stopping' was given twice"):
        check_triggers([Stopping(), Stopping()])
    assert list(check_triggers([Stopping()])) == ["stopping"]
