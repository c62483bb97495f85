"""Edits of a whole model: what each does, by plain PyTorch, and that the model comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates, centre_views
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.interfaces import Condition, EditData, ModelEdit, Sampling
from iarmem_plugin.jobs.edits import noisy
from iarmem_plugin.jobs.edits.making import check_retained, edit_data, edited_by
from iarmem_plugin.jobs.edits.noise import LogitNoise
from iarmem_plugin.jobs.edits.noisy import NoisyModel, std_for
from iarmem_plugin.jobs.edits.training import FineTune, GradientAscent
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter

TOLD = Condition.of([0, 1], image=[10, 11])


@pytest.fixture
def others() -> Images:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (9, PIXELS, PIXELS, 3), np.uint8)
    return Images.from_arrays(pixels, np.arange(9) % CLASSES)


def tokens_of(model: ImageARModel, images: Images) -> Tensor:
    views = model.adapter.variant.views
    return model.tokenize(centre_views(images, views, slice(0, len(images))))


def nll(network: Any, model: ImageARModel, images: Images) -> Tensor:
    """Return the mean loss of images by the plain network, nats a token."""
    tokens = tokens_of(model, images)
    inputs = model.adapter.teacher_forced(tokens, Condition.of_images(images))
    logits = type(network).forward(network, *inputs.args)
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def trained(
    model: ImageARModel, terms: list[tuple[float, Images]], steps: int, lr: float
) -> dict[str, Tensor]:
    """Return the weights after some steps on all images at once, by plain PyTorch."""
    network = deepcopy(TinyAdapter.make().network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(weight * nll(network, model, images) for weight, images in terms).backward()  # type: ignore[union-attr]  # a sum of tensors
        optimizer.step()
    return network.state_dict()


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, one in expected.items():  # AdamW's first steps are as long as the signs say
        torch.testing.assert_close(found[name], one, rtol=1e-3, atol=2e-5, msg=name)


# --- training


def test_fine_tuning_is_adamw_on_what_is_retained(model: ImageARModel, others: Images) -> None:
    with FineTune(3, 1e-3).edited(model, EditData(retained=others), seed=0) as edited:
        found = {name: one.clone() for name, one in edited.state_dict().items()}
    assert_alike(found, trained(model, [(1.0, others)], 3, 1e-3))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_ascent_raises_the_candidates_loss_and_holds_the_others_down(
    model: ImageARModel, pictures: Images, others: Images, weight: float
) -> None:
    data = EditData(candidates=pictures, retained=others if weight else None)
    before = nll(model.adapter.network, model, pictures).item()
    with GradientAscent(3, 1e-3, weight).edited(model, data, seed=0) as edited:
        found = {name: one.clone() for name, one in edited.state_dict().items()}
        assert nll(model.adapter.network, model, pictures).item() > before + 0.01
    terms = [(-1.0, pictures)] + ([(weight, others)] if weight else [])
    assert_alike(found, trained(model, terms, 3, 1e-3))


def test_a_step_takes_as_many_images_as_it_is_told_and_draws_them_by_seed(
    model: ImageARModel, others: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    subset = Images.subset

    def noted(self: Images, positions: Any) -> Images:
        seen.append(list(map(int, positions)))
        return subset(self, positions)

    def drawn(seed: int) -> list[list[int]]:
        seen.clear()
        edit = FineTune(steps=4, batch_size=4)
        with edit.edited(model, EditData(retained=others), seed=seed):
            return [one for one in seen if len(one) == 4 and max(one) > 3]

    monkeypatch.setattr(Images, "subset", noted)
    first = drawn(0)
    assert len(first) == 4
    assert len({*first[0], *first[1]}) == 8  # a round shows none twice
    assert drawn(0) == first != drawn(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FineTune(steps=0), "steps is 0; expected an integer of 1 or more"),
        (lambda: FineTune(lr=0.0), "lr is 0.0; expected a number above 0"),
        (lambda: GradientAscent(batch_size=0), "batch_size is 0"),
        (lambda: GradientAscent(weight=-1.0), "weight is -1.0; expected a number of 0 or more"),
        (lambda: LogitNoise(), "either std or change"),
        (lambda: LogitNoise(1.0, 0.1), "either std or change"),
        (lambda: LogitNoise(std=0.0), "std is 0.0; expected a number above 0"),
        (lambda: LogitNoise(change=-0.1), "change is -0.1; expected a number above 0"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


# --- noise on logits


def test_the_mean_probability_is_that_of_sixteen_noisy_draws(model: ImageARModel) -> None:
    tokens = torch.arange(42).remainder(16).view(2, 21)
    with model.borrowed():
        logits = model.logits(tokens, TOLD)
        found = NoisyModel(model, 1.5, seed=3).logits(tokens, TOLD)
        loud = NoisyModel(model, 1e6, seed=3).logits(tokens, TOLD)
    torch.testing.assert_close(found.exp().sum(2), torch.ones(2, 21))
    # the mean over many draws, from which that of 16 differs by chance
    noise = torch.randn(4000, *logits.shape, generator=torch.Generator().manual_seed(0))
    expected = (logits + 1.5 * noise).softmax(3).mean(0)
    apart = found.exp() - expected
    assert float(apart.mean().abs()) < 1e-6
    deviation = (logits + 1.5 * noise).softmax(3).std(0) / 4
    assert float((apart / deviation).std()) == pytest.approx(1, abs=0.1)
    # drowned by noise, each draw is sure of one token: shares are sixteenths
    assert float((loud.exp() * 16 - (loud.exp() * 16).round()).abs().max()) < 1e-3


def test_without_noise_the_prediction_is_the_models(model: ImageARModel) -> None:
    tokens = torch.arange(42).remainder(16).view(2, 21)
    with model.borrowed():
        expected, quiet = model.logits(tokens, TOLD), NoisyModel(model, 0.0, seed=0)
        torch.testing.assert_close(quiet.logits(tokens, TOLD), expected.log_softmax(2))
        hits, likely = quiet.predicted(tokens, TOLD)
        assert torch.equal(hits, model.predicted(tokens, TOLD)[0])
        torch.testing.assert_close(
            likely, model.predicted(tokens, TOLD)[1], rtol=0, atol=1e-5
        )  # float32 logits


def test_completions_are_greedy_on_noise_that_the_seed_and_the_image_say(
    model: ImageARModel,
) -> None:
    prefix = torch.zeros(2, 5, dtype=torch.int64)
    with model.borrowed():
        drawn = [NoisyModel(model, 3.0, seed).complete(prefix, TOLD, Sampling()) for seed in (0, 1)]
        renamed = replace(TOLD, image=TOLD.image + 1)
        moved = NoisyModel(model, 3.0, 0).complete(prefix, renamed, Sampling())
        plain = model.complete(prefix, TOLD, Sampling())
        quiet = NoisyModel(model, 1e-9, 0).complete(prefix, TOLD, Sampling())
    assert torch.equal(quiet, plain)
    assert not torch.equal(drawn[0], plain)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(moved, drawn[0])


def test_noise_at_a_given_cost_costs_that_much(
    model: ImageARModel, others: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = EditData(calibration=others, retained=others)
    with FineTune(40, 1e-2).edited(model, data, seed=0) as taught:  # so that there is some to lose
        protocol = loss_protocol(taught, HeldOutLoss(), others, model.adapter.variant.views)
        tried = Candidates(others, np.full(9, "held-out"))

        def loss(one: Any) -> float:
            found = protocol.measured(one, xr.Dataset(), tried, protocol.tokens)
            return float(found["loss"].mean())

        before = loss(taught)
        with LogitNoise(change=0.2).edited(taught, data, seed=4) as edited:
            assert loss(edited) - before == pytest.approx(0.2, abs=0.005)
            assert edited.std > 0
        monkeypatch.setattr(noisy, "MOST", 1.0)
        with pytest.raises(InputError, match="no noise raises the loss of these images by 9 nats"):
            std_for(taught, others, 9.0, seed=0)


class Deaf(TinyAdapter):
    """Chooses tokens by itself, without the noise that is asked for."""

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return super().complete(prefix, condition, replace(sampling, logit_noise=0.0))


def test_an_adapter_that_takes_no_notice_of_noise_is_named(pictures: Images) -> None:
    model, data = ImageARModel(Deaf.make()), EditData(candidates=pictures)
    with (
        pytest.raises(PluginError, match=r"adapter 'tiny' .*takes no notice of .*logit_noise"),
        edited_by(LogitNoise(1.0), model, data),
    ):
        pass


# --- an edit is made, and the model comes back


class Careless(ModelEdit):
    """Leaves a weight as it is changed, or gives no model."""

    name = "careless"

    def __init__(self, gives: str = "the model") -> None:
        self.gives = gives

    @contextmanager
    def edited(self, model: Any, data: EditData, *, seed: int) -> Iterator[Any]:
        if self.gives == "nothing":
            yield None
            return
        with torch.no_grad():
            model.adapter.network.head.bias.add_(1.0)
        yield model


def test_an_edit_that_leaves_the_weights_changed_is_named(model: ImageARModel) -> None:
    message = r"edit 'careless' of .* changed the model's weights and did not put them back"
    with pytest.raises(PluginError, match=message), edited_by(Careless(), model, EditData()):
        pass


def test_an_edit_that_gives_no_model_is_named(model: ImageARModel) -> None:
    message = r"edit 'careless' of .* gave a NoneType; expected a model"
    with (
        pytest.raises(PluginError, match=message),
        edited_by(Careless("nothing"), model, EditData()),
    ):
        pass


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (FineTune(), "'fine-tune' cannot be made: there are no images of its training"),
        (GradientAscent(), "'gradient-ascent' cannot be made: there are no candidates"),
        (LogitNoise(change=0.1), "'logit-noise' cannot be made: there are no images that it was"),
    ],
)
def test_images_that_an_edit_lacks_are_named(
    model: ImageARModel, edit: ModelEdit, message: str
) -> None:
    with pytest.raises(InputError, match=message), edited_by(edit, model, EditData()):
        pass


def test_random_numbers_and_a_callers_inference_mode_are_left_alone(
    model: ImageARModel, others: Images
) -> None:
    state = torch.get_rng_state()
    with torch.inference_mode(), edited_by(FineTune(1), model, EditData(retained=others)) as one:
        assert one is model
        assert torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_edits_may_use_what_is_to_be_forgotten_and_no_other_candidates(pictures: Images) -> None:
    names = ("canary 40", "mine", "member, distinct", "held-out", "generated", "x", "x")
    groups = np.array(names)
    data = edit_data(Candidates(pictures, groups), None, None)
    assert data.candidates is not None
    assert data.candidates.ids.tolist() == [0, 1, 5, 6]
    unknown = edit_data(Candidates(pictures, np.full(7, "held-out")), None, None)
    assert unknown.candidates is None


def test_images_to_retain_are_no_candidates(
    model: ImageARModel, pictures: Images, others: Images
) -> None:
    candidates = Candidates(pictures, np.full(7, "mine"))
    check_retained(model, None, candidates)
    check_retained(model, others, candidates)
    with pytest.raises(InputError, match="2 of 2 images to retain are among the candidates"):
        check_retained(model, pictures.subset([1, 2]), candidates)
    with pytest.raises(InputError, match="there are no images to retain"):
        check_retained(model, others.subset([]), candidates)
    with pytest.raises(InputError, match="label 50, which is outside the classes"):
        check_retained(model, replace(others, labels=others.labels + 50), candidates)
