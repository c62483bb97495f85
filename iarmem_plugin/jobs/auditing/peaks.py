"""Which neurons peak on a picture, and whose else they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float, Int64

from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.report.auditing.findings import Peak

if TYPE_CHECKING:
    from rich.progress import Progress

NEURONS = ("block", "scale", "neuron")
SHOWN, VIEWS = 3, 2  # neurons a picture; augmented passes

Best = tuple[Float[np.ndarray, "best *neurons"], Int64[np.ndarray, "best *neurons"]]


class RunnerUp(Metric):
    """The second largest activation of each neuron, and whose it is as ``top_image``.

    Ties go to the smaller image id. Of a single image the score is NaN, and not valid.
    """

    name = "runner-up"
    blockwise = True

    def __init__(self) -> None:
        self._axes: dict[str, xr.DataArray] = {}
        self._best: Best | None = None

    def update(self, activations: xr.DataArray) -> None:
        """Take a batch of finished images, dims (block, scale, neuron, image)."""
        given = activations.transpose("image", *NEURONS)
        self._axes = {dim: activations[dim] for dim in NEURONS}
        ids = given["image"].to_numpy().astype(np.int64)
        values = given.to_numpy()
        self._keep(values, np.broadcast_to(ids[:, None, None, None], values.shape))

    def state(self) -> xr.Dataset:
        """Return the two largest activations, and whose they are."""
        if self._best is None:
            return xr.Dataset()
        values, images = self._best
        dims = ("best", *NEURONS)
        return xr.Dataset({"values": (dims, values), "images": (dims, images)}, self._axes)

    def merge(self, state: xr.Dataset) -> None:
        """Add another run's state."""
        if "values" in state:
            self._axes = {dim: state[dim] for dim in NEURONS}
            self._keep(state["values"].to_numpy(), state["images"].to_numpy())

    def compute(self) -> xr.DataArray:
        """Return the second largest activation.

        Raises:
            InputError: there was no image.
        """
        if self._best is None:
            raise InputError("there was no image; call update with one batch or more")
        values, images = self._best
        known = np.isfinite(values[1])
        coords = self._axes | {"valid": (NEURONS, known), "top_image": (NEURONS, images[1])}
        return xr.DataArray(np.where(known, values[1], np.nan), coords, NEURONS, name="score")

    def _keep(self, values: np.ndarray, images: np.ndarray) -> None:
        if self._best is None:
            self._best = (
                np.full((2, *values.shape[1:]), -np.inf, np.float32),
                np.full((2, *values.shape[1:]), -1, np.int64),
            )
        every = np.concatenate((self._best[0], values))
        owners = np.concatenate((self._best[1], images))
        order = np.lexsort((owners, -every), axis=0)[:2]
        self._best = (
            np.take_along_axis(every, order, 0).astype(np.float32),
            np.take_along_axis(owners, order, 0),
        )


def peaks(
    model: ImageARModel,
    images: Images,
    mine: int,
    *,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> list[tuple[Peak, ...]]:
    """Return of each picture the neurons that peak on it and have the highest UnitMem.

    A neuron counts once, at the scale at which the picture stands out most.

    Args:
        model: the unmodified model.
        images: the audited pictures, and then others that were never seen.
        mine: how many are audited.
        seed: seed for drawing the views.
        batch_size: images in one pass.
        progress: shows a bar.
    """
    if len(images) < 2:
        return [()] * mine
    options = CaptureOptions(views=_views(model, images, seed), batch_size=batch_size, seed=seed)
    found = localize(
        model, images, metric=("unitmem", RunnerUp()), options=options, progress=progress
    )
    first, second = (one["score"].transpose(*NEURONS) for one in found.values())
    names = found["unitmem"].coords.get("scale_name", found["unitmem"]["scale"])
    scales = names.values.astype(str).tolist()
    place = {int(one): number for number, one in enumerate(images.ids.tolist())}
    top, next_best = (one["top_image"].to_numpy() for one in (first, second))
    scores = np.where(first["valid"], first.to_numpy(), -np.inf)

    def peak(block: int, scale: int, neuron: int) -> Peak:
        other = place[int(next_best[block, scale, neuron])]
        told = (images.paths[other], other >= mine)
        return Peak(block, scales[scale], neuron, float(scores[block, scale, neuron]), *told)

    return [
        tuple(peak(*cell) for cell in _highest(np.where(top == image, scores, -np.inf)))
        for image in images.ids[:mine].tolist()
    ]


def _views(model: ImageARModel, images: Images, seed: int) -> int:
    """Return 2, or 1 where two views of a picture cannot be drawn, or of none differ."""
    draw, differ = model.adapter.variant.views.draw_pixels, False
    try:
        for place, image in enumerate(images.ids.tolist()):
            one, *others = draw(images.load(place), image=image, count=VIEWS, seed=seed)
            differ = differ or any((one != other).any() for other in others)
    except InputError:
        return 1
    return VIEWS if differ else 1


def _highest(scores: Float[np.ndarray, "block scale neuron"]) -> list[tuple[int, int, int]]:
    """Return the cells of the neurons with the highest scores, each neuron once."""
    best = scores.max(axis=1)
    order = np.argsort(-best, axis=None, kind="stable")[:SHOWN]
    blocks, neurons = (axis.tolist() for axis in np.unravel_index(order, best.shape))
    return [
        (block, int(scores[block, :, neuron].argmax()), neuron)
        for block, neuron in zip(blocks, neurons, strict=True)
        if np.isfinite(best[block, neuron])
    ]
