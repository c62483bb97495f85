"""How close a completion is to its target: SSCD and the small default measures."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float

from iarmem_plugin.checks import check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Completion, Similarity
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.typing import Tensor

if TYPE_CHECKING:
    import torch

NOT_CALIBRATED = "default of the measure, not calibrated"
GIVEN = "given by the user"
SSCD_SIDE = 320
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelCorrelation(Similarity):
    """Pearson correlation of all RGB pixel values of completion and target, in [-1, 1].

    An image of one value only has no correlation: two such images are 1 if they are equal, and 0
    otherwise; beside any other image it is 0. The result is never NaN for finite images.

    Args:
        threshold: None takes 0.9, which nobody calibrated; see ``calibrate``.
    """

    name = "correlation"

    def __init__(self, threshold: float | None = None) -> None:
        check_threshold(threshold, self.name)
        self.threshold = 0.9 if threshold is None else threshold
        self.threshold_source = NOT_CALIBRATED if threshold is None else GIVEN

    def compare(self, completion: Completion, target: Completion) -> Float[Tensor, " image"]:
        """Return the correlation of each image with its target, float32, in [-1, 1].

        Raises:
            InputError: where the images differ in number or size.
        """
        _check_same_shape(completion.images, target.images, "images")
        return pixel_correlation(completion.images, target.images)


class TokenAgreement(Similarity):
    """Share of equal tokens, the given prefix included, in [0, 1].

    Args:
        threshold: None takes 0.9, which nobody calibrated; see ``calibrate``.
    """

    name = "token-agreement"

    def __init__(self, threshold: float | None = None) -> None:
        check_threshold(threshold, self.name)
        self.threshold = 0.9 if threshold is None else threshold
        self.threshold_source = NOT_CALIBRATED if threshold is None else GIVEN

    def compare(self, completion: Completion, target: Completion) -> Float[Tensor, " image"]:
        """Return the share of equal tokens of each image, float32, in [0, 1].

        Raises:
            InputError: where the tokens differ in number.
        """
        _check_same_shape(completion.tokens, target.tokens, "tokens")
        equal: Tensor = completion.tokens == target.tokens
        return equal.float().mean(dim=1)


class SSCD(Similarity):
    """Cosine similarity of copy-detection descriptors, in [-1, 1].

    Images are resized to 320 x 320 (bilinear, antialiased, no crop, no rounding to 8 bit) and
    normalised by ImageNet's mean and deviation. The file is loaded once, here; it is run, so it
    must come from a source you trust, which ``sha256`` pins.

    Args:
        file: the TorchScript file, such as ``sscd_disc_mixup.torchscript.pt``.
        sha256: hexadecimal digest the file must have; None skips the check.
        threshold: extracted means strictly above; None takes the paper's 0.75, which belongs to
            the file named above and to no other.

    Raises:
        InputError: where the file is missing, has another digest, or is not such a network.

    Reference:
        Pizzi et al. 2022 (SSCD); Kowalczuk et al. 2025, arXiv 2502.02514 (its use in the attack).
    """

    name = "sscd"

    def __init__(
        self, file: Path | str, *, sha256: str | None = None, threshold: float | None = None
    ) -> None:
        check_threshold(threshold, self.name)
        path = Path(file)
        self.file = path
        self.sha256 = _checked_digest(path, sha256)
        self.threshold = 0.75 if threshold is None else threshold
        self.threshold_source = (
            "SSCD's authors: about 90% precision on DISC" if threshold is None else GIVEN
        )
        self._network = _load_descriptor_network(path)

    def compare(self, completion: Completion, target: Completion) -> Float[Tensor, " image"]:
        """Return the cosine similarity of each image with its target, float32, in [-1, 1].

        Raises:
            InputError: where the images differ in number or size.
        """
        _check_same_shape(completion.images, target.images, "images")
        return (self._descriptors(completion.images) * self._descriptors(target.images)).sum(dim=1)

    @property
    def provenance(self) -> Mapping[str, str | float]:
        """Return threshold and the file's digest."""
        return {**super().provenance, "sha256": self.sha256}

    def _descriptors(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image feature"]:
        import torch
        from torch.nn import functional as F

        network = self._network.to(images.device)
        with torch.no_grad():
            # Normalised once more: harmless, and it guards networks in half precision.
            return F.normalize(network(sscd_view(images)).float(), dim=1)


def pixel_correlation(
    first: Float[Tensor, "image 3 height width"], second: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, " image"]:
    """Return Pearson's correlation over all values of each pair, summed in float64.

    Returns:
        float32, in [-1, 1]; for images of one value only see `PixelCorrelation`.
    """
    import torch

    flat_first, flat_second = first.flatten(1).double(), second.flatten(1).double()
    a = flat_first - flat_first.mean(dim=1, keepdim=True)
    b = flat_second - flat_second.mean(dim=1, keepdim=True)
    correlation = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    is_constant = (flat_first.amax(dim=1) == flat_first.amin(dim=1)) | (
        flat_second.amax(dim=1) == flat_second.amin(dim=1)
    )
    is_equal = (flat_first == flat_second).all(dim=1).double()
    return torch.where(is_constant, is_equal, correlation.clamp(-1.0, 1.0)).float()


def sscd_view(images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image 3 320 320"]:
    """Resize and normalise RGB images in [0, 1] as SSCD's networks expect them."""
    import torch
    from torch.nn import functional as F

    resized = F.interpolate(
        images.float(),
        size=(SSCD_SIDE, SSCD_SIDE),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
    return (resized - mean) / std


def check_threshold(threshold: float | None, measure: str = "") -> None:
    """Refuse a threshold that is no finite number; None is the measure's own.

    Args:
        threshold: smallest similarity that does not count as extracted.
        measure: name of the similarity, be it with options; ours are in [-1, 1].

    Raises:
        InputError: it is NaN, infinite or no number, or outside the range of a measure of ours.
    """
    if threshold is None:
        return
    check_number("the threshold", threshold)
    name = measure.partition(":")[0]
    if name in (PixelCorrelation.name, SSCD.name) and not -1 <= threshold <= 1:
        raise InputError(f"the threshold {threshold} was given; {name} is in [-1, 1]")


def _check_same_shape(completion: Tensor, target: Tensor, what: str) -> None:
    if completion.shape != target.shape:
        raise InputError(
            f"{what} of the completion have shape {tuple(completion.shape)} and those of the "
            f"target {tuple(target.shape)}; compare each completion with its own target"
        )


def _checked_digest(path: Path, expected: str | None) -> str:
    if not path.is_file():
        raise InputError(
            f"no SSCD file at {path}; give the path of a TorchScript file such as "
            "sscd_disc_mixup.torchscript.pt"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected is not None and digest != expected.lower():
        raise InputError(
            f"{path} has SHA-256 {digest}, not {expected}; fetch the file again or check the digest"
        )
    return digest


def _load_descriptor_network(path: Path) -> torch.jit.ScriptModule:
    import torch

    network: torch.jit.ScriptModule
    with warnings.catch_warnings(), torch.no_grad():
        # SSCD is published as TorchScript; that torch would rather not read it helps no user.
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
        try:
            network = torch.jit.load(path, map_location="cpu")
            network.eval()
            descriptors = network(torch.zeros(2, 3, SSCD_SIDE, SSCD_SIDE))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{path} is not a TorchScript network of 320 x 320 RGB images: "
                f"{_first_line(error)}; give the .torchscript.pt file, not the one with bare "
                "weights"
            ) from error
    if not isinstance(descriptors, torch.Tensor) or descriptors.ndim != 2 or len(descriptors) != 2:
        raise InputError(
            f"{path} returns no descriptor [image, feature]; it is not an SSCD network"
        )
    return network


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@hookimpl
def provide_similarities() -> Iterable[type[Similarity]]:
    """Provide the similarity measures that come with iarmem."""
    return (PixelCorrelation, TokenAgreement, SSCD)
