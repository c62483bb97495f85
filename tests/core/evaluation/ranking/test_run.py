"""Ranking many images: resumable, shared, from kept tokens and scores, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from iarmem_plugin.activations.distributed import Ranks
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.readers import Reader
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.evaluation.ranking.run import rank
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter

COUNT, CHUNK = 22, 4


class Ended(Exception):  # noqa: N818  # it stands for a kill
    """Ends a run in its middle."""


@pytest.fixture
def model() -> Iterator[ImageARModel]:
    with wrapped(TinyAdapter.make()) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a folder of pictures for each class."""
    random = np.random.default_rng(0)
    for number in range(COUNT):
        file = tmp_path / "images" / str(number % CLASSES) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)).save(file)
    return tmp_path


@pytest.fixture
def images(folder: Path) -> Images:
    return Images.from_folder(folder / "images", num_classes=CLASSES)


def counting(
    monkeypatch: pytest.MonkeyPatch, model: ImageARModel, *, ends_after: int | None = None
) -> dict[str, int]:
    """Count the images that are tokenized and predicted; perhaps end the run after some."""
    counts = {"tokenize": 0, "predicted": 0}

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(model, name)

        def call(values: torch.Tensor, *others: Any) -> Any:
            if ends_after is not None and counts["predicted"] >= ends_after:
                raise Ended
            counts[name] += len(values)
            return method(values, *others)

        return call

    for name in counts:
        monkeypatch.setattr(model, name, counted(name), raising=False)
    return counts


def saved(found: Ranking, folder: Path) -> bytes:
    found.save(folder / "ranking.nc")
    return (folder / "ranking.nc").read_bytes()


def test_scores_are_those_of_the_whole_list_at_once(model: ImageARModel, images: Images) -> None:
    views = model.adapter.variant.views
    found = rank(model, images, chunk=CHUNK, batch_size=3).candidates(images, per_class=2)
    expected = rank_candidates(model, images, views, per_class=2)
    assert found.images.ids.tolist() == expected.images.ids.tolist()
    assert np.array_equal(cast(np.ndarray, found.hit_rate), cast(np.ndarray, expected.hit_rate))


@pytest.mark.parametrize("ends_after", [0, 4, 6, 20])
def test_a_run_that_was_ended_goes_on_to_the_same_file(
    model: ImageARModel,
    images: Images,
    folder: Path,
    ends_after: int,
) -> None:
    expected = saved(rank(model, images, chunk=CHUNK, batch_size=2), folder)
    run = {"cache": folder / "cache", "chunk": CHUNK, "batch_size": 2}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Ended):
        counting(patch, model, ends_after=ends_after)
        rank(model, images, **run)
    with pytest.MonkeyPatch.context() as patch:
        counts = counting(patch, model)
        assert saved(rank(model, images, **run), folder) == expected
    assert counts["predicted"] == COUNT - ends_after // CHUNK * CHUNK
    with pytest.MonkeyPatch.context() as patch:
        counts = counting(patch, model)
        assert saved(rank(model, images, **run), folder) == expected
    assert counts == {"tokenize": 0, "predicted": 0}


def test_another_model_of_the_same_tokenizer_reuses_the_tokens_alone(
    model: ImageARModel, images: Images, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rank(model, images, cache=folder / "cache", chunk=CHUNK)
    with torch.no_grad():
        model.adapter.network.get_parameter("head.bias").add_(torch.arange(16.0))
    expected = rank(model, images, chunk=CHUNK)
    counts = counting(monkeypatch, model)
    found = rank(model, images, cache=folder / "cache", chunk=CHUNK)
    assert counts == {"tokenize": 0, "predicted": COUNT}
    assert np.array_equal(found.log_probability, expected.log_probability)
    assert not np.array_equal(found.log_probability, first.log_probability)


def test_a_picture_that_was_changed_is_ranked_anew(
    model: ImageARModel, images: Images, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank(model, images, cache=folder / "cache", chunk=CHUNK)
    Image.new("RGB", (PIXELS, PIXELS), "red").save(folder / "images" / images.paths[5])
    counts = counting(monkeypatch, model)
    found = rank(model, images, cache=folder / "cache", chunk=CHUNK)
    assert counts == {"tokenize": CHUNK, "predicted": CHUNK}
    monkeypatch.undo()
    expected = rank(model, images, chunk=CHUNK)
    assert np.array_equal(found.log_probability, expected.log_probability)


@pytest.mark.parametrize("kind", ["tokens", "scores"])
def test_a_damaged_piece_is_made_anew_and_said(
    model: ImageARModel, images: Images, folder: Path, kind: str
) -> None:
    expected = saved(rank(model, images, cache=folder / "cache", chunk=CHUNK), folder)
    for file in (folder / "cache").glob("scores-*" if kind == "tokens" else "none"):
        file.unlink()
    for file in (folder / "cache").glob(f"{kind}-*"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="made anew: .*its checksum does not fit"):
        assert saved(rank(model, images, cache=folder / "cache", chunk=CHUNK), folder) == expected


def test_other_labels_positions_or_batches_reuse_no_score(
    model: ImageARModel, images: Images, folder: Path
) -> None:
    run = {"cache": folder / "cache", "chunk": CHUNK}
    rank(model, images, **run)
    moved = Images.from_folder(folder / "images", num_classes=CLASSES)
    moved.labels[:] = (moved.labels + 1) % CLASSES
    changes: tuple[tuple[Images, dict[str, Any]], ...] = (
        (moved, {}),
        (images, {"positions": range(3)}),
        (images, {"batch_size": 3}),
    )
    for list_, others in changes:
        with pytest.MonkeyPatch.context() as patch:
            counts = counting(patch, model)
            rank(model, list_, **run, **others)
            assert counts == {"tokenize": 0, "predicted": COUNT}


@dataclass(frozen=True, slots=True)
class OneOf(Ranks):
    """One of several processes that run one after the other."""

    values: dict[int, Any] = field(default_factory=dict)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all, or end where some have not run yet."""
        self.values[self.rank] = value
        if len(self.values) < self.world:
            raise Ended
        return [self.values[rank] for rank in range(self.world)]


@pytest.mark.parametrize("world", [2, 3, 9])
def test_any_number_of_processes_makes_the_same_file(
    model: ImageARModel, images: Images, folder: Path, world: int
) -> None:
    expected, values, found = saved(rank(model, images, chunk=CHUNK), folder), {}, []
    for number in [*range(world), *range(world)]:
        ranks = OneOf(number, world, values=values)
        with suppress(Ended):
            found.append(rank(model, images, cache=folder / "cache", chunk=CHUNK, ranks=ranks))
    assert [saved(one, folder) for one in found] == [expected] * (world + 1)


def test_worker_processes_change_nothing(model: ImageARModel, images: Images, folder: Path) -> None:
    expected = saved(rank(model, images, chunk=CHUNK), folder)
    found = rank(model, images, chunk=CHUNK, workers=1, cache=folder / "cache")
    assert saved(found, folder) == expected


def test_a_subset_keeps_its_ids(model: ImageARModel, images: Images) -> None:
    some = images.balanced(2, seed=1)
    found = rank(model, some)
    assert found.ids.tolist() == some.ids.tolist()
    assert len(found.candidates(some, per_class=1)) == CLASSES


@dataclass(frozen=True, slots=True)
class Endless(Reader):
    """Paints a picture from its id, and keeps nothing."""

    def __call__(self, image: int, path: str) -> Image.Image:
        """Paint it."""
        return Image.new("RGB", (PIXELS, PIXELS), (image % 251, image % 241, image // 251 % 256))


def peak(model: ImageARModel, count: int) -> int:
    """Return the most bytes that ranking so many images holds beside their list."""
    names = tuple(f"{number // 1300}/{number}.jpg" for number in range(count))
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    images = Images(names, labels, {}, np.arange(count, dtype=np.int64), Endless())
    tracemalloc.start()
    try:
        assert len(rank(model, images, chunk=64)) == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_less_than_250_bytes_an_image(model: ImageARModel) -> None:
    peak(model, 64)  # what is kept for good
    few, many = peak(model, 128), peak(model, 1152)
    assert (many - few) / (1152 - 128) < 250


def test_impossible_settings_are_refused_before_a_pass(model: ImageARModel, images: Images) -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"chunk": 0}, "chunk is 0; expected an integer of 1 or more"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"positions": [21]}, "give some from 0 to 20"),
        ({"positions": []}, "do not fit images of 21 tokens"),
    )
    for given, message in refused:
        with pytest.raises(InputError, match=message):
            rank(model, images, **given)
    with pytest.raises(InputError, match="there are no images"):
        rank(model, images.subset([]))
