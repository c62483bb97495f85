"""Candidates: images that may be memorized, given in groups or ranked by the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import Progress
from torch import Tensor

from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, NonFiniteLogitsError, NonFiniteSimilarityError
from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.logits import check_logits

Role = Literal["canary", "member", "held-out", "candidate"]
"""What is known of a group: how often its pictures stood in the training set, if at all."""


@runtime_checkable
class Completes(Protocol):
    """What an attack needs of a model; the traced model has it, so that edits take effect."""

    @property
    def layout(self) -> ModelLayout:
        """Where the model's neurons and scales are."""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    def borrowed(self) -> AbstractContextManager[object]:
        """Put the model in eval and inference mode, and back as it was."""

    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens."""

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""

    def complete(
        self, prefix: Int[Tensor, "image prefix"], labels: Int[Tensor, " image"], sampling: Sampling
    ) -> Int[Tensor, "image token"]:
        """Complete a token prefix."""

    def logits(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> Float[Tensor, "image token vocab"]:
        """Predict each token from the true earlier ones and the label, unguided."""


@dataclass(frozen=True, slots=True, repr=False)
class Candidates:
    """Images that may be memorized.

    Attributes:
        images: each image once.
        group: str, one for each candidate, such as ``"canary x64"`` or ``"held-out"``.
        hit_rate: float, one for each ranked candidate: share of tokens that the model predicts
            under teacher forcing; None for candidates that were given.
        roles: ``"canary"`` (repeated in the training set), ``"member"`` (in it once),
            ``"held-out"`` (never in it) or ``"candidate"`` (not known), by group; a group left
            out has the role that its name has in an organism, see `role_of`.

    Raises:
        InputError: where groups and images differ in number, or a role is not a group's.
    """

    images: Images
    group: np.ndarray
    hit_rate: np.ndarray | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every image has its group, and that roles are those of groups."""
        if self.group.shape != (len(self.images),):
            raise InputError(
                f"{len(self.images)} candidates with groups of shape {self.group.shape}; "
                "give one group name for each candidate"
            )
        for name, role in self.roles.items():
            if name not in self.group or role not in get_args(Role):
                raise InputError(
                    f"the role of group {name!r} is given as {role!r}; expected a group of the "
                    f"candidates, and one of {', '.join(get_args(Role))}"
                )

    def __repr__(self) -> str:
        """Return the number of candidates by group."""
        names, counts = np.unique(self.group, return_counts=True)
        groups = ", ".join(f"{one} {name!s}" for name, one in zip(names, counts, strict=True))
        return f"Candidates({groups or 'none'})"

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.images)

    @property
    def role(self) -> np.ndarray:
        """Role of each candidate's group, str, one for each candidate."""
        names = [str(name) for name in self.group]
        return np.array([self.roles.get(name, role_of(name)) for name in names], dtype=np.str_)


def role_of(group: str) -> Role:
    """Return the role of a group that is named as an organism's groups are.

    >>> [role_of(name) for name in ("canary x64", "member", "held-out", "ranked")]
    ['canary', 'member', 'held-out', 'candidate']
    """
    if group == HELD_OUT:
        return "held-out"
    if group.startswith("canary"):
        return "canary"
    return "member" if group == "member" else "candidate"


def rank_candidates(
    model: Completes,
    images: Images,
    views: Augmentation,
    *,
    per_class: int = 5,
    positions: Iterable[int] | None = None,
    group: str = "ranked",
    batch_size: int | Batching = 64,
    progress: Progress | None = None,
) -> Candidates:
    """Keep the images of each class whose tokens the model predicts best.

    One teacher-forced pass an image, with its true label and without guidance. An image's score
    is its hit rate: the share of the positions at which the true token is the likeliest. Ties go
    to the larger mean log-probability of the true tokens, then to the smaller image id.

    Args:
        model: the traced model.
        images: the training images.
        views: the augmentation the model was trained with; its centre view is taken.
        per_class: images to keep of each class; a smaller class is kept whole.
        positions: token positions that count, from 0; None takes the last tokens that the
            model's layout names: those of VAR's last scale, and RAR's last 99 of 256.
        group: name for the group of all candidates.
        batch_size: images at a time; halved where memory does not suffice.
        progress: shows a bar where given.

    Returns:
        the best first within each class, classes in ascending order; ``hit_rate`` in [0, 1].

    Raises:
        InputError: with impossible positions or numbers.
        NonFiniteLogitsError: where the model's logits are not finite.

    Reference:
        Kowalczuk et al. 2025, arXiv 2502.02514 (stage 1: identification of candidates).
    """
    if per_class < 1:
        raise InputError(f"per_class is {per_class}; keep at least one image of each class")
    given = None if positions is None else tuple(positions)
    batching = Batching.of(batch_size)

    def scores(rows: slice) -> np.ndarray:
        tokens = model.tokenize(centre_views(images, views, rows).to(model.device))
        chosen = _ranked(model.layout, tokens.shape[1]) if given is None else given
        _check_positions(chosen, tokens.shape[1])
        logits = model.logits(tokens, true_labels(images, rows, model))
        refuse_broken(logits, images.paths[rows])
        return _scores(logits[:, chosen], tokens[:, chosen]).cpu().numpy()

    with model.borrowed():
        done = batching.over(
            len(images), scores, progress=progress, description="ranking candidates"
        )
        hit_rate, log_probability = np.concatenate(list(done)).T
    check_finite(log_probability, images, "log-probability")
    kept = _best_of_each_class(images, hit_rate, log_probability, per_class)
    return Candidates(images.subset(kept), np.full(len(kept), group), hit_rate[kept])


def _scores(
    logits: Float[Tensor, "image position vocab"], tokens: Int[Tensor, "image position"]
) -> Float[Tensor, "image 2"]:
    """Return hit rate and mean log-probability of the true tokens, float64."""
    hits = (logits.argmax(dim=2) == tokens).double().mean(dim=1)
    log_probabilities = logits.double().log_softmax(dim=2)
    truth = log_probabilities.gather(2, tokens.long().unsqueeze(2)).squeeze(2)
    return torch.stack([hits, truth.mean(dim=1)], dim=1)


def _best_of_each_class(
    images: Images, hit_rate: np.ndarray, log_probability: np.ndarray, per_class: int
) -> np.ndarray:
    order = np.lexsort((images.ids, -log_probability, -hit_rate, images.labels))
    labels = np.asarray(images.labels)[order]
    starts = np.searchsorted(labels, labels)  # where each one's class begins
    return np.asarray(order[np.arange(len(order)) - starts < per_class])


def centre_views(
    images: Images, views: Augmentation, rows: slice
) -> Float[Tensor, "image 3 height width"]:
    """Return the centre views of some images, RGB in [0, 1]."""
    return torch.stack([views.center(images.load(i)) for i in range(rows.start, rows.stop)])


def true_labels(images: Images, rows: slice, model: Completes) -> Int[Tensor, " image"]:
    """Return the labels of some images, where the model computes."""
    labels = np.asarray(images.labels[rows], dtype=np.int64)
    return torch.from_numpy(labels).to(model.device)


def _ranked(layout: ModelLayout, tokens: int) -> tuple[int, ...]:
    if layout.ranked_tokens is None:
        return layout.scales[-1].tokens
    return tuple(range(tokens - layout.ranked_tokens, tokens))


def _check_positions(positions: tuple[int, ...], tokens: int) -> None:
    if not positions or not all(0 <= position < tokens for position in positions):
        raise InputError(
            f"positions {positions[:5]}... do not fit images of {tokens} tokens; "
            f"give some from 0 to {tokens - 1}"
        )


@contextmanager
def images_named(names: Sequence[str]) -> Iterator[None]:
    """Name the first image whose logits are not finite.

    Args:
        names: names of the images of one batch.

    Raises:
        NonFiniteLogitsError: as inside, with the name.
    """
    try:
        yield
    except NonFiniteLogitsError as error:
        raise NonFiniteLogitsError(
            f"{error}; the first of them is {names[error.rows[0]]!r}", error.rows, error.position
        ) from error


def refuse_broken(logits: Float[Tensor, "image position vocab"], names: Sequence[str]) -> None:
    """Raise NonFiniteLogitsError, naming the first image whose logits are not finite."""
    with images_named(names):
        check_logits(logits)


def check_pixels(pixels: Float[Tensor, "image 3 height width"], names: Sequence[str]) -> None:
    """Refuse decoded images with values that are not finite.

    Args:
        pixels: what the tokenizer returned.
        names: names of the images.

    Raises:
        NonFiniteSimilarityError: naming the first such image.
    """
    broken = (~pixels.flatten(1).sum(1, dtype=torch.float32).isfinite()).nonzero().flatten()
    if len(broken):
        raise NonFiniteSimilarityError(
            f"the tokenizer decoded {len(broken)} of {len(pixels)} images to values that are not "
            f"finite, first {names[int(broken[0])]!r}; check the tokenizer's weights"
        )


def check_finite(values: np.ndarray, images: Images, what: str) -> None:
    """Raise NonFiniteSimilarityError, naming the first image whose value is not finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise NonFiniteSimilarityError(
            f"{what} is not finite for {bad.size} of {values.size} images, first for "
            f"{images.paths[bad[0]]!r}; the edited model or the measure broke down on them"
        )
