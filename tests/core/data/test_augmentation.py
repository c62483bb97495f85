"""The views a model is shown: which pixels, drawn from what, and what is refused."""

from __future__ import annotations

import importlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from iarmem_plugin.data.augmentation import CustomViews, TenCrops, Views, refuse_identical_views
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(noise(height, width))


def ten(crop: int, source: Image.Image, count: int = 10, **other: int) -> np.ndarray:
    settings = {"image": 0, "seed": 0, **other}
    return TenCrops(crop=crop).draw_pixels(source, count=count, **settings)


# --- random crops


def test_a_view_is_a_crop_of_the_picture_in_0_to_1() -> None:
    pixels = noise(6, 7)
    view = Views(crop=4).draw(Image.fromarray(pixels), image=0, count=1, seed=0)[0].numpy()
    crops = [pixels[t : t + 4, x : x + 4] for t in range(3) for x in range(4)]
    assert any(np.array_equal(view, np.moveaxis(c, 2, 0).astype("f4") / 255) for c in crops)


def test_every_crop_position_is_drawn_about_equally_often() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[..., 0] = np.arange(16).reshape(4, 4)
    views = Views(crop=2).draw(Image.fromarray(pixels), image=3, count=900, seed=0)
    corners, counts = np.unique((views[:, 0, 0, 0] * 255).round(), return_counts=True)
    assert list(corners) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert counts.min() > 60  # 100 expected; five standard deviations are 47


def test_a_view_depends_on_seed_image_and_number_alone() -> None:
    views, source = Views(crop=8), picture(24, 24)
    ten = views.draw(source, image=5, count=10, seed=1)
    assert torch.equal(ten[:3], views.draw(source, image=5, count=3, seed=1))
    assert not torch.equal(ten, views.draw(source, image=6, count=10, seed=1))
    assert not torch.equal(ten, views.draw(source, image=5, count=10, seed=2))


def test_drawing_leaves_the_global_generators_alone() -> None:
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    Views(crop=4).draw(picture(8, 8), image=0, count=3, seed=0)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_the_border_is_white() -> None:
    black = Image.fromarray(np.zeros((2, 2, 3), np.uint8))
    view = Views(crop=4, pad=1).center(black)
    assert view.sum() == 3 * (16 - 4)
    assert not view[:, 1:3, 1:3].any()


def test_the_shorter_side_is_resized_by_lanczos() -> None:
    source = picture(20, 30)
    expected = np.asarray(source.resize((15, 10), Image.Resampling.LANCZOS))
    view = Views(crop=10, resize=10).center(source)
    assert np.array_equal(np.moveaxis(expected[:, 2:12], 2, 0).astype("f4") / 255, view.numpy())


def test_the_centre_view_has_equal_margins() -> None:
    pixels = noise(8, 12)
    view = Views(crop=4).center(Image.fromarray(pixels))
    assert np.array_equal(np.moveaxis(pixels[2:6, 4:8], 2, 0).astype("f4") / 255, view.numpy())


def test_several_views_of_one_possible_crop_are_refused() -> None:
    with pytest.raises(InputError, match="10 identical views"):
        Views(crop=8).draw(picture(8, 8), image=0, count=10, seed=0)
    assert Views(crop=8).draw(picture(8, 8), image=0, count=1, seed=0).shape == (1, 3, 8, 8)


def test_a_picture_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(InputError, match="6 x 5 pixels is too small for 8-pixel views"):
        Views(crop=8).center(picture(5, 6))


def test_a_batch_of_identical_views_is_refused() -> None:
    one = torch.rand(2, 1, 3, 4, 4)
    with pytest.raises(InputError, match="3 views of each of 2 pictures are identical"):
        refuse_identical_views(one.expand(2, 3, 3, 4, 4))


def test_different_views_single_views_and_plain_pictures_pass() -> None:
    refuse_identical_views(torch.rand(2, 3, 3, 4, 4))
    refuse_identical_views(torch.rand(2, 1, 3, 4, 4))
    refuse_identical_views(torch.ones(2, 3, 3, 4, 4))
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    refuse_identical_views(red.expand(2, 3, 3, 4, 4))


def test_one_picture_with_different_views_is_enough() -> None:
    views = torch.rand(3, 1, 3, 4, 4).repeat(1, 3, 1, 1, 1)
    views[2, 1, 0, 0, 0] = 2
    refuse_identical_views(views)


def test_mirrored_views_are_crops_of_the_mirrored_picture_at_the_same_places() -> None:
    source = picture(9, 12)
    plain = Views(crop=5).draw_pixels(source, image=1, count=40, seed=0)
    flipped = Views(crop=5, flip=True).draw_pixels(source, image=1, count=40, seed=0)
    mirror = Image.fromarray(noise(9, 12)[:, ::-1])
    mirrored = Views(crop=5).draw_pixels(mirror, image=1, count=40, seed=0)
    as_is = (flipped == plain).all((1, 2, 3))
    assert 10 < as_is.sum() < 30  # 20 expected; five standard deviations are 16
    assert np.array_equal(flipped[~as_is], mirrored[~as_is])


def test_mirroring_alone_makes_different_views() -> None:
    views = Views(crop=8, flip=True).draw_pixels(picture(8, 8), image=0, count=20, seed=0)
    assert len(np.unique(views.reshape(20, -1), axis=0)) == 2


# --- ten crops


def test_the_ten_crops_are_corners_and_centre_then_those_of_the_mirrored_picture() -> None:
    pixels = noise(281, 281)  # already 1.1 times 256, so nothing is resized
    places = [(0, 0), (0, 25), (25, 0), (25, 25), (12, 12)]
    expected = [
        side[top : top + 256, left : left + 256]
        for side in (pixels, pixels[:, ::-1])
        for top, left in places
    ]
    assert np.array_equal(np.stack(expected), ten(256, Image.fromarray(pixels)))


@pytest.mark.parametrize("crop", [10, 30, 32, 256])
def test_the_ten_crops_equal_torchvisions(crop: int) -> None:
    import_torchvision()
    functional = importlib.import_module("torchvision.transforms.functional")
    side = int(1.1 * crop)
    source = picture(side, side)
    expected = [np.asarray(one) for one in functional.ten_crop(source, crop)]
    assert np.array_equal(np.stack(expected), ten(crop, source))


def test_a_large_picture_is_halved_by_means_of_two_by_two_pixels() -> None:
    pixels = noise(22, 44)  # halved once to 11 by 22, whose shorter side is 1.1 times 10
    across = (pixels.reshape(22, 22, 2, 3).sum(2, dtype=int) + 1) // 2  # rounded in each direction
    means = (across.reshape(11, 2, 22, 3).sum(1) + 1) // 2
    square = means[:, 5:16]  # (22 - 11) // 2 columns are cut off on the left
    assert np.array_equal(ten(10, Image.fromarray(pixels))[0], square[:10, :10])
    assert np.array_equal(ten(10, Image.fromarray(pixels))[3], square[1:, 1:])


def test_a_picture_is_halved_until_its_shorter_side_is_below_two_squares() -> None:
    source = picture(45, 91)  # 22 is twice 11, the square of a 10-pixel crop
    halved = source.resize((45, 22), Image.Resampling.BOX)
    halved = halved.resize((22, 11), Image.Resampling.BOX)
    assert np.array_equal(ten(10, source)[0], np.asarray(halved)[:10, 5:15])


@pytest.mark.parametrize(
    ("height", "width", "resized", "left"),
    [(20, 30, (16, 11), 2), (7, 9, (14, 11), 1), (13, 21, (18, 11), 3)],
)
def test_the_rest_is_resized_by_bicubic(
    height: int, width: int, resized: tuple[int, int], left: int
) -> None:
    # 30 * 11 / 20 is 16.5, which is rounded to the even 16; 9 * 11 / 7 is 14.1; 21 * 11 / 13 17.8
    source = picture(height, width)
    expected = np.asarray(source.resize(resized, Image.Resampling.BICUBIC))
    assert np.array_equal(ten(10, source)[0], expected[:10, left : left + 10])


def test_an_upright_picture_loses_top_and_bottom() -> None:
    pixels = noise(18, 11)
    assert np.array_equal(ten(10, Image.fromarray(pixels))[0], pixels[3:13, :10])


def test_the_centre_view_of_ten_crops_is_the_whole_square() -> None:
    source = picture(20, 30)
    expected = np.asarray(source.resize((15, 10), Image.Resampling.BOX))[:, 2:12]
    assert np.array_equal(TenCrops(crop=10).center_pixels(source), expected)


def test_ten_crops_are_the_same_for_every_seed_and_image_and_fewer_are_the_first() -> None:
    source = picture(30, 40)
    assert np.array_equal(ten(10, source), ten(10, source, seed=9, image=9))
    assert np.array_equal(ten(10, source)[:3], ten(10, source, count=3))


def test_more_than_ten_crops_are_refused() -> None:
    with pytest.raises(InputError, match="11 views were asked for, and there are ten crops"):
        ten(10, picture(30, 40), count=11)


SIZES = [
    *((330, 300), (500, 375), (375, 500), (300, 330), (256, 256), (257, 256), (281, 281)),
    *((320, 240), (400, 300), (500, 333), (333, 500), (500, 334), (511, 511), (512, 512)),
    *((640, 480), (512, 384), (1024, 768), (600, 1130), (561, 600), (499, 331)),
]


def square(source: Image.Image, side: int) -> np.ndarray:
    """Return the centre square, by the words of RAR's specification (section 6)."""
    while min(source.size) >= 2 * side:
        source = source.resize((source.width // 2, source.height // 2), Image.Resampling.BOX)
    shorter = min(source.size)
    wide, high = (round(length * side / shorter) for length in source.size)
    pixels = np.array(source.resize((wide, high), Image.Resampling.BICUBIC))
    top, left = (high - side) // 2, (wide - side) // 2
    return pixels[top : top + side, left : left + side]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_rars_views_are_those_of_its_specification(width: int, height: int) -> None:
    source = picture(height // 8, width // 8).resize((width, height), Image.Resampling.BICUBIC)
    assert np.array_equal(TenCrops(crop=256).center_pixels(source), square(source, 256))
    whole = square(source, 281)
    assert np.array_equal(ten(256, source, count=4)[[0, 3]], [whole[:256, :256], whole[25:, 25:]])


def test_sixteen_bits_are_not_clipped_where_views_are_drawn() -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    deep = Image.fromarray(ramp * 257)
    assert np.array_equal(Views(crop=16).center_pixels(deep)[..., 0], ramp)
    assert np.array_equal(TenCrops(crop=16).center_pixels(deep)[..., 0], ramp)
    custom = CustomViews(lambda source, **_: deep, center_of=Views(crop=2), name="deep")
    assert np.array_equal(custom.draw_pixels(deep, image=0, count=1, seed=0)[0, ..., 0], ramp)


# --- your own


def shaded(source: Image.Image, *, image: int, view: int, seed: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (image, view, seed))


def test_a_function_draws_views_from_image_number_and_seed() -> None:
    views = CustomViews(shaded, center_of=Views(crop=2))
    drawn = views.draw_pixels(picture(4, 4), image=7, count=3, seed=5)
    assert drawn[:, 3, 3].tolist() == [[7, 0, 5], [7, 1, 5], [7, 2, 5]]


def test_the_centre_view_beside_a_function_is_the_other_augmentations() -> None:
    source = picture(6, 6)
    centre = CustomViews(shaded, center_of=Views(crop=2)).center(source)
    assert torch.equal(centre, Views(crop=2).center(source))


@pytest.mark.parametrize("drawn", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), 3])
def test_a_function_that_returns_no_picture_is_refused(drawn: object) -> None:
    views = CustomViews(lambda source, **_: drawn, center_of=Views(crop=2))
    with pytest.raises(InputError, match="views of picture 7 are"):
        views.draw_pixels(picture(4, 4), image=7, count=2, seed=0)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (Views(8, 9), {"name": "random crops", "crop": 8, "resize": 9, "pad": 0, "flip": False}),
        (TenCrops(8), {"name": "ten crops", "crop": 8}),
        (
            CustomViews(shaded, center_of=TenCrops(8)),
            {
                "name": "custom",
                "function": f"{__name__}.shaded",
                "center_of": {"name": "ten crops", "crop": 8},
            },
        ),
    ],
)
def test_provenance_names_the_augmentation_and_its_settings(
    views: Views, expected: dict[str, object]
) -> None:
    assert json.loads(json.dumps(dict(views.provenance))) == expected


def test_views_that_cannot_be_told_from_others_need_a_name() -> None:
    for function in (partial(shaded, seed=1), lambda source, **_: source):
        with pytest.raises(InputError, match="cannot be told from others of its kind"):
            dict(CustomViews(function, center_of=Views(crop=2)).provenance)
        named = CustomViews(function, center_of=Views(crop=2), name="seed 1")
        assert named.provenance["function"] == "seed 1"
