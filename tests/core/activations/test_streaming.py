"""Runs without a store: states are saved, merged in any order, and gone on with."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from iarmem_plugin import plugins
from iarmem_plugin.activations.capture import capture
from iarmem_plugin.activations.checkpoints import Checkpoints
from iarmem_plugin.activations.run import Run, pace
from iarmem_plugin.activations.settings import CaptureOptions, CaptureSettings
from iarmem_plugin.activations.streaming import stream
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import (
    DiskFullError,
    FingerprintMismatchError,
    IncompleteCaptureError,
    InputError,
)
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.scores import begin_scores, load_scores, save_scores
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter

CAPTURE = "iarmem_plugin.jobs.localize.capture"
TWO_VIEWS = CaptureOptions(views=2)
METRICS = ("unitmem", "mean-activation", "random")
EXACT = {"maximum", "top_image", "images"}


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


def fresh(names: tuple[str, ...] = METRICS) -> dict[str, Metric]:
    return {name: plugins.find("metric", name)() for name in names}


def activations(images: list[int], values: np.ndarray) -> xr.DataArray:
    coords = {"image": images, "label": ("image", [0] * len(images))}
    dims = ("image", "block", "scale", "neuron")
    return xr.DataArray(values[images], dims=dims, coords=coords)


def states(shares: list[list[int]], values: np.ndarray, name: str) -> list[xr.Dataset]:
    found = []
    for share in shares:
        (metric,) = fresh((name,)).values()
        if share:
            metric.update(activations(share, values))
        found.append(metric.state())
    return found


def assert_same_state(given: xr.Dataset, expected: xr.Dataset) -> None:
    assert set(given) == set(expected)
    for name in expected:
        if name in EXACT:
            xr.testing.assert_equal(given[name], expected[name])
        else:  # float64 sums in another order
            xr.testing.assert_allclose(given[name], expected[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25)
@given(
    data=st.data(),
    ranks=st.integers(1, 4),
    values=st.sampled_from([0.0, 1e-3, 1.0, 7e4]).flatmap(
        lambda size: st.lists(st.integers(0, 3), min_size=6, max_size=6).map(
            lambda ties: (size, ties)
        )
    ),
)
def test_states_merge_to_the_same_in_any_split_order_and_nesting(
    name: str, data: st.DataObject, ranks: int, values: tuple[float, list[int]]
) -> None:
    size, ties = values
    noise = np.random.default_rng(sum(ties)).random((6, 2, 2, 3))
    scores = (noise * size + np.array(ties)[:, None, None, None]).astype(np.float32)
    scores[:, 0, 0, 0] = ties  # images that tie for the maximum
    order = data.draw(st.permutations(range(6)))
    shares = [list(order[rank::ranks]) for rank in range(ranks)]
    (whole,) = fresh((name,)).values()
    whole.update(activations(list(range(6)), scores))
    parts = data.draw(st.permutations(states(shares, scores, name)))
    while len(parts) > 1:  # any two are merged, into either
        into, (metric,) = data.draw(st.integers(0, len(parts) - 2)), fresh((name,)).values()
        metric.merge(parts.pop(into))
        metric.merge(parts.pop(into))
        parts.insert(data.draw(st.integers(0, len(parts))), metric.state())
    assert_same_state(parts[0], whole.state())


def checkpoints(folder: Path, metrics: tuple[str, ...] = METRICS, **changes: Any) -> Checkpoints:
    """Return the checkpoints of a made-up capture of three slabs."""
    paths = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b"))
    layout = ModelLayout("var", 1, 50, (Scale("0", (0,)),), paths, range(1))
    images = Images.from_arrays(np.zeros((3, 4, 4, 3), np.uint8), np.zeros(3, int))
    given: dict[str, Any] = {"layout": layout, "images": images, "slab": 1} | changes
    return Checkpoints(folder, CaptureSettings("made up", **given), metrics)


class KilledError(Exception):
    """What ends a run in these tests."""


def killed_after(batches: int, run: Callable[..., Any]) -> Callable[..., Iterator[xr.DataArray]]:
    def some(*args: Any, **kwargs: Any) -> Iterator[xr.DataArray]:
        for number, batch in enumerate(run(*args, **kwargs)):
            if number == batches:
                raise KilledError
            yield batch

    return some


def counted(asked: list[int], run: Callable[..., Any]) -> Callable[..., Iterator[xr.DataArray]]:
    def counting(*args: Any, **kwargs: Any) -> Iterator[xr.DataArray]:
        for batch in run(*args, **kwargs):
            asked.extend(batch["image"].values.tolist())
            yield batch

    return counting


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 4])
def test_a_run_that_was_ended_goes_on_after_its_last_slab_to_the_same_scores(
    model: ImageARModel,
    pictures: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches: int,
) -> None:
    options: dict[str, Any] = {"options": CaptureOptions(2, 2, slab=3), "metric": METRICS}
    whole = localize(model, pictures, **options)
    there = options | {"checkpoints": tmp_path / "progress"}
    monkeypatch.setattr(
        "iarmem_plugin.activations.streaming._RUN_PER_SAVING", 1
    )  # save after every slab
    monkeypatch.setattr(CAPTURE, killed_after(batches, capture))
    with pytest.raises(KilledError):
        localize(model, pictures, **there)
    asked: list[int] = []
    monkeypatch.setattr(CAPTURE, counted(asked, capture))
    resumed = localize(model, pictures, **there)
    assert asked == list(range(batches // 2 * 3, 7))  # slabs have two batches each
    for name in METRICS:  # of one process, sums are in one order: bit for bit
        xr.testing.assert_equal(resumed[name], whole[name])


def test_what_was_captured_whole_is_scored_without_a_capture(
    model: ImageARModel, pictures: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"options": TWO_VIEWS, "checkpoints": tmp_path / "progress"}
    whole = localize(model, pictures, **options)
    asked: list[int] = []
    monkeypatch.setattr(CAPTURE, counted(asked, capture))
    xr.testing.assert_equal(localize(model, pictures, **options), whole)
    assert asked == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1}, "seed: 0 there, 1 given"),
        ({"slab": 4}, "slab: 3 there, 4 given"),
        ({"batch_size": 3}, "batch_size: 2 there, 3 given"),
        ({}, 'metrics: .*"unitmem".* there, .*"random".* given'),
    ],
)
def test_a_run_does_not_go_on_with_other_settings_and_names_them(
    model: ImageARModel,
    pictures: Images,
    tmp_path: Path,
    changes: dict[str, Any],
    field: str,
) -> None:
    options, progress = CaptureOptions(2, 2, slab=3), tmp_path / "progress"
    localize(model, pictures, options=options, checkpoints=progress)
    changed, metric = replace(options, **changes), "unitmem" if changes else "random"
    with pytest.raises(FingerprintMismatchError, match=f"{field}.*--restart"):
        localize(model, pictures, metric=metric, options=changed, checkpoints=progress)


def test_what_more_processes_have_left_is_merged_by_one(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    run = partial(capture, model, views=2, batch_size=2)
    whole, work = fresh(), Run(pictures, run, slab=2)
    stream(work, whole)
    saved = checkpoints(tmp_path, images=pictures, layout=model.layout, slab=2)
    for rank, slabs in ((0, [0]), (2, [2, 3])):  # 1 of the three was killed before its first slab
        share = fresh()
        for batch in run(pictures, slabs=[work.slabs.positions(slab) for slab in slabs]):
            for metric in share.values():
                metric.update(batch)
        saved.save(rank, slabs, {name: metric.state() for name, metric in share.items()})
    metrics = fresh()
    stream(work, metrics, saved)
    for name in METRICS:
        assert_same_state(metrics[name].state(), whole[name].state())


def test_a_pass_that_ends_too_early_is_no_result(model: ImageARModel, pictures: Images) -> None:
    run = partial(capture, model, views=2, batch_size=2)

    def short(images: Images, slabs: list[range]) -> Iterator[xr.DataArray]:
        return run(images, slabs=slabs[:-1])

    with pytest.raises(IncompleteCaptureError, match="2 of 3 slabs"):
        stream(Run(pictures, short, slab=3), fresh())


def test_a_checkpoint_that_cannot_be_read_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "rank-0.nc").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"rank-0\.nc cannot be read.*--restart"):
        checkpoints(tmp_path).slabs()


def test_a_checkpoint_that_was_cut_short_is_none(tmp_path: Path) -> None:
    (tmp_path / "rank-0.nc.partial").write_bytes(b"half a file")
    assert checkpoints(tmp_path).slabs() == {}


def test_a_full_disk_keeps_the_checkpoint_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    saved = checkpoints(tmp_path, seed=0)
    saved.save(0, [1], {})
    monkeypatch.setattr("iarmem_plugin.disk._create", full)
    with pytest.raises(DiskFullError, match=r"the disk is full, .* make room"):
        saved.save(0, [1, 2], {})
    assert saved.slabs() == {0: [1]}


def test_several_metrics_share_one_pass_and_each_is_as_if_alone(
    model: ImageARModel, pictures: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(CAPTURE, counted(asked, capture))
    together = localize(model, pictures, options=TWO_VIEWS, metric=list(METRICS))
    assert asked == list(range(7))
    assert list(together) == list(METRICS)
    for name in METRICS:
        xr.testing.assert_identical(
            together[name], localize(model, pictures, options=TWO_VIEWS, metric=name)
        )


@pytest.mark.parametrize("names", [(), ("unitmem", "unitmem")])
def test_metrics_are_given_once_each(
    model: ImageARModel, pictures: Images, names: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match="each once"):
        localize(model, pictures, metric=names)


def test_scores_of_several_metrics_are_files_of_their_own(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    progress = tmp_path / "progress"
    scores = localize(model, pictures, options=TWO_VIEWS, metric=METRICS, checkpoints=progress)
    assert [file.name for file in progress.iterdir()] == ["rank-0.nc"]
    save_scores(scores, tmp_path)
    assert progress.exists()  # of another run, for all that is known here
    xr.testing.assert_equal(load_scores(tmp_path), scores["unitmem"])
    for name in METRICS[1:]:
        xr.testing.assert_equal(load_scores(tmp_path / f"scores-{name}.nc"), scores[name])
    save_scores(scores["random"], tmp_path)
    assert [file.name for file in tmp_path.glob("*.nc")] == ["scores.nc"]


def test_what_an_unfinished_run_left_is_discarded_on_request_alone(tmp_path: Path) -> None:
    checkpoints(tmp_path / "progress").save(0, [1], {})
    begin_scores(tmp_path)
    assert checkpoints(tmp_path / "progress").slabs() == {0: [1]}
    begin_scores(tmp_path, restart=True)
    assert not (tmp_path / "progress").exists()


def test_the_size_of_batches_that_memory_allowed_is_written_down(
    model: ImageARModel, pictures: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ImageARModel.read_neurons

    def small(self: ImageARModel, inputs: Any) -> Any:
        if len(inputs.args[0]) > 2:
            raise MemoryError
        return whole(self, inputs)

    monkeypatch.setattr(ImageARModel, "read_neurons", small)
    with pytest.warns(RuntimeWarning, match="going on with 2"):
        scores = localize(model, pictures, options=CaptureOptions(views=2, batch_size=5))
    provenance = json.loads(scores.attrs["provenance"])
    assert (provenance["batch_size"], provenance["batch_size_used"]) == (5, 2)


def test_hours_to_go_follow_from_the_rate() -> None:
    # 13 000 images at 0.5 a second are 26 000 s
    assert pace(13_000, 0.5).endswith("0.5 a second, as one batch was timed: 7.2 hours")


def test_a_flipped_bit_of_a_checkpoint_is_never_gone_on_with(tmp_path: Path) -> None:
    values = xr.Dataset({"total": ("neuron", np.arange(50.0))})
    checkpoints(tmp_path, ("one",)).save(0, [1], {"one": values})
    file = tmp_path / "rank-0.nc"
    whole = file.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 40):
        data = bytearray(whole)
        data[position] ^= 1 << int(position) % 8
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"cannot be read \(its checksum does not fit\)"):
            checkpoints(tmp_path, ("one",)).load(0)
    file.write_bytes(whole)
    assert checkpoints(tmp_path, ("one",)).load(0)["one"].equals(values)


def test_a_finished_run_has_saved_all_of_its_slabs(
    model: ImageARModel, pictures: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[list[int]] = []
    save = Checkpoints.save

    def noting(self: Checkpoints, rank: int, slabs: Any, states: Any) -> None:
        saved.append(list(slabs))
        save(self, rank, slabs, states)

    monkeypatch.setattr(Checkpoints, "save", noting)
    monkeypatch.setattr(
        "iarmem_plugin.activations.streaming._RUN_PER_SAVING", 1e9
    )  # none but the first and the last
    localize(
        model, pictures, options=CaptureOptions(views=2, slab=2), checkpoints=tmp_path / "progress"
    )
    assert saved == [[0], [0, 1, 2, 3]]


# h5netcdf fails once more when it closes a file that it could not open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_scores_are_one_plain_error(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    scores = localize(model, pictures, options=TWO_VIEWS)
    file = save_scores(scores, tmp_path) / "scores.nc"
    assert load_scores(tmp_path).equals(scores)
    whole = file.read_bytes()
    place = whole.index(scores["score"].to_numpy().tobytes()[:64])
    for position in (place + 2, *np.random.default_rng(0).integers(0, len(whole), 60)):
        data = bytearray(whole)
        data[position] ^= 4
        file.write_bytes(data)
        try:
            assert load_scores(tmp_path).equals(scores)  # what is not read may differ
        except InputError:
            continue
        assert position != place + 2
