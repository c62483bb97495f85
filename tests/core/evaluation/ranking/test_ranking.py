"""A ranking as a file, and the candidates that are chosen from it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.evaluation.ranking.run import rank
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.testing.tiny import TinyAdapter

SIDE = 8


def pictures(count: int, labels: list[int], *, copies: dict[int, int] | None = None) -> Images:
    """Random pictures; a copy has the values of another one."""
    values = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    for copy, original in (copies or {}).items():
        values[copy] = values[original]
    names = [f"bild-é{number}.png" for number in range(count)]
    return Images.from_arrays(values, np.array(labels), names=names)


def ranking(images: Images, hits: list[float], likelihood: list[float] | None = None) -> Ranking:
    """A ranking with scores set by hand."""
    digests = [images.reader.picture_sha256(int(one), "") for one in images.ids]
    content = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    known = {"model": "tiny", "image_list_sha256": images.digest}
    mean = np.zeros(len(hits)) if likelihood is None else np.array(likelihood)
    return Ranking.of(images, np.array(hits), mean, content, known)


def test_the_order_is_score_then_likelihood_then_id() -> None:
    images = pictures(5, [0] * 5)
    found = ranking(images, [0.5, 0.75, 0.75, 0.5, 0.75], [-1.0, -2.0, -1.0, -1.0, -1.0])
    assert found.order.tolist() == [2, 4, 1, 0, 3]
    assert found.candidates(images, per_class=4).images.ids.tolist() == [2, 4, 1, 0]


def test_each_class_gives_its_best_and_a_small_class_lends_nothing() -> None:
    images = pictures(6, [1, 0, 1, 0, 1, 2])
    found = ranking(images, [0.1, 0.2, 0.3, 0.4, 0.5, 0.0]).candidates(images, per_class=2)
    assert found.images.ids.tolist() == [3, 1, 4, 2, 5]
    assert found.hit_rate is not None
    assert found.hit_rate.tolist() == [0.4, 0.2, 0.5, 0.3, 0.0]


def test_the_best_of_all_may_be_of_one_class() -> None:
    images = pictures(4, [0, 0, 0, 1])
    found = ranking(images, [0.5, 0.6, 0.7, 0.1]).candidates(images, global_top=3)
    assert found.images.ids.tolist() == [2, 1, 0]


def test_copies_of_a_picture_count_once_and_are_said() -> None:
    images = pictures(4, [0, 0, 0, 1], copies={1: 0, 3: 0})
    found = ranking(images, [0.5, 0.9, 0.1, 0.9])
    with pytest.warns(UserWarning, match=r"2 of 4 images are copies of others, such as 'bild-é0"):
        chosen = found.candidates(images, per_class=3)
    assert chosen.images.ids.tolist() == [1, 2]
    assert found.copies.tolist() == [True, False, False, True]


def test_near_duplicates_are_marked_where_that_is_asked_for() -> None:
    images = pictures(3, [0, 0, 0], copies={2: 0})
    images.reader.images[2, 0, 0] ^= 1  # type: ignore[attr-defined]  # an ArrayReader
    found = ranking(images, [0.3, 0.2, 0.1])
    assert found.candidates(images).clusters is None
    clusters = found.candidates(images, near_duplicates=0.8).clusters
    assert clusters is not None
    assert clusters.number.tolist() == [0, 1, 0]
    assert len(clusters) == 2


def test_a_ranking_comes_back_from_its_file_bit_for_bit(tmp_path: Path) -> None:
    images = pictures(4, [3, 2, 1, 0])
    made = ranking(images, [0.1, 1 / 3, 0.3, 1.0], [-0.1, -1 / 7, -3.0, 0.0])
    made.save(tmp_path / "deep" / "ranking.nc")
    found = Ranking.load(tmp_path / "deep" / "ranking.nc")
    for name in ("ids", "labels", "hit_rate", "log_probability", "content"):
        given, expected = getattr(found, name), getattr(made, name)
        assert given.dtype == expected.dtype
        assert np.array_equal(given, expected)
    assert found.paths == made.paths
    assert found.provenance == made.provenance
    found.save(tmp_path / "again.nc")
    assert (tmp_path / "again.nc").read_bytes() == (tmp_path / "deep/ranking.nc").read_bytes()


def test_the_file_is_plain_netcdf(tmp_path: Path) -> None:
    ranking(pictures(2, [1, 0]), [0.25, 0.5]).save(tmp_path / "r.nc")
    found = xr.load_dataset(tmp_path / "r.nc", engine="h5netcdf")
    assert found["hit_rate"].values.tolist() == [0.25, 0.5]
    assert [one.decode() for one in found["path"].values] == ["bild-é0.png", "bild-é1.png"]


@pytest.mark.parametrize("spoil", ["flip", "cut", "other", "empty", "renamed", "huge"])
def test_a_damaged_or_foreign_file_is_refused_in_one_line(tmp_path: Path, spoil: str) -> None:
    file = tmp_path / "r.nc"
    ranking(pictures(3, [0, 1, 2]), [0.25, 0.5, 0.75]).save(file)
    data = bytearray(file.read_bytes())
    if spoil == "flip":
        data[data.index(np.array([0.25, 0.5]).tobytes()) + 3] ^= 16
    elif spoil == "cut":
        del data[len(data) // 2 :]
    elif spoil == "other":
        data = bytearray(bytes(xr.Dataset({"score": ("x", [1.0])}).to_netcdf(engine="h5netcdf")))
    elif spoil == "empty":
        data.clear()
    elif spoil == "renamed":
        found = xr.load_dataset(file, engine="h5netcdf").isel(image=slice(2))
        data = bytearray(bytes(found.to_netcdf(engine="h5netcdf")))
    else:
        packed = {"hit_rate": {"zlib": True}}
        wide = xr.Dataset({"hit_rate": ("image", np.zeros(10**6))})
        data = bytearray(bytes(wide.to_netcdf(engine="h5netcdf", encoding=packed)))
    file.write_bytes(data)
    with pytest.raises(InputError, match="holds no ranking, or is damaged") as caught:
        Ranking.load(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the ranking .*none\.nc cannot be read"):
        Ranking.load(tmp_path / "none.nc")
    with pytest.raises(InputError, match="is a folder"):
        Ranking.load(tmp_path)


def test_other_images_are_refused_with_what_differs() -> None:
    images = pictures(3, [0, 1, 2])
    found = ranking(images, [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match=r"1 of 3 ranked images .* the 2 .*'bild-é2\.png'"):
        found.candidates(images.subset([0, 1]))
    moved = replace(images, ids=images.ids[::-1])
    with pytest.raises(InputError, match="with the id 0, and has 2"):
        found.candidates(moved)
    with pytest.raises(InputError, match="with the label 2, and has 1"):
        found.candidates(pictures(3, [0, 1, 1]))
    with pytest.raises(InputError, match="the captions differ"):
        found.candidates(replace(images, captions=("a", "b", "c")))
    ranking(told := replace(images, captions=("a", "b", "c")), [0.1, 0.2, 0.3]).candidates(told)
    changed = pictures(3, [0, 1, 2], copies={2: 0})
    with pytest.raises(InputError, match=r"'bild-é2\.png' is not the one that was ranked"):
        found.candidates(changed)


def test_the_ranking_of_another_model_is_refused_with_what_differs() -> None:
    images = pictures(3, [0, 1, 2])
    with wrapped(TinyAdapter.make()) as model, wrapped(TinyAdapter.make(1)) as other:
        found = rank(model, images)
        found.check_model(model)
        with pytest.raises(InputError, match="model: tokenizer_sha256, weights_sha256 differ"):
            found.check_model(other)


def test_the_ranking_of_a_subset_chooses_from_the_whole_list() -> None:
    images = pictures(6, [0, 0, 0, 1, 1, 1])
    found = ranking(images.subset([5, 1, 2]), [0.1, 0.2, 0.3]).candidates(images, per_class=1)
    assert found.images.ids.tolist() == [2, 5]
    assert found.images.paths == ("bild-é2.png", "bild-é5.png")


def test_less_than_one_image_a_class_is_refused() -> None:
    images = pictures(2, [0, 1])
    for few in ({"per_class": 0}, {"global_top": 0}, {"global_top": True}):
        with pytest.raises(InputError, match="expected an integer of 1 or more"):
            ranking(images, [0.1, 0.2]).candidates(images, **few)


def test_what_was_ranked_is_in_the_provenance(tmp_path: Path) -> None:
    images = pictures(3, [0, 1, 2])
    with wrapped(TinyAdapter.make()) as model:
        known = rank(model, images).provenance
        hashes = {hashlib.sha256(b"").hexdigest(), known["weights_sha256"], images.digest}
        assert len(hashes) == 3
        assert isinstance(model, ImageARModel)
    assert known["image_list_sha256"] == images.digest
    assert known["views"] == dict(TinyAdapter.make().variant.views.provenance)
    assert known["positions"] == list(range(5, 21))
