"""Extract training images: rank candidates, complete their prefixes, compare with the targets.

This is *discoverable* extraction: the attacker holds the images and gives the model the first
tokens of each. A count is a lower bound on what was memorized of the candidates inspected, not
the number of images an outsider could obtain.

Reference:
    Kowalczuk et al. 2025, arXiv 2502.02514 (the attack); arXiv 2509.00488, section 3.3 (its use).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from rich.progress import Progress
from torch import Tensor

from iarmem_plugin.checks import check_integer, check_kind, check_number
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import (
    Candidates,
    Completes,
    centre_views,
    check_finite,
    check_pixels,
    images_named,
    refuse_continuous,
)
from iarmem_plugin.evaluation.generation import seeded
from iarmem_plugin.evaluation.losses import LossProtocol
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.evaluation.recognition import Recognition, agreement, check_recognition
from iarmem_plugin.evaluation.statistics import smallest_threshold
from iarmem_plugin.interfaces import Completion, Condition, Sampling, Similarity
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.plugins.blame import author, blamed

__all__ = [
    "GREEDY",
    "Candidates",
    "Completes",
    "Targets",
    "calibrate",
    "extract",
    "make_targets",
    "rank_candidates",
]

TOKEN_DIMS = ("candidate", "token", "bit", "part")
GREEDY = Sampling()  # the attack's: the likeliest token, no guidance


@dataclass(frozen=True, slots=True, repr=False)
class Targets:
    """What completions are compared with, on the CPU.

    Attributes:
        tokens: ground-truth tokens of each candidate.
        images: RGB in [0, 1]; float32.
        reference: ``"reconstruction"`` if the images were decoded from the tokens, which removes
            the tokenizer's loss from the comparison; ``"original"`` if they are the pictures.
        made_for: hash over the ids, paths and labels of the candidates; empty where not known.
    """

    tokens: Shaped[Tensor, "candidate token *rest"]
    images: Float[Tensor, "candidate 3 height width"]
    reference: Literal["reconstruction", "original"]
    made_for: str = ""

    def __repr__(self) -> str:
        """Return numbers in place of values."""
        count, tokens = self.tokens.shape[:2]
        return f"Targets({count} of {tokens} tokens, {self.reference!r})"

    def at(self, rows: slice, device: torch.device) -> Completion:
        """Return some of them, on a device."""
        return Completion(self.images[rows].to(device), self.tokens[rows].to(device))

    def subset(self, positions: np.ndarray, candidates: Candidates) -> Targets:
        """Return those of some candidates.

        Args:
            positions: places of the candidates.
            candidates: these alone.
        """
        made_for = self.made_for and candidates.identity
        return Targets(self.tokens[positions], self.images[positions], self.reference, made_for)


def make_targets(
    model: Completes,
    candidates: Candidates,
    views: Augmentation,
    *,
    batch_size: int | Batching = 64,
    reference: Literal["reconstruction", "original"] = "reconstruction",
    tokens: Shaped[Tensor, "candidate token *rest"] | None = None,
    progress: Progress | None = None,
) -> Targets:
    """Tokenize the centre view of every candidate; make this once, from the unmodified model.

    Candidates that the model generated keep the tokens that were drawn, which the tokenizer would
    not give back, and are compared with what it decodes them to.

    Args:
        model: its tokenizer is used.
        candidates: the images.
        views: the augmentation the model was trained with; its centre view is taken.
        batch_size: images at a time; halved where memory does not suffice.
        reference: compare with the decoded tokens (the attack's) or with the picture itself.
        tokens: those of all candidates where they are known, by the same tokenizer.
        progress: shows a bar where given.

    Raises:
        InputError: without candidates.
        NonFiniteSimilarityError: where a decoded image is not finite.
    """

    known = tokens

    def read(rows: slice) -> tuple[Tensor, Tensor]:
        originals = centre_views(candidates.images, views, rows).to(model.device)
        batch = model.tokenize(originals) if known is None else known[rows].to(model.device)
        refuse_continuous(batch, "completed and compared one by one")
        batch, own = candidates.with_own_tokens(batch, rows)
        image = originals
        if reference == "reconstruction":
            image = model.decode(batch)
        elif own.any():  # the view is one of the picture that was decoded
            image = torch.where(own.view(-1, 1, 1, 1), model.decode(batch), originals)
        check_pixels(image, candidates.images.paths[rows])
        return batch.cpu(), image.float().cpu()

    with model.borrowed():
        parts = Batching.of(batch_size).over(
            len(candidates), read, progress=progress, description="reading targets"
        )
        tokens, images = (torch.cat(part) for part in zip(*parts, strict=True))
    return Targets(tokens, images, reference, candidates.identity)


def extract(
    model: Completes,
    candidates: Candidates,
    targets: Targets,
    *,
    similarity: Similarity,
    prefix_tokens: int,
    recognition: Recognition | None = None,
    losses: LossProtocol | None = None,
    sampling: Sampling = GREEDY,
    batch_size: int | Batching = 64,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Complete each candidate from the first tokens of its target, and compare the two.

    Args:
        model: the traced model, edited or not.
        candidates: images with their labels and groups.
        targets: from `make_targets`, for these candidates.
        similarity: a candidate is extracted strictly above its threshold.
        prefix_tokens: how many true tokens are given; whole scales for VAR.
        recognition: when a completion is recognisable; None does not judge it.
        losses: how well candidates are predicted, see `LossProtocol`; None leaves it out.
        sampling: by default the attack's; draws depend on the seed and a candidate's place alone.
        batch_size: images at a time; halved where memory does not suffice.
        progress: shows a bar.

    Returns:
        dims (candidate, token): ``similarity`` float32, ``equal_tokens`` int32 (with the prefix),
        ``agreement`` float64 (without), ``extracted`` and ``recognisable`` bool, ``tokens`` int32
        (if they fit), losses; ids and groups as coordinates, settings as attributes.

    Raises:
        InputError: targets or prefix do not fit, or `recognition` was fixed with another prefix.
        PluginError: the measure returns something else than a number an image.
        NonFiniteSimilarityError: a similarity, a logit or a decoded image is NaN or infinite.
    """
    _check_attack(candidates, targets, similarity, prefix_tokens, recognition)
    batching, bar = Batching.of(batch_size), "completing prefixes"

    def tried(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        target, names = targets.at(rows, model.device), candidates.images.paths[rows]
        told = Condition.of_images(candidates.images, rows).to(model.device)
        given = target.tokens[:, :prefix_tokens]
        with images_named(names):
            tokens = model.complete(given, told, seeded(sampling, rows))
        completion = Completion(model.decode(tokens), tokens)
        closeness = compared(similarity, completion, target, names).float()
        return closeness.cpu().numpy(), tokens.cpu().numpy()

    with model.borrowed():
        parts = batching.over(len(candidates), tried, progress=progress, description=bar)
        values, tokens = (np.concatenate(part) for part in zip(*parts, strict=True))
    check_finite(values, candidates.images, f"similarity {similarity.name!r}")
    about: dict[str, Any] = {"prefix_tokens": prefix_tokens, "reference": targets.reference}
    about |= {"sampling": json.dumps(asdict(sampling)), "batch_size": batching.size}
    found = _result(candidates, targets, values, tokens).assign_attrs(about)
    found = _judged(found, similarity, recognition)
    return found if losses is None else losses.measured(model, found, candidates, targets.tokens)


def calibrate(
    similarity: Similarity,
    values: Sequence[float] | np.ndarray,
    *,
    rate: float = 0.01,
    source: str,
) -> float:
    """Set the smallest threshold at which at most this share of known non-members is extracted.

    Do this once, on the unmodified model, with pictures that are not reported. Of n values,
    floor(rate * n) may lie strictly above.

    Args:
        similarity: its ``threshold`` and ``threshold_source`` are set.
        values: similarities of completions of non-members, such as half of the held-out pictures.
        rate: share that may count as extracted, in [0, 1).
        source: where the values come from, for the report.

    Returns:
        the threshold, which is one of the values.

    Raises:
        InputError: without values, with values that are not finite, or with another rate.

    Example:
        With 200 values and the rate 0.01, the third largest is the threshold.
    """
    found = smallest_threshold(similarity.name, values, rate)
    similarity.threshold = found.value
    similarity.threshold_source = (
        f"{source}: at most {100 * rate:g}% of n={np.size(values)} extracted; {found}"
    )
    return similarity.threshold


def compared(
    similarity: Similarity, completion: Completion, target: Completion, names: Sequence[str]
) -> Float[Tensor, " image"]:
    """Return what a similarity says of each completion.

    Args:
        similarity: the measure.
        completion: images completed from a prefix.
        target: what they are compared with.
        names: names of the images.

    Raises:
        NonFiniteSimilarityError: where a decoded image is not finite.
        PluginError: the measure returns something else than a number an image.
    """
    check_pixels(completion.images, names)
    with blamed(similarity):
        closeness = similarity.compare(completion.copy(), target.copy())
    if not isinstance(closeness, Tensor) or closeness.is_complex():
        found = f"a {type(closeness).__name__}"
    elif closeness.shape != (len(names),):
        found = f"shape {tuple(closeness.shape)}"
    else:
        return closeness.float().clone()  # whatever the measure writes there later
    raise PluginError(
        f"{author(similarity)} returned {found} for {len(names)} images; expected a tensor with "
        "one number for each"
    )


def _result(
    candidates: Candidates, targets: Targets, similarity: np.ndarray, tokens: np.ndarray
) -> xr.Dataset:
    equal = tokens == targets.tokens.numpy()
    equal = equal.all(axis=tuple(range(2, equal.ndim)))  # a token of bits is equal in all of them
    return xr.Dataset(
        {
            "similarity": ("candidate", similarity),
            "equal_tokens": ("candidate", equal.sum(axis=1, dtype=np.int32)),
            "tokens": stored_tokens(tokens),
        },
        coords=candidate_coords(candidates),
    )


def candidate_coords(candidates: Candidates) -> dict[str, Any]:
    """Return what is known of each candidate, as coordinates with the dim (candidate)."""
    images, known = candidates.images, candidates.clusters
    found = {
        "image": ("candidate", np.asarray(images.ids)),
        "path": ("candidate", np.asarray(images.paths, dtype=np.str_)),
        "label": ("candidate", np.asarray(images.labels)),
        "group": ("candidate", candidates.group),
        "role": ("candidate", candidates.role),
    }
    return found if known is None else {**found, "cluster": ("candidate", known.number)}


def stored_tokens(tokens: Shaped[np.ndarray, "candidate token *rest"]) -> xr.Variable:
    """Return tokens as int32 where they are larger numbers that fit; others as they are."""
    large = tokens.size and tokens.max() > np.iinfo(np.int32).max
    kept = tokens if tokens.dtype != np.int64 or large else tokens.astype(np.int32)
    return xr.Variable(TOKEN_DIMS[: tokens.ndim], kept)


def _judged(
    result: xr.Dataset, similarity: Similarity, recognition: Recognition | None
) -> xr.Dataset:
    # float64: a threshold rounded to float32 would count differently when read from a file
    extracted = result["similarity"].astype(np.float64) > similarity.threshold
    found = result.assign(extracted=extracted).assign_attrs(
        similarity=similarity.name,
        threshold=float(similarity.threshold),
        threshold_source=similarity.threshold_source,
    )
    if found.attrs["prefix_tokens"] < found.sizes["token"]:  # else there is nothing to agree
        found = found.assign(agreement=agreement(found).reset_coords(drop=True))
    return found if recognition is None else recognition.judged(found)


def _check_threshold(similarity: Similarity) -> None:
    check_kind("the similarity", similarity, Similarity, "a similarity measure")
    threshold = getattr(similarity, "threshold", None)
    source = getattr(similarity, "threshold_source", None)
    check_number(f"the threshold of {similarity.name!r}", threshold)
    check_kind(f"the threshold_source of {similarity.name!r}", source, str, "a text")


def _check_attack(
    candidates: Candidates,
    targets: Targets,
    similarity: Similarity,
    prefix_tokens: int,
    recognition: Recognition | None,
) -> None:
    check_recognition(recognition)
    if recognition is not None:
        recognition.check_prefix(prefix_tokens)
    check_kind("the candidates", candidates, Candidates, "Candidates")
    check_kind("the targets", targets, Targets, "what make_targets returned")
    _check_threshold(similarity)
    check_integer("prefix_tokens", prefix_tokens)
    check_kind("the similarity", similarity, Similarity, "a similarity measure")
    _check_threshold(similarity)
    if len(targets.tokens) != len(candidates):
        raise InputError(
            f"{len(targets.tokens)} targets for {len(candidates)} candidates; "
            "make the targets of these candidates with make_targets"
        )
    if targets.made_for not in ("", candidates.identity):
        raise InputError(
            "the targets were made for other candidates, or for these in another order; make the "
            "targets of these candidates with make_targets"
        )
    if not 0 <= prefix_tokens <= targets.tokens.shape[1]:
        raise InputError(
            f"a prefix of {prefix_tokens} tokens; these images have {targets.tokens.shape[1]}"
        )
