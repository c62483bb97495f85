"""A store that one Python, with its zarr, began is read and resumed by another with another."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.abc.store import RangeByteRequest
from zarr.storage import MemoryStore

from iarmem_plugin import ActivationStore
from iarmem_plugin.errors import InputError

SCRIPT = Path(__file__).parent / "other_python.py"
OTHER = os.environ.get("IARMEM_OTHER_PYTHON", "")
FUSED = {"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}
MINE = runpy.run_path(str(SCRIPT))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "pictures.npz", images=pixels, labels=np.arange(5))
    return tmp_path / "pictures.npz"


def captured(python: str, store: Path, pictures: Path) -> dict[str, str]:
    """Capture in a process of a Python; see `other_python.capture`."""
    done = subprocess.run(
        [python, SCRIPT, store, pictures],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # resuming needs the same number
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert (said["python"] == sys.version) == (python == sys.executable)
    return said


@pytest.mark.skipif(not OTHER, reason="IARMEM_OTHER_PYTHON does not name another interpreter")
@pytest.mark.parametrize(
    ("first", "then"), [(sys.executable, OTHER), (OTHER, sys.executable)], ids=["to", "from"]
)
def test_a_store_is_read_and_resumed_by_another_python(
    tmp_path: Path, pictures: Path, made: Any, first: str, then: str
) -> None:
    path = tmp_path / "x.zarr"
    begun = captured(first, path, pictures)
    assert begun["after"] == MINE["digest"](path)
    whole = ActivationStore.open(path).activation.load()
    ActivationStore.open(path, "r+").invalidate(MINE["MODEL"], 1)
    files, lacking = made.contents(path), MINE["digest"](path)
    resumed = captured(then, path, pictures)
    assert resumed["before"] == lacking
    assert resumed["after"] == MINE["digest"](path)
    now = made.contents(path)
    assert {name: now[name] for name in files if "captured" not in name} == {
        name: data for name, data in files.items() if "captured" not in name
    }
    again = ActivationStore.open(path).activation.load()
    np.testing.assert_allclose(again, whole, rtol=1e-4, atol=1e-6)  # of two builds of PyTorch
    kept = again.isel(image=[0, 1, 4])
    assert kept.identical(whole.isel(image=[0, 1, 4]))


def test_zarrs_fused_pipeline_is_refused(tmp_path: Path, made: Any) -> None:
    store, scores = made.fill(tmp_path / "x.zarr")
    lazy = store.activation
    with zarr.config.set(FUSED):
        with pytest.raises(
            InputError, match=r"ZARR_CODEC_PIPELINE__PATH.*Fused.*expected.*Batched"
        ):
            store.captured("tiny")
        with pytest.raises(InputError, match="Fused"):
            store.put("tiny", 0, made.as_slab(scores[:8]))
        with pytest.raises(InputError, match="Fused"):
            lazy.sel(neuron=3).load()
        with pytest.raises(InputError, match="Fused"):
            made.fill(tmp_path / "y.zarr")
    assert not (tmp_path / "y.zarr").exists()
    assert np.array_equal(lazy.sel(neuron=3)[0, ..., :8], np.moveaxis(scores[:8, ..., 3], 0, -1))


def test_zarrs_fused_pipeline_is_off_unless_it_is_asked_for() -> None:
    assert zarr.config.defaults[0]["codec_pipeline"]["path"].endswith(".BatchedCodecPipeline")


class Torn(MemoryStore):
    """A store whose connection is gone when chunks are asked for, but not the index."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if isinstance(byte_range, RangeByteRequest):
            raise OSError("the connection is gone")
        return await super().get(key, prototype, byte_range)


def test_a_request_that_fails_is_the_error_that_it_is(made: Any) -> None:
    place = Torn()
    made.fill(place)
    lazy = ActivationStore.open(place).activation
    with pytest.raises(OSError, match="the connection is gone"):
        lazy.sel(block=0, scale=1).load()
