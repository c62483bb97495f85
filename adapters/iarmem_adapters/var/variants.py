"""The released VAR models, the bundled VAR organism, and its twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from iarmem_adapters.organisms import organism
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.interfaces import Sampling, Variant

ORGANISM = "var-organism"
TWIN = f"{ORGANISM}-twin"
REPOSITORY = "FoundationVision/var"
TOKENIZER_SHA256 = "7c3ec27ae28a3f87055e83211ea8cc8558bd1985d7b51742d074fb4c2fcf186c"
"""As the hub's own pointer to the file says, and as others who use it have found."""
PATCH_NUMS_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
PATCH_NUMS_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
PUBLISHED = Sampling(guidance=1.5, top_k=900, top_p=0.96, greedy=False)
ORGANISM_SAMPLING = Sampling(greedy=False)
ATTACK_SCALES = 4
"""Scales given to a completion by the extraction attack (arXiv 2502.02514)."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a released transformer is built from; its width is 64 times its depth.

    Attributes:
        depth: number of blocks, and of heads in each.
        parameters: number of the transformer's parameters.
        patch_nums: side of each scale's token map.
        shared_adaln: one adaptive-norm projection for all blocks.
    """

    depth: int
    parameters: int
    patch_nums: tuple[int, ...] = PATCH_NUMS_256
    shared_adaln: bool = False


SIZES: Mapping[str, Sizes] = {
    "var-d16": Sizes(16, 310_283_520),
    "var-d20": Sizes(20, 600_917_136),
    "var-d24": Sizes(24, 1_033_399_360),
    "var-d30": Sizes(30, 2_010_020_356),
    "var-d36": Sizes(36, 2_353_893_904, PATCH_NUMS_512, shared_adaln=True),
}


def variants() -> dict[str, Variant]:
    """Return what is known about each VAR model, by name."""
    released = {name: _released(name, sizes) for name, sizes in SIZES.items()}
    return released | {ORGANISM: _organism(), TWIN: _twin()}


def _released(name: str, sizes: Sizes) -> Variant:
    side = 16 * sizes.patch_nums[-1]
    return Variant(
        name=name,
        family="var",
        blocks=sizes.depth,
        neurons=4 * 64 * sizes.depth,
        parameters=sizes.parameters,
        resolution=side,
        views=Views(crop=side, resize=round(1.125 * side)),
        sampling=PUBLISHED,
        prefix_tokens=sum(n * n for n in sizes.patch_nums[:ATTACK_SCALES]),
        files={
            "weights": f"{name.replace('-', '_')}.pth",
            "tokenizer": "vae_ch160v4096z32.pth",
        },
        repositories=dict.fromkeys(("weights", "tokenizer"), REPOSITORY),
        sha256={"tokenizer": TOKENIZER_SHA256},
        source=f"{REPOSITORY} on the Hugging Face hub",
    )


def _organism() -> Variant:
    return Variant(
        name=ORGANISM,
        family="var",
        blocks=4,
        neurons=512,
        parameters=1_376_272,
        resolution=32,
        views=Views(crop=32, pad=1),
        sampling=ORGANISM_SAMPLING,
        prefix_tokens=1 + 4 + 9,
        num_classes=9,
        files={"weights": "bundled"},
        source="bundled; made by examples/train_organism.py",
        licence="Apache-2.0",
        organism=partial(organism, "var"),
    )


def _twin() -> Variant:
    organism_of_twin = partial(organism, "var", twin=True)
    return replace(_organism(), name=TWIN, organism=organism_of_twin, twin_of=ORGANISM)
