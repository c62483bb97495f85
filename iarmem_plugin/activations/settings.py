"""What a user may set of a capture, and all that changes its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.checks import check_integer
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.fingerprint import fingerprint
from iarmem_plugin.interfaces.layout import ModelLayout

if TYPE_CHECKING:
    from iarmem_plugin.models.tracing import ImageARModel

REDUCTION = "mean of absolute value over the tokens of a scale"


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """How the images are shown to the model.

    Attributes:
        views: number of augmented views of each image; 1 takes the centre view.
        batch_size: number of images in one pass.
        seed: seed for drawing the views.
        augmentation: what draws the views; by default what the model was trained with.
        workers: number of processes that decode pictures ahead of the model; 0 decodes in this
            one.
        slab: number of images that are finished together, K; no batch goes over the end of a
            slab.

    Raises:
        InputError: one of them is of another kind.
    """

    views: int = 10
    batch_size: int = 32
    seed: int = 0
    augmentation: Augmentation | None = None
    workers: int = 0
    slab: int = 256

    def __post_init__(self) -> None:
        """Refuse what is no integer."""
        for name in ("views", "batch_size", "workers", "slab"):
            check_integer(name, getattr(self, name))
        check_integer("the seed", self.seed, least=0)


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """All that changes the numbers of a capture: one is gone on with only with the same.

    What is None is not known, and not compared.

    Attributes:
        model: name of the model.
        layout: blocks, scales and neurons of the model.
        images: images to be captured, in order.
        slab: number of images that are finished together, K.
        keep_bits: number of the 23 mantissa bits that a store keeps; None keeps all.
        checkpoint_sha256: hash of the model's weights.
        adapter_version: name and version of the package that the adapter is part of.
        tokenizer_sha256: hash of the tokenizer's weights.
        autocast: dtype in which torch's autocast computes; None where it is off.
        pixels_sha256: hash over pictures in memory; None for those that are read from files.
        modules_sha256: hashes of further modules of the model, by their name in the provenance.
        dtype: name of the weights' dtype, such as ``"float32"``.
        augmentation: parameters of what draws the views, of JSON types.
        views: number of views of each image.
        seed: seed for drawing the views.
        batch_size: number of images in one pass.
        torch_threads: number of CPU threads; None on a GPU, where it changes no number.
        provenance: what else is known, of JSON types; it changes no number.
    """

    model: str
    layout: ModelLayout
    images: Images
    slab: int = 256
    keep_bits: int | None = None
    checkpoint_sha256: str | None = None
    adapter_version: str | None = None
    tokenizer_sha256: str | None = None
    dtype: str | None = None
    augmentation: Mapping[str, Any] | None = None
    views: int | None = None
    seed: int | None = None
    batch_size: int | None = None
    torch_threads: int | None = None
    autocast: str | None = None
    pixels_sha256: str | None = None
    modules_sha256: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a capture of nothing.

        Raises:
            InputError: there are no images, or none in a slab.
        """
        if self.slab < 1 or len(self.images) == 0:
            raise InputError(
                f"a slab of {self.slab} and {len(self.images)} images; both must be 1 or more"
            )

    @classmethod
    def of_model(
        cls,
        model: ImageARModel,
        images: Images,
        provenance: Mapping[str, Any],
        *,
        slab: int = 256,
        keep_bits: int | None = None,
    ) -> CaptureSettings:
        """Take the settings from where scores come from.

        On a GPU, the number of CPU threads is left out: it changes no number there, and a run that
        was begun by one process goes on with several, which torchrun gives one thread each.

        Args:
            model: model to be captured.
            images: images to be captured, in order.
            provenance: what `model_provenance` says, and ``views``, ``batch_size``, ``seed`` and
                ``augmentation``.
            slab: number of images that are finished together, K.
            keep_bits: number of mantissa bits that a store keeps.
        """
        left_out = set() if provenance["device"] == "cpu" else {"torch_threads"}
        kept = {name: value for name, value in provenance.items() if name not in left_out}
        return cls(
            model.adapter.variant.name,
            model.layout,
            images,
            slab,
            keep_bits,
            checkpoint_sha256=kept["weights_sha256"],
            adapter_version=kept["adapter_version"],
            tokenizer_sha256=kept["tokenizer_sha256"],
            dtype=kept["dtype"],
            augmentation=kept["augmentation"],
            views=kept["views"],
            seed=kept["seed"],
            batch_size=kept["batch_size"],
            torch_threads=kept.get("torch_threads"),
            autocast=kept.get("autocast"),
            pixels_sha256=images.reader.content_sha256(images.ids),
            modules_sha256=_further(model, kept),
            provenance=kept,
        )

    @property
    def slabs(self) -> Slabs:
        """Return which images are in which slab."""
        return Slabs(len(self.images), self.slab)

    @property
    def known(self) -> dict[str, Any]:
        """Return what is known of how the images are shown to the model, by name."""
        facts = {
            "tokenizer_sha256": self.tokenizer_sha256,
            "dtype": self.dtype,
            "augmentation": self.augmentation,
            "views": self.views,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "torch_threads": self.torch_threads,
            "autocast": self.autocast,
            "pixels_sha256": self.pixels_sha256,
        }
        known = {name: fact for name, fact in facts.items() if fact is not None}
        return known | dict(self.modules_sha256)

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of `to_dict`.

        Raises:
            InputError: a setting is not a JSON value.
        """
        return fingerprint(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, as a store keeps them."""
        ids = self.images.ids.astype("<i8").tobytes()
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "adapter": self.layout.family,
            "adapter_version": self.adapter_version,
            "hook_point": str(self.layout.mlp.site),
            "reduction": REDUCTION,
            "slab": self.slab,
            "keep_bits": self.keep_bits,
            **self.known,
            "image_list_sha256": self.images.digest,
            "image_ids_sha256": hashlib.sha256(ids).hexdigest(),
            "blocks": self.layout.num_blocks,
            "neurons": self.layout.neurons_per_block,
            "scales": [[one.name, list(self.layout.positions(one))] for one in self.layout.scales],
        }


def _further(model: ImageARModel, provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of the modules that are neither transformer nor image tokenizer."""
    roles = model.adapter.modules.keys() - {"network", "tokenizer"}
    names = sorted(f"{role.replace(' ', '_')}_sha256" for role in roles)
    return {name: provenance[name] for name in names}
