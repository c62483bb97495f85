"""Localization: scores equal a direct computation; files are whole or absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import (
    InputError,
    NonFiniteActivationError,
    PluginError,
    UnknownNameError,
)
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.scores import load_scores, save_scores
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.store.store import ActivationStore
from iarmem_plugin.testing.tiny import TinyAdapter

TWO_VIEWS = CaptureOptions(views=2)


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


def test_scores_equal_the_definition_of_unitmem(model: ImageARModel, pictures: Images) -> None:
    scores = localize(model, pictures, options=CaptureOptions(views=3, batch_size=2))
    activations = xr.concat(list(capture(model, pictures, views=3, batch_size=2)), "image")
    values = activations.transpose("image", "block", "scale", "neuron").values.astype(np.float64)
    ordered = np.sort(values, axis=0)
    largest, rest = ordered[-1], ordered[:-1].mean(axis=0)
    # float32 score of float64 sums
    np.testing.assert_allclose(scores["score"], (largest - rest) / (largest + rest), atol=1e-6)
    np.testing.assert_allclose(scores["mean_activation"], values.mean(axis=0), atol=1e-6)
    assert scores["score"].dims == ("block", "scale", "neuron")
    assert scores.attrs["metric"] == "unitmem"


@pytest.mark.parametrize("metric", ["unitmem", "mean-activation", "random"])
def test_a_metric_gives_the_same_from_a_store_as_from_capture(
    model: ImageARModel, pictures: Images, tmp_path: Path, metric: str
) -> None:
    path = tmp_path / "activations.zarr"
    streamed = localize(
        model, pictures, options=CaptureOptions(views=2, batch_size=3), metric=metric, store=path
    )
    stored = plugins.find("metric", metric)()
    for batch in ActivationStore.open(path).batches():
        stored.update(batch)
    # sums of float64 in another order
    np.testing.assert_allclose(stored.compute(), streamed["score"], rtol=1e-6)


def test_activations_are_kept_at_a_url(model: ImageARModel, pictures: Images) -> None:
    place = "memory://iarmem-localize/x.zarr"
    scores = localize(model, pictures, options=CaptureOptions(views=1), store=place)
    stored = ActivationStore.open(place).score("unitmem")
    np.testing.assert_allclose(stored, scores["score"], rtol=1e-6)  # float64 as float32
    assert not Path("memory:").exists()


def test_provenance_says_how_scores_were_made(model: ImageARModel, pictures: Images) -> None:
    provenance = json.loads(
        localize(model, pictures, options=CaptureOptions(views=2, seed=5)).attrs["provenance"]
    )
    assert provenance["seed"] == 5
    assert provenance["views"] == 2
    assert provenance["images"] == 7
    assert provenance["image_list_sha256"] == pictures.digest
    assert len(provenance["weights_sha256"]) == 64
    assert provenance["versions"]["nnsight"].startswith("0.8")


def test_saved_scores_come_back(model: ImageARModel, pictures: Images, tmp_path: Path) -> None:
    scores = localize(model, pictures, options=TWO_VIEWS)
    save_scores(scores, tmp_path / "out")
    xr.testing.assert_equal(load_scores(tmp_path / "out"), scores)
    xr.testing.assert_equal(load_scores(tmp_path / "out" / "scores.nc"), scores)
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == ["heatmap.png", "histogram.png", "neurons.png", "scores.nc"]


def test_scores_do_not_overwrite_a_folder_that_is_not_ours(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    scores = localize(model, pictures, options=TWO_VIEWS)
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        save_scores(scores, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_scores_do_not_overwrite_those_of_a_report(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    (tmp_path / "scores.nc").write_text("a report's")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"report\.json"):
        save_scores(localize(model, pictures, options=TWO_VIEWS), tmp_path)
    assert (tmp_path / "scores.nc").read_text() == "a report's"


def test_missing_and_foreign_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="iarmem localize"):
        load_scores(tmp_path)
    (tmp_path / "scores.nc").write_text("<html>")
    with pytest.raises(InputError, match="netCDF"):
        load_scores(tmp_path)


def test_an_unknown_metric_lists_what_there_is(model: ImageARModel, pictures: Images) -> None:
    with pytest.raises(UnknownNameError, match=r"mean-activation.*unitmem"):
        localize(model, pictures, metric="unitmen")


def test_labels_outside_the_classes_are_refused(model: ImageARModel) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="5"):
        localize(model, Images.from_arrays(pixels, np.array([0, 5])))


def test_nan_activations_are_refused_by_place(
    adapter: TinyAdapter, model: ImageARModel, pictures: Images
) -> None:
    adapter.network.blocks[1].ffn.fc1.bias.data[17] = float("nan")
    with pytest.raises(NonFiniteActivationError, match="block 1"):
        localize(model, pictures, options=TWO_VIEWS)


def test_a_dead_neuron_is_marked_by_the_metric(
    adapter: TinyAdapter, model: ImageARModel, pictures: Images
) -> None:
    adapter.network.blocks[1].ffn.fc1.weight.data[17] = 0
    adapter.network.blocks[1].ffn.fc1.bias.data[17] = 0
    for metric, valid in (("unitmem", False), ("random", True)):
        scores = localize(model, pictures, options=TWO_VIEWS, metric=metric)
        assert bool(scores["valid"].sel(block=1, neuron=17).any()) is valid


def test_a_store_says_how_it_was_made(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    path = tmp_path / "activations.zarr"
    scores = localize(model, pictures, options=TWO_VIEWS, store=path)
    attributes = ActivationStore.open(path).dataset().attrs
    made = json.loads(scores.attrs["provenance"])
    assert attributes["checkpoint_sha256"] == made["weights_sha256"]
    assert attributes["provenance"]["seed"] == 0


def test_a_metric_that_does_not_say_what_is_valid_is_named(
    model: ImageARModel, pictures: Images
) -> None:
    class Forgetful(plugins.find("metric", "mean-activation")):  # type: ignore[misc]  # a class
        name = "forgetful"

        def compute(self) -> xr.DataArray:
            return super().compute().drop_vars("valid")

    with pytest.raises(PluginError, match=r"'forgetful'.*'valid'"):
        localize(model, pictures, options=TWO_VIEWS, metric=Forgetful())


@pytest.mark.parametrize("lost", ["metric", "provenance", "valid", "scale_name"])
def test_scores_that_lack_a_part_are_refused_by_its_name(
    model: ImageARModel, pictures: Images, tmp_path: Path, lost: str
) -> None:
    scores = localize(model, pictures, options=TWO_VIEWS).drop_vars(lost, errors="ignore")
    scores.attrs.pop(lost, None)
    scores.to_netcdf(tmp_path / "scores.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=lost):
        load_scores(tmp_path)


def test_skipped_pictures_are_in_the_provenance(model: ImageARModel, pictures: Images) -> None:
    partial = replace(pictures, skipped=("broken.png",))
    provenance = json.loads(localize(model, partial, options=TWO_VIEWS).attrs["provenance"])
    assert provenance["skipped_images"] == ["broken.png"]
