"""A model whose logits bear noise, and how much noise costs so many nats a token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates, Completes
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import LOSS, LossProtocol, loss_protocol
from iarmem_plugin.interfaces import Adapter, Condition, EditData, ModelLayout, Sampling
from iarmem_plugin.interfaces.prediction import hits_and_likelihoods
from iarmem_plugin.models.sampling import Draws, with_noise
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import author

DRAWS = 16
LOUD, MOST = 1e6, 1024.0  # standard deviations: one that drowns any logits, and the largest tried


class NoisyModel:
    """A model that completes from noisy logits, and predicts the mean probability over 16 draws.

    Noise depends on the seed and on an image's global id, and so on no other image.

    Args:
        model: the model; it stays as it is.
        std: standard deviation of the noise.
        seed: seed for drawing it.
    """

    def __init__(self, model: ImageARModel, std: float, seed: int) -> None:
        self._model, self._seed, self.std = model, seed, float(std)

    @property
    def adapter(self) -> Adapter:
        """The model's adapter, of which only what is called here bears noise."""
        return self._model.adapter

    @property
    def layout(self) -> ModelLayout:
        """Where the model's neurons and scales are."""
        return self._model.layout

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self._model.device
        return device

    @contextmanager
    def borrowed(self) -> Iterator[NoisyModel]:
        """Put the model in evaluation mode without gradients, and back as it was."""
        with self._model.borrowed():
            yield self

    def tokenize(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Shaped[Tensor, "image token *rest"]:
        """Turn RGB images in [0, 1] into tokens."""
        return self._model.tokenize(images)

    def decode(
        self, tokens: Shaped[Tensor, "image token *rest"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]."""
        return self._model.decode(tokens)

    def no_tokens(self, images: int) -> Shaped[Tensor, "image 0 *rest"]:
        """Return the empty prefix of so many images."""
        return self._model.no_tokens(images)

    def complete(
        self,
        prefix: Shaped[Tensor, "image prefix *rest"],
        condition: Condition,
        sampling: Sampling,
    ) -> Shaped[Tensor, "image token *rest"]:
        """Complete a token prefix from noisy logits; drawn tokens keep their own seeds."""
        seeds = self._seeds(condition, 0) if sampling.greedy else sampling.seed
        noisy = replace(sampling, logit_noise=self.std, seed=seeds)
        return self._model.complete(prefix, condition, noisy)

    def logits(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> Float[Tensor, "image token vocab"]:
        """Return the logarithm of the mean probability over 16 draws of the noise."""
        logits, seeds = self._model.logits(tokens, condition), self._seeds(condition, 1)
        noisy = Sampling(logit_noise=self.std)
        means = [
            _mean(one[None].float(), noisy, Draws([seed], logits.device))
            for one, seed in zip(logits, seeds, strict=True)
        ]
        return torch.cat(means)

    def predicted(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> tuple[Bool[Tensor, "image token"], Float[Tensor, "image token"]]:
        """Tell of each token whether it is predicted so, and its log-likelihood."""
        return hits_and_likelihoods(self.logits(tokens, condition), tokens)

    def _seeds(self, condition: Condition, use: int) -> tuple[int, ...]:
        """Return a seed for each image: one to complete it (0), another to predict it (1)."""
        mixed = (np.random.SeedSequence((self._seed, one)) for one in condition.image.tolist())
        return tuple(int(one.generate_state(2)[use]) for one in mixed)


def _mean(
    logits: Float[Tensor, "1 token vocab"], noisy: Sampling, draws: Draws
) -> Float[Tensor, "1 token vocab"]:
    """Return the logarithm of the mean probability over draws of the noise."""
    total: Tensor = with_noise(logits, noisy, draws).log_softmax(2)
    for _ in range(DRAWS - 1):
        total = torch.logaddexp(total, with_noise(logits, noisy, draws).log_softmax(2))
    return total - math.log(DRAWS)


def std_for(model: ImageARModel, calibration: Images, change: float, seed: int) -> float:
    """Return the standard deviation of the noise that costs so much, found by bisection (Brent's).

    Losses are read as a report reads them: each at the temperature that fits it best.

    Args:
        model: the unmodified model.
        calibration: images that it was not trained on.
        change: by how much their mean loss is to rise, nats a token.
        seed: seed for drawing the noise, the same at each deviation.

    Raises:
        InputError: no noise costs so much.
    """
    from scipy.optimize import brentq

    protocol = loss_protocol(model, HeldOutLoss(), calibration, model.adapter.variant.views)
    before = _loss(model, protocol)

    def excess(std: float) -> float:
        return _loss(NoisyModel(model, std, seed), protocol) - before - change

    most = 1.0
    while excess(most) < 0:
        most *= 2
        if most > MOST:
            raise InputError(
                f"no noise raises the loss of these images by {change:g} nats a token; ask for less"
            )
    return float(brentq(excess, 0.0, most, xtol=1e-3 * most))


def _loss(model: Completes, protocol: LossProtocol) -> float:
    images = Candidates(protocol.images, np.full(len(protocol.images), "held-out"))
    return float(protocol.measured(model, xr.Dataset(), images, protocol.tokens)[LOSS].mean())


def check_heard(model: ImageARModel, data: EditData) -> None:
    """Refuse a model whose adapter takes no notice of noise on logits.

    Args:
        model: the model.
        data: images that it can be told of, the first of which is generated thrice; without any,
            nothing is known.

    Raises:
        PluginError: naming the adapter.
    """
    given = (data.candidates, data.calibration, data.retained)
    images = next((one for one in given if one is not None), None)
    if images is None:
        return
    told = Condition.of_images(images, np.arange(1)).to(model.device)
    with model.borrowed():
        nothing = model.no_tokens(1)
        made = {
            str(model.complete(nothing, told, Sampling(logit_noise=LOUD, seed=(seed,))).tolist())
            for seed in range(3)
        }
    if len(made) == 1:
        raise PluginError(
            f"{author(model.adapter)} takes no notice of Sampling.logit_noise, so completions "
            "would bear no noise; choose tokens by iarmem_plugin.models.sampling.choose"
        )
