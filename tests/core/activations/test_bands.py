"""Scales of one's own: which positions they are, and what is captured there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.interfaces.layout import ModelLayout, Scale, spans
from iarmem_plugin.interfaces.mlp import MLP, Reads, Writes
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.store.store import ActivationStore
from iarmem_plugin.testing.tiny import TinyAdapter

PATHS = MLP(Writes("{block}.fc2"), {"fc1": Reads("{block}.fc1")})
LAYOUT = ModelLayout("any", 1, 1, (Scale("all", (0,)),), PATHS, range(1, 257))


def test_a_band_is_of_tokens_counted_from_0_and_is_mapped_to_the_positions_that_predict_them() -> (
    None
):
    first, last = LAYOUT.band("first row", range(1, 17)), LAYOUT.band("last token", [256])
    assert first == Scale("first row", tuple(range(16)))
    assert LAYOUT.positions(first) == tuple(range(1, 17))
    assert (last.tokens, LAYOUT.positions(last)) == ((255,), (256,))


def test_a_band_may_have_gaps_and_come_in_any_order() -> None:
    assert spans(LAYOUT.positions(LAYOUT.band("some", [30, 2, 2, 3, 1]))) == "1-3,30"


def test_positions_are_ascending_where_tokens_are_predicted_in_another_order() -> None:
    layout = replace(LAYOUT, predicting=(5, 3, 9, 4))
    assert layout.positions(Scale("x", (0, 1, 3))) == (3, 4, 5)


@pytest.mark.parametrize("tokens", [[0], [257], [1, 300], []])
def test_tokens_outside_an_image_are_refused(tokens: list[int]) -> None:
    with pytest.raises(InputError, match="tokens from 1 to 256"):
        LAYOUT.band("x", tokens)


@pytest.mark.parametrize("tokens", [(256,), (1, 258)])
def test_scales_of_tokens_outside_an_image_are_refused(tokens: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"has the tokens .*; those of an image are 0 to 255"):
        LAYOUT.with_scales([Scale("x", tokens)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_blocks": 0}, "0 blocks with 1 neurons, for images of 256 tokens"),
        ({"neurons_per_block": 0}, "1 blocks with 0 neurons"),
        ({"predicting": ()}, "images of 0 tokens"),
        ({"predicting": (-1, 0)}, r"predicting is \[-1, 0\].*from 0, each once"),
        ({"predicting": (3, 4, 3)}, r"predicting is \[3, 4, 3\]"),
        ({"predicting": (3,), "scales": (Scale("x", (1,)),)}, "tokens 1; those of an image are 0"),
        ({"ranked_tokens": 257}, "ranked_tokens is 257; an image has 256 tokens"),
        ({"ranked_tokens": 0}, "ranked_tokens is 0"),
    ],
)
def test_a_layout_whose_numbers_do_not_fit_each_other_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        replace(LAYOUT, **changes)


@pytest.mark.parametrize("tokens", [(-1,), (3, 1, 2), (1, 1)])
def test_tokens_that_are_no_set_in_order_are_refused(tokens: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="ascending"):
        Scale("x", tokens)


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_scales_need_different_names(names: list[str]) -> None:
    with pytest.raises(InputError, match="different names"):
        LAYOUT.with_scales([Scale(name, (1,)) for name in names])


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


def activations(model: ImageARModel, pictures: Images) -> xr.DataArray:
    return xr.concat(list(capture(model, pictures, views=1, augmentation=Views(crop=8))), "image")


def test_a_band_is_the_mean_over_its_tokens(
    adapter: TinyAdapter, model: ImageARModel, pictures: Images
) -> None:
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        pixels = torch.stack([Views(crop=8).center(pictures.load(i)) for i in range(7)])
        inputs = adapter.teacher_forced(
            adapter.tokenize(pixels), Condition.of(torch.from_numpy(pictures.labels).long())
        )
        hook = adapter.network.blocks[1].ffn.act.register_forward_hook(
            lambda _m, _i, out: seen.append(out.abs())
        )
        adapter.network(*inputs.args)
        hook.remove()
    tokens = [1, 6, 7, 21]  # counted from 1; the network's positions from 0
    expected = (seen[0][:, 0] + seen[0][:, 5] + seen[0][:, 6] + seen[0][:, 20]) / 4
    banded = model.with_scales([model.layout.band("mixed", tokens), Scale("one", (20,))])
    actual = activations(banded, pictures)
    assert actual["scale_name"].values.tolist() == ["mixed", "one"]
    chosen = actual.sel(block=1, scale=0).transpose("image", "neuron")
    np.testing.assert_allclose(chosen, expected, atol=1e-6)  # float32 sums of four
    one = actual.sel(block=1, scale=1).transpose("image", "neuron")
    np.testing.assert_array_equal(one, seen[0][:, 20])


def test_bands_of_the_models_own_scales_capture_the_same(
    model: ImageARModel, pictures: Images
) -> None:
    spans = {"0": range(1, 2), "1": range(2, 6), "2": range(6, 22)}
    banded = model.with_scales([model.layout.band(*item) for item in spans.items()])
    xr.testing.assert_identical(activations(banded, pictures), activations(model, pictures))


def test_the_model_itself_keeps_its_scales(model: ImageARModel, pictures: Images) -> None:
    before = activations(model, pictures)
    activations(model.with_scales([Scale("one", (3,))]), pictures)
    xr.testing.assert_identical(activations(model, pictures), before)


def test_scores_and_store_carry_the_names_and_positions(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    banded = model.with_scales([Scale("first", (0, 1, 2)), Scale("corner", (5, 20))])
    path = tmp_path / "bands.zarr"
    scores = localize(banded, pictures, options=CaptureOptions(views=2), store=path)
    assert scores["scale_name"].values.tolist() == ["first", "corner"]
    assert json.loads(scores.attrs["provenance"])["scales"] == {"first": "0-2", "corner": "5,20"}
    data = ActivationStore.open(path).dataset()
    assert data["scale_name"].values.tolist() == ["first", "corner"]
    assert data["scale_size"].values.tolist() == [3, 2]


def test_positions_beyond_the_models_are_refused(adapter: TinyAdapter, pictures: Images) -> None:
    far = (Scale("far", (19, 20)),)
    adapter.layout = replace(adapter.layout, scales=far, predicting=range(1, 22))
    with pytest.raises(InputError, match="positions 20-21, the model's are 0 to 20"):
        activations(ImageARModel(adapter), pictures)
