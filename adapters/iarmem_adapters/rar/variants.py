"""The released RAR models, the bundled RAR organism, and its twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from iarmem_adapters.organisms import organism
from iarmem_plugin.data.augmentation import TenCrops, Views
from iarmem_plugin.interfaces import Sampling, Variant

ORGANISM = "rar-organism"
TWIN = f"{ORGANISM}-twin"
REPOSITORIES = ("yucornetto/RAR", "fun-research/TiTok")
TOKENIZER_FILE = "maskgit-vqgan-imagenet-f16-256.bin"
RESOLUTION = 256
VIEWS = TenCrops(crop=RESOLUTION)
"""What the training tokens were made from."""
ATTACK_TOKENS = 30
"""Tokens given to a completion by the extraction attack (arXiv 2502.02514)."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a released transformer is built from, and how it was sampled.

    Attributes:
        depth: number of blocks.
        width: channels of the residual stream.
        mlp_width: neurons in each block.
        parameters: number of the transformer's parameters.
        guidance: classifier-free guidance as published.
        guidance_power: exponent of its schedule.
        temperature: divides the logits.
        heads: attention heads in each block.
    """

    depth: int
    width: int
    mlp_width: int
    parameters: int
    guidance: float
    guidance_power: float
    temperature: float = 1.02
    heads: int = 16


SIZES: Mapping[str, Sizes] = {
    "rar-b": Sizes(24, 768, 3072, 260_923_648, 16.0, 2.75, temperature=1.0),
    "rar-l": Sizes(24, 1024, 4096, 461_668_352, 15.5, 2.5),
    "rar-xl": Sizes(32, 1280, 5120, 955_425_024, 6.9, 1.5),
    "rar-xxl": Sizes(40, 1408, 6144, 1_498_520_704, 8.0, 1.2),
}


def variants() -> dict[str, Variant]:
    """Return what is known about each RAR model, by name."""
    released = {name: _released(name, sizes) for name, sizes in SIZES.items()}
    return released | {ORGANISM: _organism(), TWIN: _twin()}


def _released(name: str, sizes: Sizes) -> Variant:
    return Variant(
        name=name,
        family="rar",
        blocks=sizes.depth,
        neurons=sizes.mlp_width,
        parameters=sizes.parameters,
        resolution=RESOLUTION,
        views=VIEWS,
        sampling=Sampling(
            guidance=sizes.guidance,
            guidance_power=sizes.guidance_power,
            temperature=sizes.temperature,
            greedy=False,
        ),
        prefix_tokens=ATTACK_TOKENS,
        files={"weights": f"{name.replace('-', '_')}.bin", "tokenizer": TOKENIZER_FILE},
        repositories=dict(zip(("weights", "tokenizer"), REPOSITORIES, strict=True)),
        source=f"{' and '.join(REPOSITORIES)} on the Hugging Face hub",
    )


def _organism() -> Variant:
    return Variant(
        name=ORGANISM,
        family="rar",
        blocks=4,
        neurons=384,
        parameters=1_136_320,
        resolution=24,
        views=Views(crop=24, resize=24, pad=1),
        sampling=Sampling(greedy=False),
        prefix_tokens=13,  # the VAR organism's share
        num_classes=9,
        files={"weights": "bundled"},
        source="bundled; made by examples/train_organism.py",
        licence="Apache-2.0",
        organism=partial(organism, "rar"),
    )


def _twin() -> Variant:
    organism_of_twin = partial(organism, "rar", twin=True)
    return replace(_organism(), name=TWIN, organism=organism_of_twin, twin_of=ORGANISM)
