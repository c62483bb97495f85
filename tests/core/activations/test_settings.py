"""All that changes the numbers of a capture is in its fingerprint; nothing else is."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch

from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.models.provenance import model_provenance
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter

SHOWN = {"views": 2, "batch_size": 3, "seed": 4, "augmentation": {"name": "shift"}}
PATHS = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b"))
LAYOUT = ModelLayout("var", 1, 2, (Scale("0", (0,)),), PATHS, range(1))
OTHERS: dict[str, Any] = {
    "layout": replace(LAYOUT, neurons_per_block=3),
    "slab": 4,
    "modules_sha256": {"text_encoder_sha256": "other"},
    "keep_bits": 13,
    **dict.fromkeys(("checkpoint_sha256", "adapter_version", "tokenizer_sha256", "dtype"), "other"),
    **dict.fromkeys(("autocast", "pixels_sha256"), "other"),
    "augmentation": {"crop": 256},
    **dict.fromkeys(("views", "seed", "batch_size", "torch_threads"), 7),
}


def images(count: int) -> Images:
    return Images.from_arrays(np.zeros((count, 4, 4, 3), np.uint8), np.zeros(count, int))


def test_every_field_but_the_name_and_what_else_is_known_is_in_the_fingerprint() -> None:
    settings = CaptureSettings("one", LAYOUT, images(5))
    others = OTHERS | {"images": images(6)}
    for name, other in others.items():
        assert replace(settings, **{name: other}).fingerprint != settings.fingerprint, name
    same = {"model": "other", "provenance": {"created": "today"}}
    assert replace(settings, **same).fingerprint == settings.fingerprint
    assert {field.name for field in fields(settings)} == {*others, *same}


@pytest.mark.parametrize(("count", "slab"), [(0, 8), (5, 0), (5, -1)])
def test_a_capture_of_nothing_is_refused(count: int, slab: int) -> None:
    pictures = images(5).subset(range(count))
    with pytest.raises(InputError, match=f"a slab of {slab} and {count} images"):
        CaptureSettings("one", LAYOUT, pictures, slab)


def of_model(adapter: TinyAdapter, pictures: Images, **changes: Any) -> CaptureSettings:
    model = ImageARModel(adapter)
    return CaptureSettings.of_model(model, pictures, model_provenance(model) | SHOWN | changes)


def test_a_captures_settings_name_the_adapters_version(
    adapter: TinyAdapter, pictures: Images
) -> None:
    settings = of_model(adapter, pictures)
    assert settings.adapter_version == f"iarmem {version('iarmem')}"
    assert SHOWN.items() <= settings.to_dict().items()


def test_autocast_is_a_setting_where_it_is_on(adapter: TinyAdapter, pictures: Images) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = of_model(adapter, pictures).to_dict()
    without = of_model(adapter, pictures).to_dict()
    assert cast.pop("autocast") == "bfloat16"
    assert cast == without


def test_pictures_in_memory_are_told_apart_by_their_pixels(adapter: TinyAdapter) -> None:
    pixels = np.zeros((5, 4, 4, 3), np.uint8)
    first = of_model(adapter, Images.from_arrays(pixels))
    same = of_model(adapter, Images.from_arrays(pixels.copy()))
    pixels[3, 0, 0, 0] = 1
    other = Images.from_arrays(pixels)
    assert first.fingerprint == same.fingerprint != of_model(adapter, other).fingerprint
    parts = [one.subset([0, 1, 2]) for one in (other, same.images)]
    assert len({of_model(adapter, one).fingerprint for one in parts}) == 1
    assert of_model(adapter, other.join(other)).pixels_sha256 not in (None, first.pixels_sha256)


@pytest.mark.parametrize(("device", "threads"), [("cpu", True), ("cuda:0", False)])
def test_the_number_of_threads_is_a_setting_on_the_cpu_alone(
    adapter: TinyAdapter, pictures: Images, device: str, threads: bool
) -> None:
    settings = of_model(adapter, pictures, device=device)
    assert ("torch_threads" in settings.to_dict()) is threads
    assert ("torch_threads" in settings.provenance) is threads
