"""The tiny model of the core's tests, ready to be traced, and its scores."""

from __future__ import annotations

import pytest
import xarray as xr

from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces import Adapter
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.models.tracing import ImageARModel


@pytest.fixture
def model(adapter: Adapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def scores(model: ImageARModel, pictures: Images) -> xr.Dataset:
    return localize(model, pictures, options=CaptureOptions(views=2))
