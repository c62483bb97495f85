"""A report's folder can be checked without iarmem, and what was changed in it is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.evaluation.quality import frechet_distance
from iarmem_plugin.evaluation.recognition import Recognition, agreement
from iarmem_plugin.evaluation.statistics import kernel_distance
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.jobs.recalibration import judged_anew, kept_completions
from iarmem_plugin.report.features import features_dataset, kept_features, kept_moments
from iarmem_plugin.report.report import Report

RECOMPUTE = Path(__file__).parents[3] / "examples" / "recompute.py"
FID = "FID (colour averages, reference pictures of mine n={}, generated n={})"
KID = "KID (colour averages, reference pictures of mine n={}, generated n={}, all pairs)"
SAMPLED = ", temperature 1, mean of 2 seeds"


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
    features = {arm.name: random.random((2, 30, 5)) for arm in report.arms}
    real, other = random.random((40, 5)), random.random((20, 5))
    floor = distances([other], real[:20])
    return replace(
        report,
        extraction=judged_anew(recognition.judged(found), own, 0.04),
        calibration=kept_completions(recognition.completions, own),
        features=features_dataset(
            {name: kept_features(list(one)) for name, one in features.items()},
            {"pictures of mine": kept_features([real])},
            {"pictures of mine": (kept_features([other]), kept_features([real[:20]]))},
            seed=5,
        ),
        floors={"mine against mine": floor},
        arms=tuple(
            replace(arm, quality=(*distances(list(one), real), *marked(one, real[:20], floor)))
            for arm, one in zip(report.arms, features.values(), strict=True)
        ),
    )


def distances(seeds: Sequence[np.ndarray], real: np.ndarray) -> tuple[QualityValue, QualityValue]:
    """Compare the images of each seed with real ones; label and average as the report does."""
    n, sampled = len(seeds[0]), SAMPLED if len(seeds) > 1 else ""
    fids = [frechet_distance(one, real) for one in seeds]
    kids, errors = zip(*(kernel_distance(one, real) for one in seeds), strict=True)
    made = [(FID, fids, None), (KID, kids, float(np.mean(errors)))]
    fid, kid = (
        QualityValue(
            label.format(len(real), n) + sampled,
            float(np.mean(values)),
            n,
            error,
            float(np.std(values, ddof=1)) if sampled else None,
        )
        for label, values, error in made
    )
    return fid, kid


def marked(
    seeds: np.ndarray, real: np.ndarray, floor: tuple[QualityValue, ...]
) -> list[QualityValue]:
    """Compare as many images as a floor has, and mark what lies below it."""
    rows = [np.random.default_rng(5 + place).choice(30, 20, replace=False) for place in range(2)]
    fewer = [one[np.sort(chosen)] for one, chosen in zip(seeds, rows, strict=True)]
    values = zip(distances(fewer, real), floor, strict=True)
    return [
        replace(one, mark="sharper, not better" if (one.value or 0) < (base.value or 0) else "")
        for one, base in values
    ]


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
        ("quality", 1, "error"),
        ("quality", 1, "deviation"),
        ("quality", 2, "value"),
        ("quality", 3, "mark"),
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
    written = one[place[-1]]
    if isinstance(written, str):
        one[place[-1]] = "" if written else "sharper, not better"
    else:
        one[place[-1]] += 0.01 if isinstance(written, float) else 1
    file.write_text(json.dumps(document))
    code, (line, *_) = run(changed)
    assert code == 1
    assert line.startswith("lowest: ")
    assert "made again" in line


def test_large_features_are_kept_as_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iarmem_plugin.report.features.LARGEST", 100)
    values = np.random.default_rng(0).random((30, 5))
    found = features_dataset({"original": kept_features([values])}, {})
    assert found is not None
    assert sorted(found) == ["covariance_0", "mean_0"]
    np.testing.assert_allclose(found["covariance_0"][0], np.cov(values, rowvar=False))
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


def test_a_fid_against_given_statistics_is_made_again(report: Report, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    real, name = random.random((40, 5)), "statistics sha256 0123456789ab"
    made = {arm.name: random.random((30, 5)) for arm in report.arms}
    given = kept_moments(real.mean(axis=0), np.cov(real, rowvar=False), None)
    kept = {arm: kept_features([one]) for arm, one in made.items()}
    label = f"(colour averages, reference {name} n=not recorded, generated n=30"
    arms = tuple(
        replace(
            arm,
            quality=(
                QualityValue(f"FID {label})", frechet_distance(made[arm.name], real), 30),
                QualityValue(f"KID {label}, left out)", None, 30),
            ),
        )
        for arm in report.arms
    )
    features = features_dataset(kept, {name: given})
    folder = replace(report, arms=arms, features=features).save(tmp_path / "report")
    code, (line,) = run(folder)
    assert (code, "numbers agree" in line) == (0, True)
    file = folder / "report.json"
    document = json.loads(file.read_text())
    document["arms"][1]["quality"][0]["value"] += 0.01
    file.write_text(json.dumps(document))
    assert run(folder)[0] == 1
