"""Losses at a fitted temperature, against ones worked out otherwise, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, NonFiniteLogitsError, PluginError
from iarmem_plugin.evaluation import losses
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import LossProtocol, count_losses, loss_protocol
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Adapter, Condition, LossQuality, Prediction
from iarmem_plugin.models.tracing import ImageARModel

cross_entropy = torch.nn.functional.cross_entropy


def drawn(*, sharper: float) -> Prediction:
    """Return logits so much sharper than those that the tokens were drawn from."""
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 60, 12, generator=random) * 1.5
    tokens = torch.multinomial(logits.softmax(2).flatten(0, 1), 1, generator=random)
    return Prediction(logits * sharper, tokens.view(40, 60))


def test_a_loss_is_the_mean_cross_entropy_of_an_image() -> None:
    given = drawn(sharper=1)
    expected = cross_entropy(given.logits.mT.double() / 1.7, given.tokens, reduction="none")
    found = HeldOutLoss().losses(given, 1.7)
    np.testing.assert_allclose(found, expected.mean(1), rtol=1e-6)


@pytest.mark.parametrize("sharper", [0.5, 1.0, 1.6, 3.0])
def test_the_temperature_is_where_the_loss_is_least(sharper: float) -> None:
    given = drawn(sharper=sharper)
    logits = given.logits.flatten(0, 1).double()
    least = minimize_scalar(
        lambda one: float(cross_entropy(logits / one, given.tokens.flatten())),
        bounds=(0.1, 10),
        method="bounded",
        options={"xatol": 1e-6},
    )
    found = HeldOutLoss().fit([given])
    assert found == pytest.approx(least.x, rel=2e-3)
    assert found == pytest.approx(sharper, rel=0.1)
    assert float(cross_entropy(logits / found, given.tokens.flatten())) - least.fun < 1e-5


def test_the_temperature_is_the_splines_whatever_the_spread_of_the_logits() -> None:
    given = drawn(sharper=1)
    logits = given.logits * torch.linspace(0.1, 9, 40)[:, None, None]  # up to 40
    logits[..., 11] = -torch.inf  # a masked token
    tokens = given.tokens % 11
    places = np.log(np.geomspace(0.25, 8, 16))
    mean = [
        float(cross_entropy(logits.flatten(0, 1).double() / np.exp(one), tokens.flatten()))
        for one in places
    ]
    curve = CubicSpline(places, mean)
    least = minimize_scalar(curve, bounds=places[[0, -1]], method="bounded")
    # float32 sums of exponentials, squared at most five times
    assert HeldOutLoss().fit([Prediction(logits, tokens)]) == pytest.approx(
        float(np.exp(least.x)), rel=1e-4
    )


def test_changes_and_their_intervals_are_of_the_same_images() -> None:
    losses = np.array([[1.0, 2, 3, 5], [1.5, 2.5, 3.5, 7]])
    found = xr.Dataset(
        {
            "loss": (("arm", "candidate"), losses),
            "plain_loss": (("arm", "candidate"), losses + 1),
        },
        coords={
            "arm": ["original", "edited"],
            "group": ("candidate", ["held-out"] * 3 + ["canary 40"]),
            "role": ("candidate", ["held-out"] * 3 + ["canary"]),
        },
    )
    counted = count_losses(found)
    held_out, canary = (counted.sel(group=name) for name in ("held-out", "canary 40"))
    assert held_out["loss"].values.tolist() == [2, 2.5]
    assert held_out["plain_loss"].values.tolist() == [3, 3.5]
    # every image changes by the same, so that every sample of them does
    assert [float(held_out[name].sel(arm="edited")) for name in ("change", "low", "high")] == [
        0.5
    ] * 3
    assert canary["change"].values.tolist() == [0, 2]
    assert np.isnan(canary["low"]).all()
    assert counted["group"].values.tolist() == ["canary 40", "held-out"]


@pytest.fixture
def model(adapter: Adapter) -> ImageARModel:
    return ImageARModel(adapter)


def measured(model: ImageARModel, pictures: Images, quality: LossQuality, batch: int) -> xr.Dataset:
    views = model.adapter.variant.views
    candidates = Candidates(pictures, np.array(["canary 40"] * 4 + ["held-out"] * 3))
    targets = make_targets(model, candidates, views)
    found = extract(model, candidates, targets, similarity=TokenAgreement(0.5), prefix_tokens=1)
    protocol = loss_protocol(model, quality, pictures, views, batch_size=batch)
    return protocol.measured(model, found, candidates, targets.tokens)


def test_the_candidates_losses_do_not_depend_on_the_batch(
    model: ImageARModel, pictures: Images
) -> None:
    one, other = (measured(model, pictures, HeldOutLoss(), batch) for batch in (2, 64))
    xr.testing.assert_allclose(one, other, rtol=1e-5)
    assert one["loss"].dims == one["plain_loss"].dims == ("candidate",)
    assert one["temperature"].dims == ()
    tokens = make_targets(
        model, Candidates(pictures, np.array(["x"] * 7)), model.adapter.variant.views
    ).tokens
    with model.borrowed():
        _, likelihood = model.predicted(tokens, Condition.of(pictures.labels))
    np.testing.assert_allclose(one["plain_loss"], -likelihood.mean(1), rtol=1e-5)


class Wrong(HeldOutLoss):
    """Returns what it should not."""

    def __init__(self, fitted: object = 1.0, losses: object = None) -> None:
        self.fitted, self.returned = fitted, losses

    def fit(self, predictions):  # type: ignore[no-untyped-def]  # anything at all
        return self.fitted

    def losses(self, prediction, temperature):  # type: ignore[no-untyped-def]
        return super().losses(prediction, temperature) if self.returned is None else self.returned


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Wrong(0.0), r"quality 'held-out-loss' .* fitted the temperature 0\.0; expected a finite"),
        (Wrong("hot"), "fitted the temperature 'hot'; expected a finite number above 0"),
        (Wrong(float("nan")), "fitted the temperature nan; expected a finite number above 0"),
        (Wrong(losses=[1.0]), "no array with one loss for each of 2 images"),
        (Wrong(losses=np.zeros(3)), "no array with one loss for each of 2 images"),
        (Wrong(losses=np.array(["a", "b"])), "no array with one loss for each of 2 images"),
    ],
)
def test_a_measure_that_returns_something_else_is_named(
    model: ImageARModel, pictures: Images, wrong: LossQuality, message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        measured(model, pictures, wrong, 64)


def test_logits_that_are_not_finite_name_the_image(model: ImageARModel, pictures: Images) -> None:
    views = model.adapter.variant.views
    protocol = loss_protocol(model, HeldOutLoss(), pictures, views)
    with torch.no_grad():
        next(iter(model.adapter.network.parameters())).fill_(float("nan"))
    with pytest.raises(NonFiniteLogitsError, match="the first of them is"):
        protocol._fitted(model)


def test_a_protocol_says_what_it_is_of(model: ImageARModel, pictures: Images) -> None:
    protocol = loss_protocol(model, HeldOutLoss(), pictures, model.adapter.variant.views)
    assert isinstance(protocol, LossProtocol)
    assert repr(protocol).endswith(", 7 images)")
    assert protocol.provenance["fitted on"]["images"] == 7


def test_true_tokens_without_probability_are_refused_in_words() -> None:
    given = drawn(sharper=1)
    masked = given.logits.scatter(2, given.tokens.unsqueeze(2), -torch.inf)
    with pytest.raises(InputError, match="gives their true tokens no probability at all"):
        HeldOutLoss().fit([Prediction(masked, given.tokens)])


def test_intervals_do_not_depend_on_how_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change = np.random.default_rng(0).normal(size=(3, 50))
    whole = losses.mean_intervals(change)
    monkeypatch.setattr(losses, "LARGEST_DRAW", 1000)
    np.testing.assert_array_equal(losses.mean_intervals(change), whole)
