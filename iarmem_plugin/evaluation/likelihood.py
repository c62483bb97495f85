"""How well images are predicted: the mean negative log-likelihood at a fitted temperature.

Damage that sharpens the logits lowers the plain loss of an overconfident model, so each arm's loss
is read at the one logit temperature that fits it best, on images that are not reported.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import LossQuality, Prediction
from iarmem_plugin.plugins.hookspecs import hookimpl

TEMPERATURES = np.geomspace(0.25, 8, 16)
OCTAVE = 3  # each temperature is twice the one three places before it


class HeldOutLoss(LossQuality):
    """Mean negative log-likelihood of the true tokens, nats a token, at a fitted temperature.

    The temperature is where a cubic spline through the mean loss at sixteen temperatures from 0.25
    to 8, evenly spaced in their logarithm, is lowest: one pass over the images, whatever the size
    of the vocabulary. A model without any knowledge has no such temperature; it gets the highest.

    Reference:
        Guo et al. 2017, arXiv 1706.04599 (temperature scaling).
    """

    name = "held-out-loss"

    @property
    def provenance(self) -> dict[str, str | int | float | None]:
        """Return the range of temperatures."""
        low, high = TEMPERATURES[[0, -1]].tolist()
        return {"name": self.name, "temperatures": f"{low:g} to {high:g}"}

    def fit(self, predictions: Iterable[Prediction]) -> float:
        """Return the temperature at which the mean loss of some images is lowest."""
        from scipy.interpolate import CubicSpline
        from scipy.optimize import minimize_scalar

        total, images = np.zeros(len(TEMPERATURES)), 0
        for one in predictions:
            total += _curve(one)
            images += len(one.tokens)
        if not np.isfinite(total).all():
            raise InputError(
                "the loss of some images is infinite: the model gives their true tokens no "
                "probability at all"
            )
        places = np.log(TEMPERATURES)
        curve = CubicSpline(places, total / max(images, 1))
        found = minimize_scalar(
            curve, bounds=places[[0, -1]], method="bounded", options={"xatol": 1e-8}
        )
        return float(np.exp(found.x))

    def losses(self, prediction: Prediction, temperature: float) -> Float64[np.ndarray, " image"]:
        """Return each image's mean loss over its tokens."""
        return _losses(prediction, np.array([temperature]))[:, 0]


def _losses(
    prediction: Prediction, temperatures: np.ndarray
) -> Float64[np.ndarray, "image temperature"]:
    """Return the mean loss at each temperature, one image at a time, so that it takes no memory."""
    found = np.empty((len(prediction.tokens), len(temperatures)))
    for image, (row, truth) in enumerate(
        zip(prediction.logits, prediction.tokens.long(), strict=True)
    ):
        wide = row.float()
        right = wide.gather(1, truth.unsqueeze(1))
        for place, temperature in enumerate(temperatures.tolist()):
            apart = (wide / temperature).logsumexp(1, keepdim=True) - right / temperature
            found[image, place] = float(apart.double().mean())
    return found


def _curve(prediction: Prediction) -> Float64[np.ndarray, " temperature"]:
    """Return the loss at all `TEMPERATURES`, summed over the images.

    Where a temperature is half another one, its exponentials are the squares of the other's: three
    are computed in place of sixteen.
    """
    found = np.zeros(len(TEMPERATURES))
    for row, truth in zip(prediction.logits, prediction.tokens.long(), strict=True):
        wide = row.float()
        largest = wide.amax(1, keepdim=True)
        apart = (largest - wide.gather(1, truth.unsqueeze(1))).double().mean()
        below = wide - largest
        for first in range(OCTAVE):
            shares = below / TEMPERATURES[-1 - first]
            shares.exp_()
            for place in range(len(TEMPERATURES) - 1 - first, -1, -OCTAVE):
                total = shares.sum(1).log_().double().mean()
                found[place] += float(total + apart / TEMPERATURES[place])
                shares.square_()
    return found


@hookimpl
def provide_qualities() -> Iterable[type[LossQuality]]:
    """Provide the measure of predictions that comes with iarmem."""
    return (HeldOutLoss,)
