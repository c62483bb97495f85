"""A report's folder can be checked without iarmem, and what was changed in it is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.evaluation.quality import frechet_distance
from iarmem_plugin.evaluation.recognition import Recognition, agreement
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.jobs.recalibration import judged_anew, kept_completions
from iarmem_plugin.report.features import features_dataset, kept_features
from iarmem_plugin.report.report import Report

RECOMPUTE = Path(__file__).parents[3] / "examples" / "recompute.py"
LABELS = [
    f"{name} (colour averages, reference pictures of mine n=40, generated n=30)"
    for name in ("FID", "FD")
]


def run(folder: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, RECOMPUTE, folder], capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def unseen(seed: int) -> xr.Dataset:
    random = np.random.default_rng(seed)
    found = xr.Dataset(
        {
            "similarity": ("candidate", random.random(50).astype(np.float32)),
            "equal_tokens": ("candidate", random.integers(4, 20, 50)),
            "tokens": (("candidate", "token"), np.zeros((50, 20), np.int32)),
        },
        coords={
            **{name: ("candidate", np.arange(50)) for name in ("image", "label")},
            **{name: ("candidate", ["held-out"] * 50) for name in ("path", "group", "role")},
        },
        attrs={"prefix_tokens": 4},
    )
    return found.assign(agreement=agreement(found))


@pytest.fixture(scope="module")
def complete(report: Report) -> Report:
    """The report with both outcomes, losses, features, and thresholds fixed on 200 images.

    In two arms thresholds are fixed anew on 50 images.
    """
    random = np.random.default_rng(3)
    found = report.extraction.copy(deep=True)
    arms, candidates = found.sizes["arm"], found.sizes["candidate"]
    target = random.integers(0, 9, (candidates, 20), dtype=np.int32)
    tokens = np.where(random.random((arms, candidates, 20)) < 0.5, target, 9).astype(np.int32)
    tokens[..., :4] = target[:, :4]
    found = found.drop_vars("tokens").assign(
        tokens=(("arm", "candidate", "token"), tokens),
        target_tokens=(("candidate", "token"), target),
        equal_tokens=(("arm", "candidate"), (tokens == target).sum(2, dtype=np.int32)),
        loss=(("arm", "candidate"), random.random((arms, candidates)) + 2),
        plain_loss=(("arm", "candidate"), random.random((arms, candidates)) + 3),
        temperature=("arm", random.random(arms) + 1),
    )
    fixed = xr.Dataset(
        {
            "similarity": ("candidate", random.random(200).astype(np.float32)),
            "equal_tokens": ("candidate", random.integers(4, 16, 200)),
            "tokens": (("candidate", "token"), np.zeros((200, 20), np.int32)),
        },
        attrs={"prefix_tokens": 4},
    )
    recognition = Recognition()
    found.attrs["prefix_tokens"] = 4
    recognition.calibrate(fixed, rate=0.1, source="by hand")
    own = {name: unseen(place) for place, name in enumerate(("original", "lowest"))}
    features = {arm.name: random.random((30, 5)) for arm in report.arms}
    real = random.random((40, 5))
    distances = [frechet_distance(one, real) for one in features.values()]
    return replace(
        report,
        extraction=judged_anew(recognition.judged(found), own, 0.04),
        calibration=kept_completions(recognition.completions, own),
        features=features_dataset(
            {name: kept_features(one) for name, one in features.items()},
            {"pictures of mine": kept_features(real)},
        ),
        arms=tuple(
            replace(arm, quality=tuple(QualityValue(label, value, 30) for label in LABELS))
            for arm, value in zip(report.arms, distances, strict=True)
        ),
    )


@pytest.fixture(scope="module")
def folder(complete: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete.save(tmp_path_factory.mktemp("complete") / "report")


def test_every_number_of_a_report_is_made_again(folder: Path) -> None:
    code, (line,) = run(folder)
    assert code == 0
    assert "numbers agree; largest difference" in line
    assert int(line.split()[0]) > 400


@pytest.mark.parametrize(
    "place",
    [
        ("extraction", "canary 40", "extracted"),
        ("recognition", "canary 40", "agreement"),
        ("losses", "held-out", "high"),
        ("paired", "recognisable", "p"),
        ("quality", 0, "value"),
        ("recalibrated", "recognition", "threshold_low"),
        ("recalibrated", "extraction", "counts", "held-out", "extracted"),
        ("quality", 1, "value"),
    ],
    ids=str,
)
def test_a_number_that_was_changed_is_listed(
    folder: Path, tmp_path: Path, place: tuple[str, ...]
) -> None:
    changed = Path(shutil.copytree(folder, tmp_path / "report"))
    file = changed / "report.json"
    document = json.loads(file.read_text())
    one = document["arms"][2]
    for key in place[:-1]:
        one = one[key]
    one[place[-1]] += 0.01 if isinstance(one[place[-1]], float) else 1
    file.write_text(json.dumps(document))
    code, (line, *_) = run(changed)
    assert code == 1
    assert line.startswith("lowest: ")
    assert "made again" in line


def test_large_features_are_kept_as_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iarmem_plugin.report.features.LARGEST", 100)
    values = np.random.default_rng(0).random((30, 5))
    found = features_dataset({"original": kept_features(values)}, {})
    assert found is not None
    assert sorted(found) == ["covariance_0", "mean_0"]
    np.testing.assert_allclose(found["covariance_0"], np.cov(values, rowvar=False))
    assert found["mean_0"].attrs == {"kind": "generated", "name": "original", "images": 30}


def test_a_report_without_these_files_has_fewer_numbers(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "plain")
    names = {file.name for file in (tmp_path / "plain").iterdir()}
    assert not names & {"calibration.nc", "quality.nc"}
    again = Report.load(tmp_path / "plain")
    assert (again.calibration, again.features) == (None, None)
    code, (line,) = run(tmp_path / "plain")
    assert (code, line.split()[1:3]) == (0, ["of", line.split()[0]])


def test_a_complete_report_comes_back(complete: Report, folder: Path) -> None:
    again = Report.load(folder)
    assert again.calibration is not None
    assert again.features is not None
    xr.testing.assert_identical(again.calibration, complete.calibration)
    xr.testing.assert_identical(again.features, complete.features)
