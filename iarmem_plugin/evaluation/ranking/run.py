"""Rank any number of images: chunk by chunk, resumable, shared among processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Shaped, UInt8

from iarmem_plugin.activations.distributed import Ranks
from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.checks import check_integer, check_kind
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.dataloader import each_batch
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.ranking.contents import content_of
from iarmem_plugin.evaluation.ranking.facts import made_with, of_scores, of_tokens
from iarmem_plugin.evaluation.ranking.passes import check_positions, counted, scores, tokenized
from iarmem_plugin.evaluation.ranking.pieces import Pieces
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.provenance import describe_images
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.progress import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

ALONE = Ranks()


def rank(
    model: ImageARModel,
    images: Images,
    *,
    views: Augmentation | None = None,
    positions: Iterable[int] | None = None,
    cache: Path | str | None = None,
    chunk: int = 256,
    batch_size: int = 64,
    workers: int = 0,
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
) -> Ranking:
    """Score every image by how well the model predicts its tokens: stage 1 of the attack.

    One teacher-forced pass an image, with its true condition and without guidance. An image's score
    is its hit rate: the share of the positions at which the true token is the likeliest.
    In memory are a chunk's pictures, of each worker two, and beside the list itself about 250 bytes
    an image in each process (600 when it is saved). The result is the same bit for bit however
    often it was interrupted, and by however many processes of the same kind it was made.

    Args:
        model: the unmodified model.
        images: training images; a subset of a list keeps its ids.
        views: the augmentation the model was trained with, by default its own; its centre view is
            taken.
        positions: token positions that count, from 0; None takes the last tokens that the
            model's layout names: those of VAR's last scale, and RAR's last 99 of 256.
        cache: folder in which tokens (2 bytes each) and scores are kept chunk by chunk, so that a
            run that was ended goes on, and another model of the same tokenizer reuses the tokens;
            None keeps none.
        chunk: images that are finished together, and lost if a run is killed.
        batch_size: images in one pass; halved where memory does not suffice.
        workers: processes that decode pictures; 0 decodes in this one.
        ranks: processes that share the work; all get the whole ranking.
        progress: shows a bar where given.

    Raises:
        InputError: no images, impossible positions or numbers, or an unreadable picture.
        NonFiniteLogitsError: where the model's logits are not finite.
        DiskFullError: there is no room for a chunk; those before it stay.

    Reference:
        Kowalczuk et al. 2025, arXiv 2502.02514 (stage 1: identification of candidates).
    """
    given = None if positions is None else tuple(positions)
    job = _job(model, images, views, given, (chunk, batch_size, workers))
    place = None if cache is None else Path(cache)
    made = made_with(model, job.views)
    pieces = Pieces(place, of_tokens(made), of_scores(made, batch_size, list(job.positions)))
    with model.borrowed():
        found = job.whole(pieces, ranks, progress)
    attack = {"view": "centre", "positions": list(job.positions), "guidance": None, "label_drop": 0}
    return Ranking.of(images, *found, made | describe_images(images) | attack)


class _Read(NamedTuple):
    """A chunk as it was read: contents, and pixels unless its tokens are known."""

    content: UInt8[np.ndarray, "image 32"]
    pixels: UInt8[np.ndarray, "image height width 3"] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """Reads a chunk, here or in a worker process."""

    images: Images
    views: Augmentation
    pieces: Pieces

    def __call__(self, positions: Sequence[int]) -> _Read:
        contents = b"".join(content_of(self.images, position) for position in positions)
        content = np.frombuffer(contents, np.uint8).reshape(-1, 32)
        known = self.pieces.tokens_key(content) in self.pieces.kept
        return _Read(content, None if known else self.pixels(positions))

    def pixels(self, positions: Sequence[int]) -> UInt8[np.ndarray, "image height width 3"]:
        """Return the centre views."""
        return np.stack([self._view(position) for position in positions])

    def _view(self, position: int) -> UInt8[np.ndarray, "height width 3"]:
        picture = self.images.load(position)
        try:
            return self.views.center_pixels(picture)
        except InputError as error:
            raise InputError(f"picture {self.images.paths[position]!r}: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What is ranked, and how."""

    model: ImageARModel
    images: Images
    views: Augmentation
    positions: tuple[int, ...]
    chunk: int
    batching: Batching
    workers: int

    def whole(
        self, pieces: Pieces, ranks: Ranks, progress: Progress | None
    ) -> tuple[
        Float64[np.ndarray, " image"], Float64[np.ndarray, " image"], UInt8[np.ndarray, "image 32"]
    ]:
        """Return hit rate, mean log-likelihood and content of all images."""
        slabs = Slabs(len(self.images), self.chunk)
        mine = self._share(slabs, pieces, ranks, progress)
        scored = np.empty((len(self.images), 2))
        content = np.empty((len(self.images), 32), np.uint8)
        for rank, parts in enumerate(ranks.gather(mine)):
            rows = _rows(slabs, rank, ranks.world)
            scored[rows], content[rows] = parts
        return np.ascontiguousarray(scored[:, 0]), np.ascontiguousarray(scored[:, 1]), content

    def _share(
        self, slabs: Slabs, pieces: Pieces, ranks: Ranks, progress: Progress | None
    ) -> tuple[Float64[np.ndarray, "image 2"], UInt8[np.ndarray, "image 32"]]:
        """Return scores and contents of this process's chunks."""
        spans = [slabs.positions(one) for one in slabs.share(ranks.rank, ranks.world)]
        count = sum(map(len, spans))
        scored, content, done = np.empty((count, 2)), np.empty((count, 32), np.uint8), 0
        advance = progress_bar(progress, "ranking images", count)
        reading = _Reading(self.images, self.views, pieces)
        for span, read in zip(spans, each_batch(reading, spans, self.workers), strict=True):
            rows = slice(done, done := done + len(span))
            content[rows], scored[rows] = read.content, self._scored(span, read, reading)
            advance(len(span))
        return scored, content

    def _scored(
        self, span: range, read: _Read, reading: _Reading
    ) -> Float64[np.ndarray, "image 2"]:
        pieces, rows = reading.pieces, slice(span.start, span.stop)
        ids = "image" in self.model.adapter.conditions
        key = pieces.scores_key(read.content, self.images.subset(span), ids=ids)

        def make() -> Float64[np.ndarray, "image 2"]:
            tokens = pieces.tokens(
                pieces.tokens_key(read.content),
                lambda: self._tokens(reading.pixels(span) if read.pixels is None else read.pixels),
            )
            passes = partial(self._passes, torch.from_numpy(tokens), rows.start)
            return np.concatenate(list(self.batching.over(len(span), passes)))

        return pieces.scores(key, make)

    def _tokens(
        self, pixels: UInt8[np.ndarray, "image height width 3"]
    ) -> Shaped[np.ndarray, "image token *rest"]:
        planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 3, 1)))

        def some(rows: slice) -> Shaped[np.ndarray, "image token *rest"]:
            views = planes[rows].to(torch.float32).div_(255)
            return tokenized(self.model, views).cpu().numpy()

        return np.concatenate(list(self.batching.over(len(pixels), some)))

    def _passes(
        self, tokens: Shaped[torch.Tensor, "image token *rest"], first: int, rows: slice
    ) -> Float64[np.ndarray, "row 2"]:
        there = slice(first + rows.start, first + rows.stop)
        some = tokens[rows].to(self.model.device)
        return scores(self.model, some, self.images, there, self.positions)


def _job(
    model: ImageARModel,
    images: Images,
    views: Augmentation | None,
    positions: tuple[int, ...] | None,
    numbers: tuple[int, int, int],
) -> _Job:
    check_kind("the model", model, ImageARModel, "a wrapped model, from iarmem.load or iarmem.wrap")
    check_kind("the images", images, Images, "Images")
    chunk, batch_size, workers = numbers
    check_integer("chunk", chunk, least=1)
    check_integer("batch_size", batch_size, least=1)
    check_integer("workers", workers, least=0)
    if len(images) == 0:
        raise InputError("there are no images; give at least one")
    adapter, tokens = model.adapter, len(model.layout.predicting)
    check_conditions(images, adapter.conditions, adapter.variant.num_classes)
    chosen = counted(model.layout, tokens) if positions is None else positions
    check_positions(chosen, tokens)
    shown = adapter.variant.views if views is None else views
    return _Job(model, images, shown, chosen, chunk, Batching(batch_size), workers)


def _rows(slabs: Slabs, rank: int, world: int) -> Shaped[np.ndarray, " image"]:
    """Return the positions of all images of a process's chunks, in order."""
    spans = [np.arange(*slabs.bounds(one)) for one in slabs.share(rank, world)]
    return np.concatenate(spans) if spans else np.empty(0, np.int64)
