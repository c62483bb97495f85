"""A comparison that was ended goes on after its last finished cell, to the same report."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.jobs.arms import Arm, run_stages
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.compare import cells
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights, Zero
from iarmem_plugin.neurons.selectors import Highest, Random
from iarmem_plugin.report.netcdf import netcdf
from iarmem_plugin.report.report import Report
from iarmem_plugin.stages import forget_cells

ARMS = (
    Arm("highest", Highest(), Zero(), 1.0),
    Arm("random 1", Random(), ScaleWeights(0.5), 0.25, seed=3, role="control"),
)
OPTIONS = ExtractionOptions(prefix_tokens=1, batch_size=4)
Run = Callable[..., Report]

RECOGNITION = Recognition(0.5, "by hand")


class Averages(nn.Module):
    """Features that need no training: mean colours of a picture's quarters."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(pictures.float(), 2).flatten(1)


@pytest.fixture
def run(model: ImageARModel, scores: xr.Dataset, pictures: Images) -> Run:
    """Compare the arms, or others, with the finished ones in a folder."""
    measure = TorchFidelity(Averages(), "colour averages")
    noise = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    references = {"noise": measure.features([noise])}
    labels, sampling = np.arange(12) % 5, Sampling(greedy=False, seed=1)
    quality = QualityProtocol(measure, references, Condition.of(labels), sampling)
    candidates = Candidates(pictures, np.array(["canary 40"] * 4 + ["held-out"] * 3))
    losses = loss_protocol(model, HeldOutLoss(), pictures, model.adapter.variant.views)

    def compare(
        folder: Path | None,
        arms: tuple[Arm, ...] = ARMS,
        recognition: Recognition | None = RECOGNITION,
        **settings: object,
    ) -> Report:
        options = replace(OPTIONS, checkpoints=folder, **settings)  # type: ignore[arg-type]  # each test's
        similarity = TokenAgreement(0.5)
        return mitigate(
            model,
            scores,
            candidates,
            arms,
            similarity=similarity,
            recognition=recognition,
            losses=losses,
            quality=quality,
            options=options,
        )

    return compare


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages of arms that are run; the fifth one is interrupted the first time."""
    names: list[str] = []

    def once(model: ImageARModel, arm: Arm, *rest: object) -> object:
        (stage,) = rest[-1]  # type: ignore[misc]  # a tuple of one
        names.append(f"{stage} of {arm.name}")
        if len(names) == 5 and all(names):
            raise KeyboardInterrupt
        return run_stages(model, arm, *rest)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(cells, "run_stages", once)
    return names


def content(report: Report) -> tuple[object, ...]:
    """Return all numbers of a report, bit by bit."""
    neurons = None if report.neurons is None else report.neurons.to_numpy().tobytes()
    assert report.features is not None
    datasets = (report.extraction, report.scores, report.features)
    return report.to_dict(), *map(netcdf, datasets), neurons


def test_a_run_that_was_ended_goes_on_to_the_report_of_an_unbroken_one(
    run: Run, begun: list[str], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "progress")
    resumed = run(tmp_path / "progress")
    arms = ("original", "highest", "random 1")
    cheap = [f"{stage} of {arm}" for stage in ("losses", "completions") for arm in arms]
    images = [f"images of {arm}" for arm in arms]
    assert begun == [*cheap[:5], *cheap[4:], *images]  # the cheap ones of all arms come first
    assert content(resumed) == content(run(None))
    assert content(run(tmp_path / "progress")) == content(resumed)  # nothing is run again
    assert len(begun) == 10
    forget_cells(tmp_path / "progress")
    assert list(tmp_path.iterdir()) == []


def test_a_cell_under_the_name_of_another_is_refused(run: Run, tmp_path: Path) -> None:
    run(tmp_path)
    first, second, *_ = sorted(tmp_path.glob("losses-*.nc"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(InputError, match=f"{first.name} .*it was written as {second.name}"):
        run(tmp_path)


def test_arms_can_be_added_to_a_run_that_was_ended(
    run: Run, begun: list[str], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    run(tmp_path)
    done = len(begun)
    more = (*ARMS, replace(ARMS[0], name="half", fraction=0.5))
    assert [arm.name for arm in run(tmp_path, more).arms][-1] == "half"
    assert begun[done:] == [f"{stage} of half" for stage in ("losses", "completions", "images")]


def test_an_arm_whose_edit_was_changed_is_run_again(run: Run, tmp_path: Path) -> None:
    run(tmp_path, ARMS[:1])
    changed = replace(ARMS[0], intervention=ScaleWeights(0.5))
    assert content(run(tmp_path, (changed,))) == content(run(None, (changed,)))


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({"prefix_tokens": 5, "recognition": None}, ["completions"]),
        ({"batch_size": 3}, ["losses", "completions", "images"]),
        ({"recognition": Recognition(0.25, "by hand")}, ["completions"]),
        ({"recognition": None}, ["completions"]),
    ],
)
def test_what_a_setting_changes_is_done_again_and_nothing_else(
    run: Run, begun: list[str], tmp_path: Path, settings: dict[str, object], again: list[str]
) -> None:
    run(tmp_path, ())
    begun += [""]  # nothing is interrupted
    run(tmp_path, (), **settings)
    assert begun[4:] == [f"{stage} of original" for stage in again]


def test_a_damaged_cell_is_named_with_the_cure(run: Run, tmp_path: Path) -> None:
    run(tmp_path, ())
    (file,) = tmp_path.glob("completions-*.nc")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"completions-.*cannot be read.*--restart"):
        run(tmp_path, ())


def test_a_disk_that_fills_up_keeps_the_cells_before(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells_of, count = "iarmem_plugin.stages.stages.write_whole", list[int]()

    def full(path: Path, content: bytes) -> None:
        count.append(1)
        if len(count) > 1:
            raise DiskFullError(errno.ENOSPC, "make room")
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(cells_of, full)
        with pytest.raises(DiskFullError, match="make room"):
            run(tmp_path)
    (kept,) = tmp_path.glob("*.nc")
    before = kept.read_bytes()
    run(tmp_path)
    assert kept.read_bytes() == before
    assert len(list(tmp_path.glob("*.nc"))) == 9
