"""The two families of organisms: their networks, and how these are taught."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer

SCALES = (1, 2, 3, 4, 5, 6, 8)
Quantised = tuple[Tensor, Tensor, tuple[Tensor, Tensor]]
"""The code maps, their distance to the features, and (vectors, codes) chosen."""


class VAR:
    """The parts of a VAR organism: seven scales of 32-pixel pictures, 155 tokens."""

    side = 32
    tokenizer = VQVAEConfig(SCALES, 16, (1, 2, 4), 1, vocab_size=1024, code_width=16)
    transformer = VARConfig(4, 128, 4, SCALES, num_classes=9, vocab_size=1024, code_width=16)
    networks: tuple[Any, Any] = (MultiScaleVQVAE, VARTransformer)

    @staticmethod
    def images(pictures: Tensor) -> Tensor:
        """Return what the tokenizer sees of uint8 pictures: RGB in [-1, 1]."""
        return pictures.float() / 127.5 - 1

    @staticmethod
    def pixels(images: Tensor) -> Tensor:
        """Return RGB in [0, 1] of what the tokenizer gives."""
        return (images + 1) / 2

    @staticmethod
    def quantised(model: Any, features: Tensor) -> Quantised:
        """Sum the code maps scale by scale, each of what the earlier ones left over."""
        fhat, target = model.quantize.empty(len(features)), features.detach()
        distance = features.new_zeros(())
        vectors, chosen = [], []
        for scale in range(len(SCALES)):
            rest = model.quantize.coarsen(target - fhat.detach(), scale)
            tokens = model.quantize.nearest(rest)
            vectors.append(rest.movedim(1, 3).flatten(0, 2))
            chosen.append(tokens.flatten())
            fhat = model.quantize.accumulate(fhat, model.quantize.embed(tokens, scale), scale)
            distance = distance + F.mse_loss(fhat, target)
            distance = distance + 0.25 * F.mse_loss(features, fhat.detach())
        return fhat, distance / len(SCALES), (torch.cat(vectors), torch.cat(chosen))

    @staticmethod
    def inputs(model: Any, tokens: Tensor) -> Tensor:
        """Return what the transformer reads when it is taught."""
        inputs: Tensor = model.teacher_input(tokens)
        return inputs

    @staticmethod
    def blurred(inputs: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Return what the transformer reads, with a share of the places empty."""
        kept = torch.rand(inputs.shape[:2], generator=random) >= share
        return inputs * kept[..., None]

    @staticmethod
    def logits(model: Any, labels: Tensor, inputs: Tensor) -> Tensor:
        """Return one prediction a token."""
        logits: Tensor = model(labels, inputs)
        return logits

    @staticmethod
    def head(model: Any) -> Any:
        """Return the layer that gives the logits."""
        return model.head


class RAR:
    """The parts of a RAR organism: one raster of 24-pixel pictures, 144 tokens."""

    side = 24
    tokenizer = MaskGITVQGANConfig(32, (1, 2), 1, vocab_size=1024, code_width=16)
    transformer = RARConfig(4, 96, 4, 384, num_tokens=144, vocab_size=1024, num_classes=9)
    networks: tuple[Any, Any] = (MaskGITVQGAN, RARTransformer)

    @staticmethod
    def images(pictures: Tensor) -> Tensor:
        """Return what the tokenizer sees of uint8 pictures: RGB in [0, 1]."""
        return pictures.float() / 255

    @staticmethod
    def pixels(images: Tensor) -> Tensor:
        """Return RGB in [0, 1] of what the tokenizer gives."""
        return images

    @staticmethod
    def quantised(model: Any, features: Tensor) -> Quantised:
        """Take the nearest code of each place."""
        tokens = model.quantize(features.detach())
        codes = model.quantize.embed(tokens)
        vectors = features.detach().movedim(1, 3).flatten(0, 2)
        return codes, 0.25 * F.mse_loss(features, codes), (vectors, tokens.flatten())

    @staticmethod
    def inputs(model: Any, tokens: Tensor) -> Tensor:
        """Return what the transformer reads when it is taught: the tokens themselves."""
        return tokens

    @staticmethod
    def blurred(inputs: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Return what the transformer reads, with a share of the tokens drawn anew."""
        drawn = torch.randint(RAR.transformer.vocab_size, inputs.shape, generator=random)
        kept = torch.rand(inputs.shape, generator=random) >= share
        return torch.where(kept, inputs, drawn)

    @staticmethod
    def logits(model: Any, labels: Tensor, inputs: Tensor) -> Tensor:
        """Return one prediction a token; what follows the last one predicts nothing."""
        logits: Tensor = model(labels, inputs)
        return logits[:, :-1]

    @staticmethod
    def head(model: Any) -> Any:
        """Return the layer that gives the logits."""
        return model.lm_head


class Family(StrEnum):
    """The two families."""

    var = "var"
    rar = "rar"


PARTS = {Family.var: VAR, Family.rar: RAR}
