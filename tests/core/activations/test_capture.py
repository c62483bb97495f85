"""Images in, activations out: order of reduction, independence of batches, borrowed models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.activations.capture import capture, mean_over_views
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.testing.tiny import TinyAdapter

SCALES = ((0, 1), (1, 5), (5, 21))


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


def captured(model: ImageARModel, pictures: Images, shifts: Views, **settings: int) -> xr.DataArray:
    batches = capture(model, pictures, augmentation=shifts, **settings)
    return xr.concat(list(batches), "image")


def reference(adapter: TinyAdapter, pictures: Images, shifts: Views, views: int) -> np.ndarray:
    """Compute |GELU(fc1)|, mean over tokens, then mean over views, image by image, by hooks."""
    rows = []
    for position in range(len(pictures)):
        drawn = shifts.draw(pictures.load(position), image=position, count=views, seed=0)
        total = np.zeros((3, 3, 128), np.float64)
        for view in drawn:
            seen: list[np.ndarray] = []
            handles = [
                block.ffn.act.register_forward_hook(lambda _m, _i, out: seen.append(out[0].numpy()))  # noqa: B023  # used within the loop
                for block in adapter.network.blocks
            ]
            with torch.no_grad():
                tokens = adapter.tokenize(view[None])
                labels = torch.tensor([pictures.labels[position]]).long()
                adapter.network(*adapter.teacher_forced(tokens, Condition.of(labels)).args)
            for handle in handles:
                handle.remove()
            total += [[np.abs(act[a:b]).mean(0) for a, b in SCALES] for act in seen]
        rows.append(total / views)
    return np.stack(rows, axis=-1)


def test_activations_are_absolute_then_averaged_over_tokens_then_over_views(
    adapter: TinyAdapter, pictures: Images, shifts: Views
) -> None:
    expected = reference(adapter, pictures, shifts, 3)
    with wrapped(adapter) as model:
        actual = captured(model, pictures, shifts, views=3, batch_size=4)
    assert actual.dims == ("block", "scale", "neuron", "image")
    # float32 sums of up to 16 tokens, in another order when batched
    np.testing.assert_allclose(
        actual.transpose("block", "scale", "neuron", "image"), expected, atol=2e-6
    )


def test_coordinates_name_blocks_scales_neurons_and_images(
    model: ImageARModel, pictures: Images, shifts: Views
) -> None:
    batch = next(capture(model, pictures.subset([5, 2]), views=2, augmentation=shifts))
    assert batch.dtype == np.float32
    assert batch["image"].values.tolist() == [5, 2]
    assert batch["label"].values.tolist() == [0, 2]
    assert batch["scale_name"].values.tolist() == ["0", "1", "2"]
    assert batch["image_path"].values.tolist() == [pictures.paths[5], pictures.paths[2]]
    assert batch.sizes == {"block": 3, "scale": 3, "neuron": 128, "image": 2}


def test_batch_size_and_order_of_images_do_not_matter(
    model: ImageARModel, pictures: Images, shifts: Views
) -> None:
    together = captured(model, pictures, shifts, views=2, batch_size=7)
    turned = pictures.subset(np.arange(7)[::-1])
    one_by_one = captured(model, turned, shifts, views=2, batch_size=1).sortby("image")
    np.testing.assert_allclose(one_by_one, together, atol=2e-6)  # float32 rounding by batch shape


def test_the_same_seed_gives_bit_equal_activations_and_another_does_not(
    model: ImageARModel, pictures: Images, shifts: Views
) -> None:
    first = captured(model, pictures, shifts, views=2, seed=3)
    assert np.array_equal(first, captured(model, pictures, shifts, views=2, seed=3))
    assert not np.array_equal(first, captured(model, pictures, shifts, views=2, seed=4))


def test_one_view_is_the_centre_and_needs_no_room_to_shift(
    model: ImageARModel, pictures: Images
) -> None:
    exact = Views(crop=8)
    assert captured(model, pictures, exact, views=1).shape == (3, 3, 128, 7)


def test_ten_identical_views_are_refused(model: ImageARModel, pictures: Images) -> None:
    with pytest.raises(InputError, match="10 identical views"):
        next(capture(model, pictures, augmentation=Views(crop=8)))


def test_scale_zero_sees_only_the_class(
    model: ImageARModel, pictures: Images, shifts: Views
) -> None:
    activations = captured(model, pictures, shifts, views=2).sel(scale=0)
    same_class = activations.sel(image=[0, 5])
    np.testing.assert_allclose(same_class.isel(image=0), same_class.isel(image=1), atol=1e-6)


def test_the_model_comes_back_as_it_was_between_batches(
    adapter: TinyAdapter, pictures: Images, shifts: Views
) -> None:
    adapter.network.train()
    random = torch.get_rng_state()
    with wrapped(adapter) as model:
        for _ in capture(model, pictures, views=2, batch_size=3, augmentation=shifts):
            assert adapter.network.training
            assert torch.is_grad_enabled()
            assert torch.equal(torch.get_rng_state(), random)


def test_an_abandoned_capture_leaves_nothing_behind(
    adapter: TinyAdapter, pictures: Images, shifts: Views
) -> None:
    keys = [sorted(module.__dict__) for module in adapter.network.modules()]
    with wrapped(adapter) as model:
        batches = capture(model, pictures, views=2, batch_size=2, augmentation=shifts)
        next(batches)
        batches.close()
    assert [sorted(module.__dict__) for module in adapter.network.modules()] == keys


def test_no_images_are_refused(model: ImageARModel, pictures: Images) -> None:
    with pytest.raises(InputError, match="no images"):
        next(capture(model, pictures.subset([])))


@pytest.mark.parametrize("settings", [{"views": 0}, {"batch_size": 0}])
def test_settings_below_one_are_refused(
    model: ImageARModel, pictures: Images, settings: dict[str, int]
) -> None:
    with pytest.raises(InputError, match="1 or more"):
        next(capture(model, pictures, **settings))


def test_labels_outside_the_classes_are_refused(model: ImageARModel) -> None:
    pixels = torch.rand(1, 2, 3, 8, 8)
    with pytest.raises(InputError, match="classes 0 to 4"):
        mean_over_views(model, pixels, Condition.of(torch.tensor([5])))
