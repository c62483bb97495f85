"""Every stage of a comparison at full size, on weights made by a formula: its numbers mean nothing.

Two candidates, two views, one random set; half an hour a family on two cores, and 20 GB of memory.
``pytest -m slow tests/adapters/test_full_size_compare.py -s`` shows what each step takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iarmem_adapters.rar import loading as rar_loading
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN
from iarmem_adapters.rar.transformer import RARTransformer
from iarmem_adapters.var import loading as var_loading
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE
from iarmem_adapters.var.transformer import VARTransformer
from iarmem_plugin.report.report import Report

PLAN = """
[model]
name = "{name}"
weights = "{folder}/weights.pth"
tokenizer = "{folder}/tokenizer.pth"
[pictures]
images = "images"
held-out = "held-out"
[scores]
unitmem = "scores"
[attack]
few-held-out = true
per-class = 1
batch-size = 2
[quality]
images = "mean-colour"
generated = 2
[[grid]]
fractions = [0.1]
random-sets = 1
"""


@pytest.fixture(scope="module", params=["var-d30", "rar-xxl"])
def model(
    request: pytest.FixtureRequest, fill: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The name of a model, and the folder of its two files, which go as soon as may be."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    loading, *kinds = {
        "var-d30": (var_loading, VARTransformer, MultiScaleVQVAE),
        "rar-xxl": (rar_loading, RARTransformer, MaskGITVQGAN),
    }[name]
    for kind, sizes, file in zip(
        kinds, loading.configs(name), ("weights", "tokenizer"), strict=True
    ):
        torch.save(fill.fill_state_dict(kind(sizes)).state_dict(), folder / f"{file}.pth")
    yield name, folder
    for path in folder.iterdir():
        path.unlink()


MEASURE = """
from collections.abc import Iterable

import numpy as np

from iarmem_plugin import QualityValue, hookimpl
from iarmem_plugin.interfaces import Quality


class MeanColour(Quality):
    name, minimum = "mean-colour", 2

    @property
    def provenance(self):
        return {"name": self.name}

    def features(self, images):
        return np.concatenate([one.float().mean((2, 3)).cpu().numpy() for one in images])

    def compare(self, generated, reference, *, reference_name):
        apart = float(np.abs(generated.mean(0) - reference.mean(0)).max())
        return [QualityValue(f"mean colour against {reference_name}", apart, len(generated))]


@hookimpl
def provide_qualities():
    return [MeanColour]
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which a measure is installed that two images suffice for."""
    place = tmp_path / "installed" / "mean_colour-1.0.dist-info"
    place.mkdir(parents=True)
    (place.parent / "mean_colour.py").write_text(MEASURE)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: mean-colour\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text("[iarmem]\nmean_colour = mean_colour\n")
    known = os.environ.get("PYTHONPATH")
    paths = [str(place.parent), *([known] if known else [])]
    return {**os.environ, "COLUMNS": "160", "PYTHONPATH": os.pathsep.join(paths)}


def draw(folder: Path, count: int) -> None:
    """Draw smooth noise, one picture a class."""
    random = np.random.default_rng(len(folder.name))
    for label in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8))
        (folder / str(label)).mkdir(parents=True)
        coarse.resize((288, 288), Image.Resampling.BICUBIC).save(folder / str(label) / "0.png")


@pytest.mark.slow
def test_every_stage_of_a_full_size_comparison_runs(
    model: tuple[str, Path],
    environment: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, folder = model
    draw(tmp_path / "images", 2)
    draw(tmp_path / "held-out", 4)
    text = PLAN.format(name=name, folder=folder)
    (tmp_path / "plan.toml").write_text(text)
    files = ("--weights", folder / "weights.pth", "--tokenizer", folder / "tokenizer.pth")
    pictures = ("--images", tmp_path / "images")
    scored = (name, *files, *pictures, "--views", 2, "--batch-size", 2)
    steps: list[tuple[Any, ...]] = [
        ("localize", *scored, "--out", tmp_path / "scores"),
        ("compare", tmp_path / "plan.toml", "--dry-run"),
        ("compare", tmp_path / "plan.toml", "--out", tmp_path / "out"),
    ]
    for words in steps:
        began = time.monotonic()
        run = [sys.executable, "-m", "iarmem_plugin", *map(str, words)]
        done = subprocess.run(run, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        with capsys.disabled():
            print(f"\n{name}, {words[0]} {words[-2]}: {time.monotonic() - began:.0f} s")
            print(done.stdout)
    report = Report.load(tmp_path / "out")
    assert [arm.role for arm in report.arms] == ["original", "treatment", "control"]
    assert report.losses is not None
    assert report.features is not None
    assert report.provenance["failed"] == []
    with capsys.disabled():
        print(f"{name}: weights made by a formula, so these numbers mean nothing")
