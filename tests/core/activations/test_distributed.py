"""``torchrun … -m iarmem_plugin localize``: any number of processes, the same store and scores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from iarmem_plugin.activations.distributed import Ranks, join_processes, started_processes
from iarmem_plugin.errors import InputError
from iarmem_plugin.jobs.scores import load_scores
from iarmem_plugin.store.store import ActivationStore

IMAGES, SLAB = 13, 2
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
PACKAGE = "iarmem_plugin"
SCRIPT = Path(__file__).with_name("ended_process.py")
ENVIRONMENT = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``images``: 13 pictures of three classes."""
    folder, random = tmp_path_factory.mktemp("ranks"), np.random.default_rng(0)
    for number in range(IMAGES):
        place = folder / "images" / str(number % 3) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(place)
    return folder


def words(folder: Path, out: str, *options: str) -> list[str]:
    job = ["localize", "var-organism", "--images", str(folder / "images")]
    settings = ["--views", "2", "--batch-size", "2", "--slab", str(SLAB), "--json"]
    metrics = ["--metric", "unitmem", "--metric", "mean-activation"]
    return [*job, *settings, *metrics, "--out", str(folder / out), *options]


def under_torchrun(
    folder: Path, out: str, *options: str, world: int, program: Sequence[str] = ("-m", PACKAGE)
) -> Done:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    return subprocess.run(
        [sys.executable, *launch, *program, *words(folder, out, *options)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        start_new_session=True,
        timeout=600,
    )


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def run(iarmem: Callable[..., Done]) -> Run:
    """Run ``localize`` in processes that are told of each other as torchrun tells them."""

    def run(folder: Path, out: str, *options: str, world: int, ended: tuple[str, ...] = ()) -> Done:
        return iarmem(*words(folder, out, *options), ranks=world, ended=ended)

    return run


@pytest.fixture(scope="module")
def alone(folder: Path, run: Run) -> Path:
    """The same folder, with the store and the scores of one process."""
    done = run(folder, "alone", "--store", str(folder / "alone.zarr"), world=1)
    assert done.returncode == 0, done.stderr
    return folder


def marked(store: Path, count: int, by: signal.Signals) -> tuple[str, ...]:
    """Say that a run is to be ended once a store has so many marks of captured slabs."""
    return str(store / "var-organism"), "captured/c/*", str(count), str(by.value)


def test_a_run_that_was_killed_is_gone_on_with_by_two_processes_to_the_same_bits(
    alone: Path, run: Run
) -> None:
    store = alone / "killed.zarr"
    at = marked(store, 2, signal.SIGKILL)
    killed = run(alone, "killed", "--store", str(store), world=1, ended=at)
    assert killed.returncode == -signal.SIGKILL
    assert 2 <= 7 - len(ActivationStore.open(store).pending()) < 7
    done = run(alone, "killed", "--store", str(store), "--break-lock", world=2)
    assert done.returncode == 0, done.stderr
    assert contents(store) == contents(alone / "alone.zarr")
    for file in ("scores.nc", "scores-mean-activation.nc"):
        given, expected = load_scores(alone / "killed" / file), load_scores(alone / "alone" / file)
        xr.testing.assert_equal(given, expected)
    printed = json.loads(done.stdout)  # one document, of one process
    assert [one["metric"] for one in printed["metrics"]] == ["unitmem", "mean-activation"]
    assert not store.with_name("killed.zarr.var-organism.lock").exists()


def test_two_processes_under_torchrun_write_the_store_of_one(alone: Path) -> None:
    done = under_torchrun(alone, "kept", "--store", str(alone / "kept.zarr"), world=2)
    assert done.returncode == 0, done.stderr
    assert contents(alone / "kept.zarr") == contents(alone / "alone.zarr")


def test_a_run_without_a_store_that_was_killed_is_gone_on_with_by_one_process(
    alone: Path, run: Run
) -> None:
    out = alone / "streamed"
    progress = out / "progress"
    at = (str(progress), "rank-*.nc", "2", str(signal.SIGKILL.value))
    killed = under_torchrun(alone, "streamed", world=2, program=(str(SCRIPT), *at))
    assert killed.returncode == 1  # torchrun's, which ends the other process
    assert {file.name for file in progress.glob("*.nc")} == {"rank-0.nc", "rank-1.nc"}
    done = run(alone, "streamed", world=1)
    assert done.returncode == 0, done.stderr
    given, expected = load_scores(out), load_scores(alone / "alone")
    assert np.array_equal(given["top_image"], expected["top_image"])
    xr.testing.assert_allclose(given, expected, rtol=1e-6)  # sums in another order
    assert not progress.exists()


def test_a_run_that_a_scheduler_ends_gives_its_lock_back(alone: Path, run: Run) -> None:
    store = alone / "ended.zarr"
    at = marked(store, 1, signal.SIGTERM)
    ended = run(alone, "ended", "--store", str(store), world=1, ended=at)
    assert ended.returncode == 128 + signal.SIGTERM
    assert not store.with_name("ended.zarr.var-organism.lock").exists()
    done = run(alone, "ended", "--store", str(store), world=1)
    assert done.returncode == 0, done.stderr
    assert contents(store) == contents(alone / "alone.zarr")


def test_three_processes_stream_to_the_scores_of_one(alone: Path, run: Run) -> None:
    done = run(alone, "three", world=3)
    assert done.returncode == 0, done.stderr
    given, expected = load_scores(alone / "three"), load_scores(alone / "alone")
    assert np.array_equal(given["top_image"], expected["top_image"])
    assert np.array_equal(given["valid"], expected["valid"])
    # float32 scores of float64 sums in another order
    xr.testing.assert_allclose(given, expected, rtol=1e-6)
    assert not (alone / "three" / "progress").exists()
    assert "13 images, 2 views of each: 26 passes" in done.stderr
    assert done.stderr.count("26 passes") == 1


def test_a_damaged_picture_ends_all_processes_before_its_slab_is_committed(
    folder: Path, run: Run
) -> None:
    broken, store = folder / "images" / "1" / "4.png", folder / "broken.zarr"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])  # its header is sound
    try:
        done = run(folder, "broken", "--store", str(store), world=2)
    finally:
        broken.write_bytes(whole)
    assert done.returncode != 0
    assert done.stderr.count("Error: picture '1/4.png' cannot be read") == 1
    assert not (folder / "broken" / "scores.nc").exists()
    written = ActivationStore.open(store)
    (slab,) = np.flatnonzero(written.dataset(partial="keep")["image_path"] == "1/4.png") // SLAB
    assert slab % 2 == 1  # the second process's, so the first one is told to end
    assert slab in written.pending()
    assert not store.with_name("broken.zarr.var-organism.lock").exists()


# --- one process, and none to wait for


def test_a_process_alone_shares_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes("cuda") as ranks:
        assert ranks == Ranks()
        assert (ranks.broadcast(lambda: 3), ranks.gather(4), ranks.device("cuda")) == (
            3,
            [4],
            "cuda",
        )
        ranks.wait()


def test_each_of_several_processes_takes_the_gpu_of_its_number() -> None:
    assert Ranks(rank=5, world=8, local=1).device("cuda") == "cuda:1"
    assert Ranks(rank=5, world=8, local=1).device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("device", "message"), [("cuda:0", "several processes"), ("cuda", "no GPU of its own")]
)
def test_processes_that_would_share_a_gpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    started(monkeypatch, WORLD_SIZE="91", RANK="90", LOCAL_RANK="90")
    with pytest.raises(InputError, match=message), join_processes(device):
        pass


def started(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set the environment as torchrun does, with other values of some variables."""
    sound = {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, text in (sound | variables).items():
        monkeypatch.setenv(name, text)


@pytest.mark.parametrize("text", ["", " ", "1"])
def test_a_world_size_that_is_empty_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    started(monkeypatch, WORLD_SIZE=text, RANK="abc")
    assert started_processes() == (0, 1, 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', and torchrun sets it to a number"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"WORLD_SIZE": "0"}, "do not fit each other"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '99"),
        (
            {"WORLD_SIZE": "2", "RANK": ""},
            "but RANK are not set; start the processes with torchrun",
        ),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK 2 and LOCAL_RANK 0, which do not fit"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5'"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "", "MASTER_PORT": ""}, "MASTER_ADDR and MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
    ],
)
def test_variables_that_torchrun_would_not_set_so_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    started(monkeypatch, **variables)
    with pytest.raises(InputError, match=message) as refused:
        started_processes()
    assert len(str(refused.value)) < 250
