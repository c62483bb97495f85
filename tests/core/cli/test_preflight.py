"""Room on the disk is asked for before the work."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from iarmem_plugin.cli.preflight import check_features_room
from iarmem_plugin.errors import DiskFullError
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.jobs.quality import QualityProtocol
from iarmem_plugin.report.features import kept_bytes, kept_features


@pytest.mark.parametrize("shape", [(400, 20), (4000, 20), (4000, 400), (10_000, 200)])
def test_features_need_the_room_that_they_take(shape: tuple[int, int]) -> None:
    values = list(np.random.default_rng(0).random((2, *shape)))
    assert kept_bytes(*shape, seeds=2) == kept_features(values).nbytes


def test_a_disk_without_room_for_features_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, told = np.zeros((120, 50)), Condition.of([0] * 200)
    measure = TorchFidelity(nn.Identity(), "any")
    protocol = QualityProtocol(measure, {"given images": real}, told, Sampling(greedy=False))
    needed = 8 * (120 * 50 + 3 * 200 * 50) + 2_000_000  # and the figures
    free = SimpleNamespace(free=needed)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    check_features_room(tmp_path, protocol, arms=3)
    free.free -= 1
    with pytest.raises(DiskFullError, match=r"needs about 2\.3 MB"):
        check_features_room(tmp_path, protocol, arms=3)
    check_features_room(tmp_path, None, arms=3)
