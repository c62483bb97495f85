"""What real pictures look like to a measure, from a file: ours with features, others' moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.quality import TorchFidelity, frechet_distance
from iarmem_plugin.evaluation.references import file as references
from iarmem_plugin.evaluation.references.file import ReferenceFeatures, holds_features, see_all
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.jobs.compare.inputs import _of_quality
from iarmem_plugin.jobs.quality import QualityProtocol

MEASURE = TorchFidelity(nn.Identity(), "small classifier")


def features(count: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(0.3, 1.0, (count, 4)) * np.arange(1, 5)
    return found.astype(np.float32).astype(np.float64)


def written(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def moments(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"mu": rows.mean(axis=0), "sigma": np.cov(rows, rowvar=False)}


def test_published_statistics_give_fid_and_no_kid(tmp_path: Path) -> None:
    real, made = features(50), features(20, seed=1)
    path = written(tmp_path / "adm.npz", **moments(real), arr_0=np.zeros((2, 3), np.uint8))
    found = ReferenceFeatures.load(path)
    fid, kid = found.compared(MEASURE, made)
    assert fid.value == pytest.approx(frechet_distance(made, real), abs=1e-9)
    assert f"reference {found.name} n=not recorded, generated n=20" in fid.label
    assert kid.value is None
    assert "left out: only mean and covariance" in kid.label
    assert found.provenance["made_by"] == "given"
    assert len(found.provenance["sha256"]) == 64


def test_our_file_gives_both_and_says_who_made_it(tmp_path: Path) -> None:
    real, made = features(50), features(20, seed=1)
    seen = see_all(MEASURE, [real[:7], real[7:30], real[30:]], 50)
    np.testing.assert_allclose(seen.covariance, np.cov(real, rowvar=False), rtol=1e-12)
    replace(seen, made_by={"measure": dict(MEASURE.provenance)}).save(tmp_path / "mine.npz")
    found = ReferenceFeatures.load(tmp_path / "mine.npz")
    assert (found.images, np.load(tmp_path / "mine.npz")["features"].dtype) == (50, np.float32)
    expected = MEASURE.compare(made, real, reference_name=found.name)
    values = found.compared(MEASURE, made)
    assert [one.label for one in values] == [one.label for one in expected]
    for one, other in zip(values, expected, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-9)
    found.check_seen_by(MEASURE, None, 4)
    with pytest.raises(InputError, match="was made with extractor small classifier, and here it"):
        found.check_seen_by(TorchFidelity(nn.Identity(), "another"), None)
    with pytest.raises(InputError, match="has 4 features, and 'fid' gives 6"):
        found.check_seen_by(MEASURE, None, 6)


def test_of_many_pictures_some_are_kept_and_all_are_summed_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(references, "MOST", 5)
    real = features(23)
    seen = see_all(MEASURE, [real[:3], real[3:4], real[4:20], real[20:]], 23)
    assert seen.features is not None
    np.testing.assert_array_equal(seen.features, real[[0, 6, 11, 16, 22]])
    np.testing.assert_allclose(seen.mean, real.mean(axis=0), rtol=1e-12)
    assert seen.images == 23


def test_features_alone_are_enough(tmp_path: Path) -> None:
    found = ReferenceFeatures.load(written(tmp_path / "x.npz", features=features(12)))
    assert found.images == 12
    np.testing.assert_allclose(found.mean, features(12).mean(axis=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": np.eye(3)}, r"sigma is \(3, 3\), and mu has 4 numbers"),
        ({"sigma": np.eye(4) + np.triu(np.ones((4, 4)), 1)}, "sigma is not symmetric"),
        ({"sigma": -np.eye(4)}, "sigma has a variance below 0"),
        ({"mu": np.array([np.nan, 0, 0, 0])}, "mu has values that are not finite"),
        ({"mu": np.zeros((4, 1))}, "mu is not a row of numbers"),
        (
            {"features": np.zeros((12, 5)), "n": 12},
            "features and mu have other numbers an image, and mu has 4",
        ),
        ({"features": np.zeros((12, 4)), "n": 3}, "features has 12 rows, and n is 3"),
        ({"features": np.ones((12, 4)), "n": 12}, "mu is not the mean of features"),
        ({"n": 1.5}, "n is not a whole number"),
        ({"made_by": "[1"}, "made_by is not what 'iarmem features' writes"),
    ],
)
def test_what_cannot_be_a_reference_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "x.npz", **(moments(features(20)) | change))
    with pytest.raises(InputError, match=message):
        ReferenceFeatures.load(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = written(tmp_path / "x.npz", mu=np.array([print], dtype=object), sigma=np.eye(1))
    with pytest.raises(InputError, match=r"cannot be read as an \.npz file of the features"):
        ReferenceFeatures.load(path)


def test_pictures_are_not_taken_for_features(tmp_path: Path) -> None:
    pictures = written(tmp_path / "pictures.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    assert not holds_features(pictures)
    assert not holds_features(None)
    assert not holds_features(tmp_path)
    assert holds_features(written(tmp_path / "adm.npz", mu=np.zeros(1), sigma=np.eye(1)))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    assert not holds_features(tmp_path / "broken.npz")


def test_cells_change_with_the_file_and_else_stay_as_they_are(tmp_path: Path) -> None:
    keys = []
    for files in ((), (0,), (1,)):
        paths = [written(tmp_path / f"{seed}.npz", **moments(features(20, seed))) for seed in files]
        quality = QualityProtocol(
            MEASURE,
            {"noise": features(12)},
            Condition.of([0] * 10),
            Sampling(greedy=False, seed=1),
            files=tuple(map(ReferenceFeatures.load, paths)),
        )
        keys.append(_of_quality(quality))
    assert keys[0] | {"files": keys[1]["files"]} == keys[1]
    assert keys[1]["files"] != keys[2]["files"]


def test_too_few_pictures_are_no_reference() -> None:
    with pytest.raises(InputError, match="9 images are too few for a reference: 'fid' needs 10"):
        see_all(MEASURE, [features(9)], 9)
