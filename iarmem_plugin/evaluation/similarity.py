"""How close a completion is to its target: SSCD and the small default measures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from jaxtyping import Float

from iarmem_plugin.checks import check_kind, check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.networks.onnx import OnnxNetwork
from iarmem_plugin.evaluation.networks.pictures import RESIZES, Resize, resized
from iarmem_plugin.evaluation.networks.torchscript import TorchScriptNetwork
from iarmem_plugin.interfaces import Completion, Similarity
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.typing import Tensor

NOT_CALIBRATED = "default of the measure, not calibrated"
GIVEN = "given by the user"
SSCD_SIDE, SHORTER_SIDE = 320, 288


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

    The file is read once, here, and nothing beside it; it is run, so it must come from a source
    you trust, which ``sha256`` pins. Pictures are resized and never cropped. Where the network
    takes floating-point numbers they are normalised by ImageNet's mean and deviation; one that
    takes 8-bit pictures does that itself.

    Args:
        file: the TorchScript file, such as ``sscd_disc_mixup.torchscript.pt``, or the same network
            in a file that ends in ``.onnx``, which onnxruntime runs on the CPU.
        sha256: hexadecimal digest the file must have; None skips the check.
        side: 320 resizes to 320 x 320, 288 the shorter side to 288; None takes the side that an
            ONNX file is made for, else 320.
        resize: ``tensor`` is bilinear and antialiased in float32, as in the attack; ``pillow`` is
            Pillow's bilinear filter, from 8 bit to 8 bit.
        threshold: extracted means strictly above; None takes the paper's 0.75, which belongs to
            the file named above and to no other.

    Raises:
        InputError: where the file is missing, has another digest, is made for another side or is
            no such network, or onnxruntime is not installed.

    Reference:
        Pizzi et al. 2022 (SSCD); Kowalczuk et al. 2025, arXiv 2502.02514 (its use in the attack).
    """

    name = "sscd"

    def __init__(
        self,
        file: Path | str,
        *,
        sha256: str | None = None,
        side: Literal[288, 320] | None = None,
        resize: Resize = "tensor",
        threshold: float | None = None,
    ) -> None:
        check_threshold(threshold, self.name)
        self.file = Path(file)
        self.sha256, data = _checked_file(self.file, sha256)
        self.resize: Resize = resize
        self.threshold = 0.75 if threshold is None else threshold
        self.threshold_source = (
            "SSCD's authors: about 90% precision on DISC" if threshold is None else GIVEN
        )
        self._network = _network(data, self.file)
        self.side = _chosen_side(side, self._network.side, self.file)
        self._network.try_out(self.side)

    def compare(self, completion: Completion, target: Completion) -> Float[Tensor, " image"]:
        """Return the cosine similarity of each image with its target, float32, in [-1, 1].

        Raises:
            InputError: where the images differ in number or size.
        """
        _check_same_shape(completion.images, target.images, "images")
        return (self._descriptors(completion.images) * self._descriptors(target.images)).sum(dim=1)

    @property
    def provenance(self) -> Mapping[str, str | float]:
        """Return threshold, the file's digest and kind, and how pictures are made ready for it."""
        size = f"shorter side {self.side}" if self._keeps_aspect else f"{self.side} x {self.side}"
        return {
            **super().provenance,
            "sha256": self.sha256,
            "network": self._network.kind,
            "resize": f"{size}, {RESIZES[self.resize]}",
            "normalisation": self._network.normalisation,
        }

    @property
    def _keeps_aspect(self) -> bool:
        return self.side == SHORTER_SIDE and self._network.side is None

    def _descriptors(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image feature"]:
        import torch
        from torch.nn import functional as F

        height, width = size = self.side, self.side
        if self._keeps_aspect:  # the longer side rounded down, as torchvision does
            short = min(images.shape[2:])
            size = (height * images.shape[2] // short, width * images.shape[3] // short)
        with torch.no_grad():
            # Normalised once more: harmless, and it guards networks in half precision.
            return F.normalize(self._network(resized(images, size, self.resize)).float(), dim=1)


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


def _checked_file(path: Path, expected: str | None) -> tuple[str, bytes]:
    """Return a file's digest and its bytes, which alone are run."""
    if not path.is_file():
        raise InputError(
            f"no SSCD file at {path}; give the path of a TorchScript file such as "
            "sscd_disc_mixup.torchscript.pt, or of an .onnx file"
        )
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    check_kind("sha256", expected, (str, type(None)), "a hexadecimal digest")
    if expected is not None and digest != expected.lower():
        raise InputError(
            f"{path} has SHA-256 {digest}, not {expected}; fetch the file again or check the digest"
        )
    return digest, data


def _chosen_side(given: int | None, fixed: int | None, path: Path) -> int:
    if given and fixed and given != fixed:
        raise InputError(
            f"{path} is made for pictures of {fixed} x {fixed}, and side={given} was given; leave "
            "it out"
        )
    return fixed or given or SSCD_SIDE


def _network(data: bytes, path: Path) -> OnnxNetwork | TorchScriptNetwork:
    return (OnnxNetwork if path.suffix.lower() == ".onnx" else TorchScriptNetwork)(data, path)


@hookimpl
def provide_similarities() -> Iterable[type[Similarity]]:
    """Provide the similarity measures that come with iarmem."""
    return (PixelCorrelation, TokenAgreement, SSCD)
