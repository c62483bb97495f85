from __future__ import annotations

import pytest
import xarray as xr
from iarmem_example.spread import Spread

from iarmem_plugin import Metric
from iarmem_plugin.testing import MetricTests


class TestSpread(MetricTests):
    @pytest.fixture
    def metric(self) -> type[Metric]:
        return Spread


def test_the_spread_of_1_4_2_is_3() -> None:
    metric = Spread()
    metric.update(xr.DataArray([[[[1.0, 4.0, 2.0]]]], dims=("block", "scale", "neuron", "image")))
    assert metric.compute().item() == 3.0
