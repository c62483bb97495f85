"""Files of an unfinished run: taken as they were saved, or refused by name with the cure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.activations.checkpoints import Checkpoints
from iarmem_plugin.activations.run import Run
from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.activations.streaming import stream
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import IarmemError, InputError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes

METRICS = ("unitmem", "mean-activation")
PATHS = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b"))
LAYOUT = ModelLayout("var", 2, 3, (Scale("0", (0,)),), PATHS, range(1))
IMAGES = Images.from_arrays(np.zeros((5, 4, 4, 3), np.uint8), np.zeros(5, int))


def fresh() -> dict[str, Metric]:
    return {name: plugins.find("metric", name)() for name in METRICS}


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(folder, CaptureSettings("made up", LAYOUT, IMAGES, 2), METRICS)


def states(images: list[int]) -> dict[str, xr.Dataset]:
    """Return the states of metrics that saw some images."""
    values = np.random.default_rng(0).random((2, 1, 3, 5), np.float32)
    batch = xr.DataArray(
        values[..., images], {"image": images}, ("block", "scale", "neuron", "image")
    )
    metrics = fresh()
    for metric in metrics.values():
        metric.update(batch)
    return {name: metric.state() for name, metric in metrics.items()}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """Slabs 0 and 2 of three, whose images are 0, 1 and 4."""
    made = checkpoints(tmp_path / "progress")
    made.save(0, [0, 2], states([0, 1, 4]))
    return made


def test_what_was_saved_is_taken_as_it_was(saved: Checkpoints) -> None:
    assert saved.slabs() == {0: [0, 2]}
    for name, state in states([0, 1, 4]).items():
        xr.testing.assert_equal(saved.load(0)[name], state)


def each(change: Callable[[xr.Dataset], xr.Dataset]) -> dict[str, xr.Dataset]:
    return {name: change(state) for name, state in states([0, 1, 4]).items()}


SPOILT: dict[str, dict[str, xr.Dataset]] = {
    "no state": {},
    "another metric's": {"random": states([0])["unitmem"], "unitmem": states([0])["unitmem"]},
    "of other images": states([0, 1, 2]),
    "of fewer images": states([0, 1]),
    "of fewer neurons": each(lambda state: state.isel(neuron=[0, 1])),
    "of other blocks": each(lambda state: state.isel(block=[1, 0])),
    "with neurons twice": each(lambda state: state.isel(neuron=[0, 1, 1])),
    "of complex numbers": each(lambda state: state.assign(total=state["total"] * 1j)),
    "of text": each(lambda state: state.assign(total=state["total"].astype(str))),
    "without its sum": each(lambda state: state.drop_vars("total")),
    "without its images": each(lambda state: state.drop_vars("images")),
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_a_sound_file_with_spoilt_states_is_one_line(
    saved: Checkpoints, spoilt: dict[str, xr.Dataset]
) -> None:
    saved.save(0, [0, 2], spoilt)
    with pytest.raises(InputError, match=r"rank-0\.nc cannot be read .*--restart") as caught:
        saved.merge_into(fresh(), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("slabs", [[0, 0], [3], [-1], [2**40]])
def test_slabs_that_the_capture_does_not_have_are_refused(
    saved: Checkpoints, slabs: list[int]
) -> None:
    saved.save(0, slabs, states([0]))
    with pytest.raises(InputError, match="its slabs are not those of this capture"):
        saved.slabs()


def test_a_slab_in_two_files_is_not_counted_twice(saved: Checkpoints) -> None:
    saved.save(3, [1, 2], states([2, 3, 4]))
    with pytest.raises(InputError, match=r"rank-3\.nc .*slab 2 is in another file"):
        saved.slabs()


@pytest.mark.parametrize(
    "slabs", [("slab", [0.0, 2.0]), ("slab", ["0", "2"]), ((), 0), (("a", "b"), [[0, 2]])]
)
def test_slabs_that_are_no_list_of_numbers_are_refused(saved: Checkpoints, slabs: Any) -> None:
    saved._stages.save("rank-0", xr.DataTree(xr.Dataset({"slabs": slabs})))
    with pytest.raises(InputError, match="does not say which slabs"):
        saved.slabs()
    saved._stages.save("rank-0", xr.DataTree(children={"slabs": xr.DataTree()}))
    with pytest.raises(InputError, match="does not say which slabs"):
        saved.slabs()


def test_a_file_that_promises_more_than_it_has_asks_for_no_memory(
    saved: Checkpoints, tmp_path: Path
) -> None:
    import h5netcdf

    file = tmp_path / "progress/rank-0.nc"
    with h5netcdf.File(file, "w") as made:
        made.dimensions = {"slab": 10**12}
        made.create_variable("slabs", ("slab",), "i8", chunks=(1,))
    write(file, file.read_bytes())
    with pytest.raises(InputError, match="promises 8000000 MB"):
        saved.slabs()


def write(file: Path, content: bytes) -> None:
    """Write a file with a checksum that fits."""
    file.write_bytes(content + hashlib.sha256(content).digest())


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_a_folder_that_cannot_be_one_is_refused_before_the_work(tmp_path: Path, kind: str) -> None:
    folder, victim = tmp_path / "progress", tmp_path / "victim"
    if kind == "file":
        folder.touch()
    else:
        folder.symlink_to(victim)
    if kind == "link":
        victim.mkdir()

    def untouched(*_: object, **__: object) -> Any:
        pytest.fail("the work was begun")

    with pytest.raises(InputError, match="is a file or a link; move it away"):
        stream(Run(IMAGES, untouched, 2), fresh(), checkpoints(folder))
    assert not victim.exists() or not list(victim.iterdir())


def test_a_folder_that_may_not_be_written_to_is_one_line(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("iarmem_plugin.stages.stages.write_whole", refuse)
    with pytest.raises(InputError, match=r"rank-0\.nc cannot be written \(Permission denied\)"):
        saved.save(0, [0], {})
    monkeypatch.setattr("iarmem_plugin.files.try_to_write", refuse)
    with pytest.raises(InputError, match="may not be written to"):
        saved.check()


# --- any change of a file


def try_mutations(saved: Checkpoints, file: Path, rounds: range) -> None:
    whole = file.read_bytes()[: -hashlib.sha256().digest_size]
    for seed in rounds:
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))
        write(file, bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data))
        try:
            assert set(saved.slabs()[0]) <= {0, 1, 2}
            saved.merge_into(fresh(), 0)
        except IarmemError:
            continue


# h5netcdf fails once more when it closes a file that it could not open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_mutated_file_with_a_checksum_that_fits_is_a_named_error(
    saved: Checkpoints, tmp_path: Path
) -> None:
    try_mutations(saved, tmp_path / "progress/rank-0.nc", range(20))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_many_mutated_files_with_checksums_that_fit_are_named_errors(
    saved: Checkpoints, tmp_path: Path
) -> None:
    try_mutations(saved, tmp_path / "progress/rank-0.nc", range(100, 600))
