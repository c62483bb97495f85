"""Candidates: images that may be memorized, given in groups or ranked by a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from iarmem_plugin.checks import check_kind
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.duplicates import check_cut
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, NonFiniteLogitsError, NonFiniteSimilarityError
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.interfaces.organism import Role, role_of
from iarmem_plugin.models.sampling import check_logits

if TYPE_CHECKING:
    from rich.progress import Progress


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

    def tokenize(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Shaped[Tensor, "image token *rest"]:
        """Turn RGB images in [0, 1] into tokens."""

    def decode(
        self, tokens: Shaped[Tensor, "image token *rest"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""

    def no_tokens(self, images: int) -> Shaped[Tensor, "image 0 *rest"]:
        """Return the empty prefix of so many images."""

    def complete(
        self,
        prefix: Shaped[Tensor, "image prefix *rest"],
        condition: Condition,
        sampling: Sampling,
    ) -> Shaped[Tensor, "image token *rest"]:
        """Complete a token prefix."""

    def logits(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> Float[Tensor, "image token vocab"]:
        """Predict each token from the true earlier ones and the condition, unguided."""

    def predicted(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> tuple[Bool[Tensor, "image token"], Float[Tensor, "image token"]]:
        """Tell of each token whether it is predicted so, and its log-likelihood, unguided."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Generations:
    """How a model's own free generations were made, see `with_generations`.

    Attributes:
        tokens: their tokens as they were drawn, on the CPU; one row for each candidate whose role
            is ``"generated"``.
        sampling: how tokens were drawn.
    """

    tokens: Shaped[Tensor, "generated token *rest"]
    sampling: Sampling

    def __repr__(self) -> str:
        """Return the number of images."""
        return f"Generations({len(self.tokens)}, {self.sampling})"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Clusters:
    """Which candidates are near-duplicates of one another, see `Candidates.with_clusters`.

    Attributes:
        number: number of each candidate's cluster; equal for near-duplicates.
        threshold: correlation above which two are near-duplicates, in (0, 1).
    """

    number: Int64[np.ndarray, " candidate"]
    threshold: float

    def __len__(self) -> int:
        """Return the number of clusters, a candidate without near-duplicates being one."""
        return len(np.unique(self.number))

    def __repr__(self) -> str:
        """Return the numbers of candidates and clusters."""
        return f"Clusters({len(self.number)} in {len(self)}, threshold={self.threshold:g})"


@dataclass(frozen=True, slots=True, repr=False)
class Candidates:
    """Images that may be memorized.

    Attributes:
        images: each image once.
        group: str, one for each candidate, such as ``"canary 500"`` or ``"held-out"``.
        hit_rate: float, one for each ranked candidate: share of tokens that the model predicts
            under teacher forcing; None for candidates that were given.
        roles: ``"canary"`` (shown more often than others), ``"member"`` (shown),
            ``"generated"`` (the model's own), ``"held-out"`` (never shown) or ``"candidate"`` (not
            known), by group; a group left out has the role that its name has in an organism, see
            `role_of`.
        generations: what is known of those that the model generated; None where there are none.
        clusters: which are near-duplicates of one another; None where that was not asked.
        ranking: how they were chosen, for the report; None for candidates that were given.

    Raises:
        InputError: where groups and images differ in number, or a role is not a group's.
    """

    images: Images
    group: np.ndarray
    hit_rate: np.ndarray | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    generations: Generations | None = None
    clusters: Clusters | None = None
    ranking: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check that every image has its group, and that roles are those of groups."""
        for name in (given := np.asarray(self.group, object)).flat:
            check_kind("the group of a candidate", name, str, "a text")
        if not isinstance(self.group, np.ndarray):
            object.__setattr__(self, "group", given.astype(np.str_))
        if self.group.shape != (len(self.images),):
            raise InputError(
                f"{len(self.images)} candidates with groups of shape {self.group.shape}; "
                "give one group name for each candidate"
            )
        if self.clusters is not None and len(self.clusters.number) != len(self.images):
            raise InputError(
                f"the clusters of {len(self.clusters.number)} candidates were given for "
                f"{len(self.images)}; make them with with_clusters"
            )
        for name, role in self.roles.items():
            if name not in self.group or role not in get_args(Role):
                raise InputError(
                    f"the role of group {name!r} is given as {role!r}; expected a group of the "
                    f"candidates, and one of {', '.join(get_args(Role))}"
                )
        if self.generations is not None and len(self.generations.tokens) != self._drawn.sum():
            raise InputError(
                f"the tokens of {len(self.generations.tokens)} generations were given for "
                f"{self._drawn.sum()} generated candidates; make both with with_generations"
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
    def identity(self) -> str:
        """Hash over the ids, paths and labels, in their order."""
        ids = self.images.ids.astype("<i8").tobytes()
        return hashlib.sha256(ids + self.images.digest.encode()).hexdigest()

    @property
    def role(self) -> np.ndarray:
        """Role of each candidate's group, str, one for each candidate."""
        names = [str(name) for name in self.group]
        return np.array([self.roles.get(name, role_of(name)) for name in names], dtype=np.str_)

    def subset(self, positions: np.ndarray) -> Candidates:
        """Return some of them, in the order of their positions."""
        group = self.group[positions]
        return Candidates(
            self.images.subset(positions),
            group,
            None if self.hit_rate is None else self.hit_rate[positions],
            {name: role for name, role in self.roles.items() if name in group},
            self._generations_of(positions),
            None
            if self.clusters is None
            else replace(self.clusters, number=self.clusters.number[positions]),
            self.ranking,
        )

    def with_clusters(
        self, threshold: float, *, workers: int = 0, progress: Progress | None = None
    ) -> Candidates:
        """Return the same, with the cluster of near-duplicates that each lies in.

        Args:
            threshold: Pearson correlation of small versions, in (0, 1), above which two are
                near-duplicates; see `Images.near_duplicates`.
            workers: number of processes that read pictures; 0 reads in this one.
            progress: display to which progress bars are added.

        Raises:
            InputError: the threshold is out of range, or a picture cannot be read.
        """
        check_cut(threshold)
        if len(self) < 2:  # nothing to compare
            return replace(self, clusters=Clusters(np.arange(len(self)), threshold))
        found = self.images.near_duplicates(threshold, workers=workers, progress=progress)
        return replace(self, clusters=Clusters(found["cluster"].to_numpy(), float(threshold)))

    def joined(self, images: Images, group: np.ndarray) -> Candidates:
        """Return these and further images, which were not ranked; clusters are found anew.

        Args:
            images: further images; their ids are moved past these.
            group: group of each of them.
        """
        rate, known = self.hit_rate, self.clusters
        both = replace(
            self,
            images=self.images.join(images),
            group=np.concatenate((self.group, group)),
            hit_rate=None if rate is None else np.append(rate, np.full(len(group), np.nan)),
            clusters=None,
        )
        return both if known is None else both.with_clusters(known.threshold)

    def _generations_of(self, positions: np.ndarray) -> Generations | None:
        """Return what is known of the generations among some candidates."""
        if self.generations is None:
            return None
        drawn = self._drawn
        mine = np.cumsum(drawn)[positions[drawn[positions]]] - 1
        return (
            replace(self.generations, tokens=self.generations.tokens[mine]) if len(mine) else None
        )

    def with_own_tokens(
        self, tokens: Shaped[Tensor, "image token *rest"], rows: slice
    ) -> tuple[Shaped[Tensor, "image token *rest"], Bool[Tensor, " image"]]:
        """Put the tokens of generated candidates, as they were drawn, in place of encoded ones.

        Args:
            tokens: what the tokenizer makes of some candidates.
            rows: places of these candidates.

        Returns:
            the tokens, and which of them are those drawn.
        """
        mine = np.zeros(len(self), bool) if self.generations is None else self._drawn
        own = torch.from_numpy(mine[rows].copy()).to(tokens.device)
        if self.generations is None or not own.any():
            return tokens, own
        before = int(mine[: rows.start].sum())
        drawn = self.generations.tokens[before : before + int(own.sum())].to(tokens)
        return tokens.clone().masked_scatter_(_as_wide(own, tokens), drawn), own

    @property
    def _drawn(self) -> Bool[np.ndarray, " candidate"]:
        return np.array([role == "generated" for role in self.role])


def _as_wide(
    chosen: Bool[Tensor, " image"], tokens: Shaped[Tensor, "image token *rest"]
) -> Bool[Tensor, "image ..."]:
    return chosen.view(-1, *[1] * (tokens.ndim - 1)).expand_as(tokens)


def refuse_continuous(tokens: Shaped[Tensor, "image token *rest"], what: str) -> None:
    """Refuse tokens that are no numbers of a vocabulary or bits.

    Args:
        tokens: tokens of some images.
        what: what was to be done with them, for the message.

    Raises:
        InputError: they are floating-point.
    """
    if tokens.is_floating_point():
        kind = str(tokens.dtype).removeprefix("torch.")
        raise InputError(
            f"continuous tokens ({kind}) cannot be {what}: no two of them are the same; such a "
            "model can be localized, and its neurons can be edited"
        )


def centre_views(
    images: Images, views: Augmentation, rows: slice
) -> Float[Tensor, "image 3 height width"]:
    """Return the centre views of some images, or the one that is taken, RGB in [0, 1]."""
    ids = images.ids.tolist()
    return torch.stack(
        [views.still(images.load(i), image=ids[i]) for i in range(rows.start, rows.stop)]
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


def check_tokens(candidates: Candidates, tokens: Shaped[Tensor, "candidate token *rest"]) -> None:
    """Refuse tokens that are not those of the candidates, or have no likelihood.

    Raises:
        InputError: saying what was given.
    """
    check_kind("the candidates", candidates, Candidates, "Candidates")
    refuse_continuous(tokens, "predicted with a likelihood")
    if len(tokens) != len(candidates):
        raise InputError(
            f"the tokens of {len(tokens)} images were given for {len(candidates)} candidates; "
            "take those of make_targets for these candidates"
        )
