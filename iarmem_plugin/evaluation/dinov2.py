"""Fréchet distance in the features of DINOv2, from weights that the user names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8
from PIL import Image
from safetensors import SafetensorError

from iarmem_plugin.borrowing import generators_kept
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.networks.pictures import (
    BY_IMAGENET,
    by_pillow,
    imagenet_normalised,
)
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision
from iarmem_plugin.interfaces import Quality, QualityValue
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.text import shown
from iarmem_plugin.typing import Tensor
from iarmem_plugin.untrusted import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SIDE = 224
_LABELS = {"FID": "FD", "KID": "KD"}
_SIZES: dict[int, str] = {384: "S", 768: "B", 1024: "L", 1536: "g"}


class DinoV2(TorchFidelity):
    """FD-DINOv2: the Fréchet distance in DINOv2's features, less tied to ImageNet's classes.

    8-bit images are resized to 224 x 224 by Pillow (bicubic, antialiased), normalised by ImageNet's
    mean and deviation, and seen by transformers' ``Dinov2Model`` in float32; the feature is the
    class token after the last layer norm. The published protocol takes ViT-L/14. Nothing is
    downloaded, and no code is read from the files.

    Args:
        weights: folder with ``config.json`` and ``model.safetensors``, such as that of
            facebook/dinov2-large; or a safetensors file with the former beside it.
        device: where the network is put.

    Raises:
        InputError: where the files are missing or of another network, or transformers is not
            installed.

    Reference:
        Stein et al. 2023, arXiv 2306.04675 (FD-DINOv2); Oquab et al. 2023 (DINOv2).
    """

    name = "fd-dinov2"

    def __init__(self, weights: Path | str, *, device: str = "cpu") -> None:
        file = _weights_file(Path(weights))
        network = _load(file)
        width, patch = network.config.hidden_size, network.config.patch_size
        digest, self._settings = _digest(file), _digest(file.with_name(CONFIG))
        name = f"DINOv2 ViT-{_SIZES.get(width, width)}/{patch} sha256 {digest[:12]}"
        super().__init__(network.to(device), name)
        self.weights_sha256 = digest

    def __repr__(self) -> str:
        """Return what labels say of it."""
        return f"DinoV2({self.extractor_name!r})"

    @property
    def provenance(self) -> Mapping[str, str | int | None]:
        """Return everything beside the images that the values depend on."""
        return {
            **super().provenance,
            "config_sha256": self._settings,
            "network": f"transformers {version('transformers')}, class token after the layer norm",
            "resize": f"{SIDE} x {SIDE}, Pillow's bicubic filter, 8 bit",
            "normalisation": BY_IMAGENET,
        }

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
        """Return what `TorchFidelity` does, labelled FD and KD: FID's name is Inception's.

        Raises:
            InputError: with too few images.
        """
        values = super().compare_moments(
            *(generated, mean, covariance),
            features=features,
            images=images,
            reference_name=reference_name,
        )
        named = [(one, *one.label.partition(" ")) for one in values]
        return [
            replace(one, label=f"{_LABELS.get(word, word)} {rest}") for one, word, _, rest in named
        ]


def dinov2_view(images: UInt8[Tensor, "image 3 height width"]) -> Float[Tensor, "image 3 224 224"]:
    """Return 8-bit pictures as DINOv2 is shown them: resized by Pillow, and normalised."""
    new = by_pillow(images, (SIDE, SIDE), Image.Resampling.BICUBIC)
    return imagenet_normalised(new.float() / 255)


def _weights_file(path: Path) -> Path:
    """Return the file of weights that a folder or file stands for."""
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"no DINOv2 weights at {shown(file)}; give a folder with {CONFIG} and {WEIGHTS}, such "
            "as that of facebook/dinov2-large"
        )
    return file


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@generators_kept()  # its layers draw weights before those of the file come
def _load(file: Path) -> Any:
    """Load DINOv2 from safetensors, as a network that maps 8-bit images to class tokens."""
    import torch
    from safetensors.torch import load_file

    transformers = _transformers()
    settings = _settings(file.with_name(CONFIG))
    try:
        with _quiet():
            network, found = transformers.Dinov2Model.from_pretrained(
                None,  # no name: neither a folder nor the hub is read
                config=transformers.Dinov2Config.from_dict(settings),
                state_dict=load_file(file),
                dtype=torch.float32,
                output_loading_info=True,
            )
    except _unloadable() as error:
        first = shown(str(error).strip().partition("\n")[0], 160)
        raise InputError(
            f"{shown(file)} holds no weights of {CONFIG} beside it: {first}"
        ) from error
    if odd := sorted(found["missing_keys"] | found["unexpected_keys"]):
        raise InputError(
            f"{shown(file)} holds other weights than {CONFIG} beside it says, such as {odd[0]}; "
            "give both files of one Dinov2Model"
        )
    network.register_forward_pre_hook(lambda _, given: dinov2_view(*given))
    network.register_forward_hook(lambda _, __, made: made.last_hidden_state[:, 0])
    return network


def _transformers() -> ModuleType:
    import_torchvision()  # which transformers imports
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            'fd-dinov2 needs transformers; install it with: pip install "iarmem[transformers]"'
        ) from error
    return transformers


def _unloadable() -> tuple[type[Exception], ...]:
    """Return what safetensors and transformers raise on files of other networks."""
    from huggingface_hub.errors import StrictDataclassError

    known = (ImportError, LookupError, ArithmeticError, RuntimeError, ValueError, TypeError)
    return (SafetensorError, StrictDataclassError, *known)


def _settings(path: Path) -> dict[str, Any]:
    settings = read_json(path, "the network's settings")
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    if kind != "dinov2":
        raise InputError(
            f"{shown(path)} is of a network of the type {shown(repr(kind), 40)}; expected 'dinov2'"
        )
    return dict(settings)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and tables from the terminal; what is wrong is raised."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@hookimpl
def provide_qualities() -> Iterable[type[Quality]]:
    """Provide FD-DINOv2."""
    return (DinoV2,)
