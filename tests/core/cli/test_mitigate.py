"""`iarmem mitigate` refuses what cannot be used before the expensive part."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Run = Callable[..., subprocess.CompletedProcess[str]]
Check = Callable[[subprocess.CompletedProcess[str], str], None]


@pytest.fixture
def mitigate(iarmem: Run) -> Run:
    """Run `iarmem mitigate` with the scores and images of a folder, and more options."""

    def run(folder: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
        scores = ("--scores", folder / "out", "--images", folder / "images")
        return iarmem("mitigate", "var-organism", *scores, "--out", folder / "report", *options)

    return run


def test_scores_of_another_model_are_refused_before_candidates_are_ranked(
    scored: Path, iarmem: Run
) -> None:
    places = ("--images", scored / "images", "--out", scored / "refused")
    done = iarmem("mitigate", "rar-organism", "--scores", scored / "out", *places)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()  # no bar before it
    assert line.endswith("they were made with another model")
    assert not (scored / "refused").exists()


@pytest.mark.parametrize("fraction", ["0", "-0.1", "1.5", "nan"])
def test_a_fraction_outside_its_range_is_refused(
    scored: Path, fraction: str, mitigate: Run, assert_plain_error: Check
) -> None:
    assert_plain_error(mitigate(scored, "--fraction", fraction), "fraction")
    assert not (scored / "report").exists()


def test_an_unknown_intervention_lists_the_interventions(
    pictures: Path, mitigate: Run, assert_plain_error: Check
) -> None:
    done = mitigate(pictures, "--intervention", "pray")
    assert_plain_error(
        done, "no intervention named 'pray'; installed: clamp, mean-ablate, scale-biases"
    )


def test_a_contrast_halves_the_candidates(scored: Path, mitigate: Run) -> None:
    others = ("--contrast-with", scored / "images", "--fraction", "0.1", "--random-sets", "1")
    done = mitigate(scored, "--selector", "difference-of-means", *others)
    assert done.returncode == 0, done.stderr
    report = json.loads((scored / "report" / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == [
        *("original", "difference-of-means", "random 1")
    ]
    chosen = report["arms"][1]["selector"]
    assert chosen["name"] == "highest"
    assert chosen["scores"] == "difference-of-means"
    assert chosen["cross_fit"] == {"halves": 2, "seed": 0}
    rows = (scored / "report" / "captured_images.csv").read_text().splitlines()
    assert rows[0] == "image,label,path"
    assert len(rows) == 1 + len((scored / "out" / "images.txt").read_text().splitlines())
    assert rows[1].startswith("0,")


def test_a_contrast_with_the_candidates_is_refused(
    scored: Path, mitigate: Run, assert_plain_error: Check
) -> None:
    same = ("--candidates", scored / "images", "--contrast-with", scored / "images")
    done = mitigate(scored, "--selector", "gradient-weight", *same)
    assert_plain_error(done, "images that candidates are contrasted with are also among")


def test_scores_that_are_not_there_are_refused(
    pictures: Path, mitigate: Run, assert_plain_error: Check
) -> None:
    assert_plain_error(mitigate(pictures), str(pictures / "out"))


@pytest.mark.parametrize(
    ("options", "groups", "anew"),
    [
        (("--generations", "2"), ["candidate", "generated", "held-out"], True),
        (("--no-recalibrate",), ["candidate", "held-out"], False),
    ],
)
def test_thresholds_fixed_anew_and_generations_are_asked_for(
    scored: Path,
    tmp_path: Path,
    iarmem: Run,
    options: tuple[str, ...],
    groups: list[str],
    anew: bool,
) -> None:
    unseen = tmp_path / "unseen" / "0"
    unseen.mkdir(parents=True)
    for shade in (0, 90, 250):
        Image.new("RGB", (32, 32), (0, shade, 90)).save(unseen / f"unseen {shade}.png")
    done = iarmem(
        *("mitigate", "var-organism", "--scores", scored / "out", "--images", scored / "images"),
        *("--candidates", scored / "images", "--held-out", unseen.parent, "--few-held-out"),
        *("--random-sets", "0", "--out", tmp_path / "report", "--json", *options),
    )
    assert done.returncode == 0, done.stderr
    arms = json.loads(done.stdout)["arms"]
    assert [list(arm["extraction"]) for arm in arms] == [groups] * 2
    assert ["recalibrated" in arm for arm in arms] == [anew] * 2
    if anew:
        assert arms[1]["recalibrated"]["images"] == 2
