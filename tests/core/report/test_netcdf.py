"""Datasets in files: what netCDF cannot hold comes back, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.report.netcdf import netcdf, read_netcdf


def test_attributes_that_netcdf_does_not_know_come_back(tmp_path: Path) -> None:
    attributes = {
        "nothing": None, "whole": True, "nested": {"views": [1, 2]}, "text": '{"no": "mapping"}',
        "empty": "", "count": 3, "share": 0.1,
    }  # fmt: skip
    (tmp_path / "a.nc").write_bytes(netcdf(xr.Dataset(attrs=attributes)))
    found = read_netcdf(tmp_path / "a.nc").attrs
    assert found == attributes
    assert [type(value) for value in found.values()] == [
        type(value) for value in attributes.values()
    ]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32", "float64", "<U3"])
def test_values_come_back_with_their_type(tmp_path: Path, dtype: str) -> None:
    values = np.array([0, 1, 1]).astype(dtype)
    dataset = xr.Dataset({"a": ("x", values)}, {"b": ("x", values), "x": ["é", "", "猫"]})
    (tmp_path / "a.nc").write_bytes(netcdf(dataset))
    found = read_netcdf(tmp_path / "a.nc")
    xr.testing.assert_identical(found, dataset)
    assert found["a"].dtype.kind == dataset["a"].dtype.kind


def test_a_file_is_the_same_however_many_attributes_and_variables_it_has(tmp_path: Path) -> None:
    names = [f"{letter}{number}" for number, letter in enumerate("zyxwvutsrqponm")]
    dataset = xr.Dataset({name: ("x", [1.0]) for name in names}, attrs=dict.fromkeys(names, 1))
    dataset = dataset.assign_coords(late=("x", [2.0]), x=["a"])
    (tmp_path / "first.nc").write_bytes(netcdf(dataset))
    (tmp_path / "second.nc").write_bytes(netcdf(read_netcdf(tmp_path / "first.nc")))
    assert (tmp_path / "second.nc").read_bytes() == (tmp_path / "first.nc").read_bytes()
