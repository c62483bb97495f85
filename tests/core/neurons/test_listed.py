"""Lists of neurons: written, taken back, and refused where they are of something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.neurons.listed import Listed, as_csv, as_netcdf, read_neurons
from iarmem_plugin.neurons.selectors import select

BLOCKS, NEURONS = 3, 10


@pytest.fixture
def chosen() -> xr.DataArray:
    """Seven of thirty neurons, none in block 1."""
    values = np.zeros((BLOCKS, NEURONS), bool)
    values[0, [9, 2, 4]] = values[2, [0, 1, 5, 9]] = True
    return xr.DataArray(values, dims=("block", "neuron"))


@pytest.fixture
def scores() -> xr.Dataset:
    dims = ("block", "scale", "neuron")
    values = np.random.default_rng(0).random((BLOCKS, 2, NEURONS))
    valid = xr.DataArray(np.ones(values.shape, bool), dims=dims)
    data = xr.DataArray(values, dims=dims).assign_coords(
        block=np.arange(BLOCKS), neuron=np.arange(NEURONS), valid=valid
    )
    return data.to_dataset(name="score")


def lists(chosen: xr.DataArray, folder: Path) -> list[Path]:
    score = xr.DataArray(np.random.default_rng(1).random(chosen.shape), dims=chosen.dims)
    (folder / "plain.csv").write_bytes(as_csv(chosen))
    (folder / "scored.csv").write_bytes(as_csv(chosen, score))
    (folder / "list.nc").write_bytes(as_netcdf(chosen, score, {"model": "tiny"}))
    return sorted(folder.iterdir())


def test_a_csv_lists_a_neuron_a_line_in_their_order(chosen: xr.DataArray) -> None:
    lines = as_csv(chosen).decode().splitlines()
    assert lines == ["block,neuron", "0,2", "0,4", "0,9", "2,0", "2,1", "2,5", "2,9"]


def test_a_list_is_taken_back_whatever_its_form_and_its_scores(
    chosen: xr.DataArray, scores: xr.Dataset, tmp_path: Path
) -> None:
    for place in lists(chosen, tmp_path):
        found = select(scores, fraction=0.23, selector=f"listed:file={place}", seed=7)
        np.testing.assert_array_equal(found, chosen, err_msg=place.name)
        np.testing.assert_array_equal(read_neurons(place, (BLOCKS, NEURONS)), chosen)


def test_spaces_blank_lines_and_other_line_ends_are_read(tmp_path: Path) -> None:
    place = tmp_path / "list.csv"
    place.write_bytes(b"\xef\xbb\xbfBlock, Neuron ,note\r\n 0 , 3,why\r\n\r\n2,1\r\n")
    found = read_neurons(place, (BLOCKS, NEURONS))
    assert np.argwhere(found.to_numpy()).tolist() == [[0, 3], [2, 1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1\n", "begins with '0,1'; expected a line with the columns block,neuron"),
        ("", "begins with ''"),
        ("block,neuron\n", "lists no neurons"),
        ("block,neuron\n0,1\n0,1\n", "line 3: block 0, neuron 1 comes twice"),
        ("block,neuron\n3,0\n", "line 2: block 3, neuron 0; the model has 3 blocks of 10 neurons"),
        ("block,neuron\n0,10\n", "neuron 10; the model has"),
        (f"block,neuron\n0,{'9' * 5000}\n", "the list is of another model"),
        ("block,neuron\n0,-1\n", "'0,-1'; expected the numbers"),
        ("block,neuron\n0,1.5\n", "expected the numbers"),
        ("block,neuron\n0\n", "expected the numbers"),
        ("block,neuron\n0,²\n", "expected the numbers"),
        ("\x89HDF\r\n\x1a\n", "holds no 'selected'"),
    ],
)
def test_what_is_no_list_of_this_model_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    place = tmp_path / "list"
    place.write_bytes(text.encode("latin-1") if "HDF" in text else text.encode())
    with pytest.raises(InputError) as caught:
        read_neurons(place, (BLOCKS, NEURONS))
    assert expected in " ".join(str(caught.value).split())


def test_a_netcdf_list_of_another_size_or_without_a_selection_is_refused(
    chosen: xr.DataArray, tmp_path: Path
) -> None:
    lists(chosen, tmp_path)
    with pytest.raises(InputError, match="the model has 3 blocks of 9 neurons"):
        read_neurons(tmp_path / "list.nc", (BLOCKS, 9))
    other = bytes(chosen.to_dataset(name="neurons").to_netcdf(engine="h5netcdf"))
    (tmp_path / "other.nc").write_bytes(other)
    with pytest.raises(InputError, match="holds no 'selected'"):
        read_neurons(tmp_path / "other.nc", (BLOCKS, NEURONS))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_another_fraction_is_refused_with_one_that_fits(
    chosen: xr.DataArray, scores: xr.Dataset, tmp_path: Path, fraction: float
) -> None:
    selector = f"listed:file={lists(chosen, tmp_path)[0]}"
    with pytest.raises(InputError, match="holds 7 of 30 neurons") as caught:
        select(scores, fraction=fraction, selector=selector)
    advised = float(str(caught.value).split()[-1])
    assert int(select(scores, fraction=advised, selector=selector).sum()) == 7
    assert int(select(scores, fraction=advised, selector="random").sum()) == 7


def test_a_listed_neuron_that_is_not_valid_is_refused(
    chosen: xr.DataArray, scores: xr.Dataset, tmp_path: Path
) -> None:
    scores["valid"][0, :, 2] = False
    with pytest.raises(InputError, match="holds 1 neurons that are not valid"):
        select(scores, fraction=0.23, selector=f"listed:file={lists(chosen, tmp_path)[0]}")


def test_a_list_is_known_by_its_content_and_read_once(
    chosen: xr.DataArray, scores: xr.Dataset, tmp_path: Path
) -> None:
    place = tmp_path / "list.csv"
    assert Listed(place).parameters == {"file": "list.csv"}  # as in a plan read elsewhere
    place.write_bytes(as_csv(chosen))
    first = Listed(place)
    before = first.select(scores, fraction=0.23, seed=0)
    said = first.parameters["file"]
    assert said.startswith("list.csv sha256 ")
    chosen[0, 2], chosen[0, 3] = False, True
    place.write_bytes(as_csv(chosen))
    xr.testing.assert_identical(first.select(scores, fraction=0.23, seed=0), before)
    assert first.parameters["file"] == said
    assert Listed(place).parameters["file"] != said
    assert not Listed(place).select(scores, fraction=0.23, seed=0).equals(before)


def test_a_list_that_is_not_there_is_refused(scores: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        select(scores, fraction=0.1, selector=f"listed:file={tmp_path / 'nowhere.csv'}")
