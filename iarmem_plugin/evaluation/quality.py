"""What an intervention costs in image quality: FID by torch-fidelity, and KID over all pairs."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, UInt8

from iarmem_plugin.borrowing import generators_kept, uninterrupted
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.statistics import BLOCKS, MOST, kernel_distance
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision
from iarmem_plugin.interfaces import Quality, QualityValue
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

FID_LAYER = "2048"
INCEPTION = "Inception v3"
UINT8_RULE = "times 255, rounded"
_UNLOADABLE = (  # what torch.load raises on files that it did not write
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    pickle.UnpicklingError,
)


class TorchFidelity(Quality):
    """FID and KID between generated and reference images, in features the user names.

    Images in [0, 1] become 8 bit by multiplying by 255 and rounding, so that 8-bit pictures come
    back as they were in every precision; VAR's and RAR's samplers truncate. Features are computed
    in our own loop: torch-fidelity's cache, which knows neither the images nor the weights, is
    never used. FID is biased upwards for few images, so never compare values of different n; KID
    is not, and says how uncertain it is; of more than 20 000 images a side, it takes as many,
    evenly spaced.

    Args:
        extractor: a module that maps uint8 images [image, 3, height, width] to features
            [image, feature], such as any of torch-fidelity's with one layer, run where it is; or
            the path of torch-fidelity's Inception v3 weights.
        extractor_name: how labels call it, such as ``"emoji classifier"``; Inception's weights are
            called so by default.
        device: where Inception is put; ignored for a module.

    Raises:
        InputError: where the extractor or its weights cannot be used.

    Reference:
        Heusel et al. 2017 (FID); Binkowski et al. 2018 (KID).
    """

    name = "fid"
    minimum = BLOCKS

    def __init__(
        self,
        extractor: Callable[[Any], Any] | Path | str,
        extractor_name: str = "",
        *,
        device: str = "cpu",
    ) -> None:
        self.extractor_name = extractor_name or INCEPTION
        self.weights_sha256: str | None = None
        if isinstance(extractor, Path | str):
            extractor = Path(extractor)
            self.weights_sha256 = _digest(extractor)
            self.extractor_name += f" sha256 {self.weights_sha256[:12]}"
            extractor = _load_inception(extractor, device)
        elif not extractor_name:
            raise InputError("a feature extractor needs a name for labels; give extractor_name")
        self._extractor = _checked_module(extractor)
        self._batching = Batching(sys.maxsize)  # as many images as it is given, while they fit

    def __repr__(self) -> str:
        """Return what labels say of it."""
        return f"TorchFidelity({self.extractor_name!r})"

    @property
    def parameters(self) -> Mapping[str, str | int | None]:
        """Return the extractor, by name and digest."""
        return {"extractor": self.extractor_name}

    @property
    def provenance(self) -> Mapping[str, str | int | None]:
        """Return everything beside the images that the values depend on."""
        return {
            "tool": f"torch-fidelity {version('torch-fidelity')}",
            "extractor": self.extractor_name,
            "weights_sha256": self.weights_sha256,
            "uint8_rule": UINT8_RULE,
            "dtype": "features as the extractor returns them, statistics float64",
            "kid": f"all pairs of {MOST} images a side at most; error by {BLOCKS} blocks",
        }

    def measure(
        self,
        generated: Iterable[Float[Tensor, "_ 3 _ _"]],
        reference: Iterable[Float[Tensor, "_ 3 _ _"]],
        *,
        reference_name: str,
    ) -> list[QualityValue]:
        """Return FID and KID between batches of generated and of reference images.

        Where one reference serves several arms, compute its `features` once and use `compare`.

        Args:
            generated: batches, RGB in [0, 1].
            reference: batches, RGB in [0, 1].
            reference_name: how labels call the reference, such as ``"training pictures"``.

        Raises:
            InputError: with too few images, or images outside [0, 1].
        """
        return self.compare(
            self.features(generated), self.features(reference), reference_name=reference_name
        )

    def features(
        self, images: Iterable[Float[Tensor, "_ 3 _ _"]]
    ) -> Float64[np.ndarray, "image feature"]:
        """Return the features of all images, batch after batch.

        Args:
            images: batches, RGB in [0, 1].

        Raises:
            InputError: without images, with images outside [0, 1], or where the extractor returns
                no finite [image, feature].
        """
        import torch

        with _borrowed(self._extractor) as device, torch.no_grad():
            rows = [part for batch in images for part in self._parts(batch, device)]
        if not rows:
            raise InputError("no images were given; image quality needs at least two on each side")
        features = np.concatenate(rows)
        broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if broken.size:
            raise InputError(
                f"{self.extractor_name} returned values that are not finite for {broken.size} of "
                f"{len(features)} images, first for number {broken[0]}; check its weights"
            )
        return features

    def compare(
        self,
        generated: Float64[np.ndarray, "generated feature"],
        reference: Float64[np.ndarray, "reference feature"],
        *,
        reference_name: str,
    ) -> list[QualityValue]:
        """Return FID and KID between two sets of features.

        Args:
            generated: from `features`.
            reference: from `features`, by the same extractor.
            reference_name: how labels call the reference.

        Raises:
            InputError: with fewer images on a side than KID's jackknife has blocks.
        """
        for side, rows in (("generated", generated), ("reference", reference)):
            self._check_enough(side, len(rows))
        known = _statistics(reference)
        return self.compare_moments(
            *(generated, known["mu"], known["sigma"]),
            features=reference,
            images=len(reference),
            reference_name=reference_name,
        )

    def compare_moments(
        self,
        generated: Float64[np.ndarray, "generated feature"],
        mean: Float64[np.ndarray, " feature"],
        covariance: Float64[np.ndarray, "feature feature"],
        *,
        features: Float64[np.ndarray, "reference feature"] | None,
        images: int | None,
        reference_name: str,
    ) -> list[QualityValue]:
        """Return FID, which needs no more of a reference than its moments, and KID.

        Args:
            generated: from `features`.
            mean: of the reference's features.
            covariance: of the reference's features, n - 1.
            features: of the reference's images; KID takes 20 000 at most. Without them KID has no
                value, and its label says why.
            images: number of the reference's images; None where it is not recorded.
            reference_name: how labels call the reference.

        Raises:
            InputError: with fewer images on a side than KID's jackknife has blocks.
        """
        self._check_enough("generated", len(generated))
        size, n = "not recorded" if images is None else str(images), len(generated)
        protocol = f"{self.extractor_name}, reference {reference_name} n={size}, generated n={n}"
        known = {"mu": mean, "sigma": covariance}
        fid = QualityValue(f"FID ({protocol})", _frechet(_statistics(generated), known), n)
        if features is None:
            why = "left out: only mean and covariance of the reference are known"
            return [fid, QualityValue(f"KID ({protocol}, {why})", None, n)]
        self._check_enough("reference", len(features))
        kid, error = kernel_distance(generated, features)
        many = max(n, images or 0, len(features)) > MOST
        pairs = f"all pairs of {MOST} images a side at most" if many else "all pairs"
        kid_protocol = f"{protocol}, {pairs}, error by {BLOCKS} blocks"
        return [fid, QualityValue(f"KID ({kid_protocol})", kid, n, error)]

    def _check_enough(self, side: str, count: int) -> None:
        if count < BLOCKS:
            raise InputError(
                f"{count} {side} images are too few: KID's error leaves out each of {BLOCKS} "
                f"blocks of them; give {BLOCKS} images or more"
            )

    def _parts(
        self, batch: Float[Tensor, "image 3 height width"], device: torch.device
    ) -> Iterator[Float64[np.ndarray, "image feature"]]:
        """Yield the features of a batch, in as many parts as memory asks for."""
        pixels = to_uint8(batch)
        return self._batching.over(
            len(pixels), lambda rows: self._batch_features(pixels[rows].to(device))
        )

    def _batch_features(
        self, batch: UInt8[Tensor, "image 3 height width"]
    ) -> Float64[np.ndarray, "image feature"]:
        import torch

        features = self._extractor(batch)
        if isinstance(features, tuple) and len(features) == 1:  # as torch-fidelity's own return it
            features = features[0]
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            raise InputError(
                f"{self.extractor_name} does not return features [image, feature]; "
                "give a module that maps uint8 images to one row each"
            )
        if len(features) != len(batch):
            raise InputError(
                f"{self.extractor_name} returned {len(features)} rows for {len(batch)} images"
            )
        return features.double().cpu().numpy()


def to_uint8(
    images: Float[Tensor, "image 3 height width"],
) -> UInt8[Tensor, "image 3 height width"]:
    """Turn RGB images in [0, 1] into 8 bit: times 255, rounded.

    Raises:
        InputError: for values outside [0, 1] or not finite.
    """
    import torch

    if not ((images >= 0) & (images <= 1)).all():
        raise InputError(
            f"images have values from {images.min():g} to {images.max():g}; "
            "image quality needs RGB in [0, 1]"
        )
    return (images.float() * 255).round().to(torch.uint8)


def frechet_distance(
    generated: Float64[np.ndarray, "generated feature"],
    reference: Float64[np.ndarray, "reference feature"],
) -> float:
    """Return |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)) of two sets of features.

    Means and covariances (n - 1) are float64 on both sides; torch-fidelity does the rest.
    """
    return _frechet(_statistics(generated), _statistics(reference))


def _frechet(generated: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    import_torchvision()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    metric = fid_statistics_to_metric(generated, reference, verbose=False)
    return float(metric[KEY_METRIC_FID])


def _statistics(features: Float64[np.ndarray, "image feature"]) -> dict[str, np.ndarray]:
    return {
        "mu": features.mean(axis=0),
        "sigma": np.atleast_2d(np.cov(features, rowvar=False)),
    }


@contextmanager
def _borrowed(module: nn.Module) -> Iterator[torch.device]:
    import torch

    modes = [(part, part.training) for part in module.modules()]
    first = next(iter([*module.parameters(), *module.buffers()]), None)
    device = torch.device("cpu") if first is None else first.device
    with generators_kept(device):
        try:
            module.eval()
            yield device
        finally:
            with uninterrupted():
                for part, training in modes:
                    part.training = training


def _checked_module(extractor: Callable[[Any], Any]) -> nn.Module:
    import torch

    if not isinstance(extractor, torch.nn.Module):
        raise InputError(
            f"the feature extractor is a {type(extractor).__name__}; give a torch.nn.Module, or "
            "the path of torch-fidelity's Inception weights"
        )
    return extractor


def _digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(
            f"no Inception weights at {path}; give the path of torch-fidelity's "
            "weights-inception-2015-12-05-6726825d.pth"
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


@generators_kept()  # its layers draw weights before those of the file come
def _load_inception(path: Path, device: str) -> nn.Module:
    """Load Inception from weights that were read without running code from the file.

    torch-fidelity unpickles what it is given, so it is given a file that we wrote.
    """
    import torch

    import_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(weights, dict) or not all(torch.is_tensor(w) for w in weights.values()):
            raise InputError(f"{path} holds no state dict")
        with tempfile.TemporaryDirectory() as folder:
            torch.save(weights, Path(folder, "weights.pth"))
            inception = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                [FID_LAYER],
                feature_extractor_weights_path=str(Path(folder, "weights.pth")),
            )
    except _UNLOADABLE as error:
        raise InputError(
            f"{path} holds no Inception weights of torch-fidelity; its "
            "weights-inception-2015-12-05-6726825d.pth is expected (pytorch-fid's file has other "
            "names)"
        ) from error
    return inception.to(device)  # type: ignore[no-any-return]  # torch-fidelity has no types


@hookimpl
def provide_qualities() -> Iterable[type[Quality]]:
    """Provide the quality measures that come with iarmem."""
    return (TorchFidelity,)
