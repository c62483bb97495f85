"""What an edit costs: how well images that were never shown are still predicted.

Losses are those of a quality measure such as `HeldOutLoss`, image by image, so that arms can be
compared on the same images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin.checks import check_kind
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import (
    Candidates,
    Completes,
    centre_views,
    check_finite,
    refuse_broken,
    refuse_continuous,
)
from iarmem_plugin.evaluation.counts import ORIGINAL, groups
from iarmem_plugin.interfaces import Condition, LossQuality, Prediction
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.plugins.blame import author, blamed
from iarmem_plugin.text import shown

T = TypeVar("T")
LOSS, PLAIN, TEMPERATURE = "loss", "plain_loss", "temperature"
RESAMPLES = 2000
LARGEST_DRAW = 10_000_000  # losses that are drawn at once


@dataclass(frozen=True, slots=True, repr=False)
class LossProtocol:
    """How the loss of every arm is measured: the same images, the temperature fitted anew.

    Attributes:
        quality: the measure.
        images: what each arm's temperature is fitted on; not reported.
        tokens: their tokens, from the unmodified model.
        batching: images at a time; what fitted in one arm is kept for the next.
    """

    quality: LossQuality
    images: Images
    tokens: Tensor
    batching: Batching = field(default_factory=lambda: Batching(64))

    def __repr__(self) -> str:
        """Return the measure with the number of images."""
        return f"LossProtocol({self.quality!r}, {len(self.images)} images)"

    def measured(
        self, model: Completes, extraction: xr.Dataset, candidates: Candidates, tokens: Tensor
    ) -> xr.Dataset:
        """Return an extraction with the losses of its candidates.

        Args:
            model: the traced model, edited or not.
            extraction: from `extract`.
            candidates: the same images.
            tokens: their tokens, see `Targets`.

        Returns:
            the extraction with ``loss`` and ``plain_loss`` (candidate), float64, nats a token, at
            the fitted ``temperature``, a scalar, and at 1.

        Raises:
            NonFiniteLogitsError: naming the first image whose logits are not finite.
            PluginError: the measure returns something else.
        """
        with model.borrowed():
            temperature = self._fitted(model)
            fitted, plain = self._losses(model, candidates.images, tokens, temperature)
        for values in (fitted, plain):
            check_finite(values, candidates.images, f"{self.quality.name!r}")
        return extraction.assign(
            {
                LOSS: ("candidate", fitted),
                PLAIN: ("candidate", plain),
                TEMPERATURE: ((), temperature),
            }
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """Return what the losses depend on, beside model and candidates."""
        ids = hashlib.sha256(self.images.ids.astype("<i8").tobytes()).hexdigest()
        seen = {"images": len(self.images), "ids_sha256": ids, "images_sha256": self.images.digest}
        return {**self.quality.provenance, "fitted on": seen}

    def _fitted(self, model: Completes) -> float:
        predictions = self._over(model, self.images, self.tokens, lambda one: one)
        with blamed(self.quality):
            temperature = self.quality.fit(predictions)
        if not _is_temperature(temperature):
            raise PluginError(
                f"{author(self.quality)} fitted the temperature {shown(repr(temperature), 60)}; "
                "expected a finite number above 0"
            )
        return float(temperature)

    def _losses(
        self, model: Completes, images: Images, tokens: Tensor, temperature: float
    ) -> Iterator[np.ndarray]:
        def both(one: Prediction) -> tuple[np.ndarray, np.ndarray]:
            # a measure may write into what it is given
            first = Prediction(one.logits.clone(), one.tokens.clone())
            return self._checked(first, temperature), self._checked(one, 1.0)

        return map(np.concatenate, zip(*self._over(model, images, tokens, both), strict=True))

    def _checked(self, one: Prediction, temperature: float) -> np.ndarray:
        with blamed(self.quality):
            values = self.quality.losses(one, temperature)
        fits = isinstance(values, np.ndarray) and values.dtype.kind == "f"
        if not fits or values.shape != (len(one.tokens),):
            raise PluginError(
                f"{author(self.quality)} returned no array with one loss for each of "
                f"{len(one.tokens)} images"
            )
        return values.astype(np.float64)

    def _over(
        self, model: Completes, images: Images, tokens: Tensor, work: Callable[[Prediction], T]
    ) -> Iterator[T]:
        """Yield what some work makes of what a model predicts, batch by batch."""

        def predict(rows: slice) -> T:
            given = tokens[rows].to(model.device, copy=True)
            told = Condition.of_images(images, rows).to(model.device)
            logits = model.logits(given, told).detach()
            refuse_broken(logits, images.paths[rows])
            return work(Prediction(logits, given))

        return self.batching.over(len(images), predict)


def mean_losses(
    model: Completes, images: Images, views: Augmentation, rows: slice
) -> Float[Tensor, " image"]:
    """Return the teacher-forced NLL of some images, nats a token; where asked for, with gradients.

    Args:
        model: the traced model, borrowed.
        images: the images.
        views: the augmentation the model was trained with; its centre view is taken.
        rows: places of those that are meant.

    Raises:
        InputError: tokens that are no numbers of a vocabulary.
        NonFiniteLogitsError: naming the first image whose logits are not finite.
    """
    tokens = model.tokenize(centre_views(images, views, rows).to(model.device))
    refuse_continuous(tokens, "predicted with a likelihood")
    logits = model.logits(tokens, Condition.of_images(images, rows).to(model.device))
    refuse_broken(logits.detach(), images.paths[rows])
    flat = logits.flatten(0, 1).float()
    likely = torch.nn.functional.cross_entropy(flat, tokens.flatten().long(), reduction="none")
    return likely.view(tokens.shape).mean(dim=1)


def loss_protocol(
    model: Completes,
    quality: LossQuality,
    images: Images,
    views: Augmentation,
    *,
    tokens: Tensor | None = None,
    batch_size: int = 64,
) -> LossProtocol:
    """Tokenize, once, by the unmodified model, the images that each arm's temperature is fitted on.

    Args:
        model: the unmodified model.
        quality: the measure, such as `HeldOutLoss`.
        images: images that the model was not trained on, and that are not reported.
        views: the augmentation the model was trained with; its centre view is taken.
        tokens: the images' tokens where they are known, by the same tokenizer.
        batch_size: images at a time; halved where memory does not suffice.

    Raises:
        InputError: there are no images, or their tokens are no numbers of a vocabulary.
        PluginError: the measure, which is tried on two of the images, returns something else.
    """
    check_kind("the quality", quality, LossQuality, "a LossQuality, such as HeldOutLoss()")
    batching = Batching(batch_size)

    def read(rows: slice) -> Tensor:
        if tokens is not None:
            return tokens[rows]
        found = model.tokenize(centre_views(images, views, rows).to(model.device))
        refuse_continuous(found, "predicted with a likelihood")
        return found.cpu()

    with model.borrowed():
        first = read(slice(0, min(2, len(images))))
        if first.ndim != 2:
            raise InputError(
                f"{quality.name} needs tokens that are numbers of a vocabulary; those of "
                f"{model.layout.family} have the shape {tuple(first.shape[2:])} each"
            )
        few = LossProtocol(quality, images.subset(range(len(first))), first, batching)
        few._losses(model, few.images, first, few._fitted(model))
        every = torch.cat(list(batching.over(len(images), read)))
    return LossProtocol(quality, images, every, batching)


def _is_temperature(value: object) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]  # a number


def count_losses(extraction: xr.Dataset) -> xr.Dataset:
    """Return what each arm costs: mean losses by group, and their change against the original.

    Args:
        extraction: with the dim (arm), and ``loss`` and ``plain_loss`` as `LossProtocol` adds them.

    Returns:
        dims (arm, group), nats a token: ``loss`` and ``plain_loss``; ``change`` and
        ``plain_change`` against the arm "original"; ``low`` and ``high``, the ends of ``change``'s
        95% interval (percentiles of 2 000 paired bootstrap samples of the group's images, seed 0;
        NaN for a single image).
    """
    names, found = groups(extraction), []
    losses = extraction[[LOSS, PLAIN]].reset_coords(drop=True)
    for name in names:
        mine = losses.isel(candidate=extraction["group"].values.astype(str) == name)
        change = mine - mine.sel(arm=ORIGINAL, drop=True)
        low, high = mean_intervals(change[LOSS].transpose("arm", "candidate").values)
        means = mine.mean("candidate").assign(
            change=change[LOSS].mean("candidate"),
            plain_change=change[PLAIN].mean("candidate"),
            low=("arm", low),
            high=("arm", high),
        )
        found.append(means)
    return xr.concat(found, xr.DataArray(list(names), dims="group", name="group"))


def mean_intervals(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% interval of the mean of each row, dims (arm, candidate).

    Returns:
        lower and upper ends, dims (arm): percentiles of 2 000 bootstrap samples of the candidates,
        seed 0; NaN for a single candidate.
    """
    from scipy.stats import bootstrap

    if change.shape[1] < 2:
        nothing = np.full(len(change), np.nan)
        return nothing, nothing
    found = bootstrap(
        (change,),
        np.mean,
        axis=-1,
        method="percentile",
        n_resamples=RESAMPLES,
        batch=max(1, LARGEST_DRAW // change.size),
        rng=0,
    )
    return found.confidence_interval.low, found.confidence_interval.high
