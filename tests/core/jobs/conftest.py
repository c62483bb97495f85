"""The tiny model of the core's tests, ready to be traced."""

from __future__ import annotations

import pytest

from iarmem_plugin.interfaces import Adapter
from iarmem_plugin.models.tracing import ImageARModel


@pytest.fixture
def model(adapter: Adapter) -> ImageARModel:
    return ImageARModel(adapter)
