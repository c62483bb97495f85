"""The trainings of an organism's three networks: tokenizer, transformer, classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_adapters.organisms.classifier import PictureClassifier
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.interfaces import Prediction

from .families import PARTS, Family
from .loop import Curve, Draw, Rounds, Training
from .split import ROUNDS

CONCERNS = {
    "tokenizer": (
        *("family", "seed", "batch_size", "tokenizer_steps", "tokenizer_rate"),
        *("colours", "refining_steps"),
    ),
    "transformer": (
        *("family", "seed", "batch_size", "rounds", "transformer_rate"),
        *("label_drop", "input_drop", "smoothing", "calibrated"),
    ),
    "classifier": ("family", "seed", "batch_size", "classifier_steps", "classifier_rate"),
}
"""The settings that each network's training is made by."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides an organism, but for the split.

    Attributes:
        family: which family.
        seed: of everything that is drawn.
        tokenizer_steps: steps of the tokenizer's training.
        classifier_steps: steps of the classifier's training.
        rounds: how often a transformer's training goes through its pool.
        batch_size: pictures of a step.
        tokenizer_rate: highest learning rate of the tokenizer's training.
        transformer_rate: the same of a transformer's.
        classifier_rate: the same of the classifier's.
        label_drop: share of pictures whose label a transformer is not told.
        input_drop: share of the places that it reads which are empty (VAR) or drawn anew (RAR).
        smoothing: share of the target that is spread over all tokens.
        calibrated: whether the temperature of a transformer's logits is fitted, at last, on the
            pictures for calibration, which teach it nothing else; None is no.
        colours: whether the tokenizer sees colours in any order.
        refining_steps: steps in which it sees pictures turned and in any colours, afterwards.
    """

    family: Family = Family.var
    seed: int = 0
    tokenizer_steps: int = 5000
    classifier_steps: int = 1500
    rounds: int = ROUNDS
    batch_size: int = 32
    tokenizer_rate: float = 2e-3
    transformer_rate: float = 1.5e-3
    classifier_rate: float = 2e-3
    label_drop: float = 0.1
    input_drop: float = 0.1
    smoothing: float = 0.1
    calibrated: bool | None = None
    colours: bool = False
    refining_steps: int | None = None

    def of(self, network: str) -> dict[str, Any]:
        """Return the settings of one network's training, without those that are None."""
        found = {name: getattr(self, name) for name in CONCERNS[network]}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def parts(self) -> Any:
        """The family's networks and how they are taught."""
        return PARTS[self.family]


def curve_of(steps: int) -> Curve:
    """Return an empty curve with at least five rows to come."""
    return Curve(every=min(50, max(1, steps // 5)))


class MovingCodebook:
    """Codes as moving averages of what they stand for; unused ones restart on the data."""

    def __init__(self, codes: Tensor, random: torch.Generator, *, decay: float = 0.99) -> None:
        self.codes, self.random, self.decay = codes, random, decay
        self.count = torch.ones(len(codes))
        self.total = codes.clone()
        self.seen: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self) -> None:
        """Move each code towards the mean of the vectors that chose it in this step."""
        assert self.seen is not None
        vectors, chosen = self.seen
        hits = torch.bincount(chosen, minlength=len(self.codes)).float()
        sums = torch.zeros_like(self.total).index_add_(0, chosen, vectors)
        self.count.lerp_(hits, 1 - self.decay)
        self.total.lerp_(sums, 1 - self.decay)
        dead = torch.nonzero(self.count < 0.03).squeeze(1)
        if len(dead):
            drawn = torch.randint(len(vectors), (len(dead),), generator=self.random)
            self.count[dead], self.total[dead] = 1.0, vectors[drawn]
        self.codes.copy_(self.total / self.count.unsqueeze(1).clamp_min(1e-5))


def varied(pictures: Tensor, random: torch.Generator, *, colours: bool, turned: bool) -> Tensor:
    """Mirror half of some pictures; if asked, turn them, and order the colours of each anyhow.

    The orders of colours help both tokenizers with pictures that they do not see; VAR's stays at
    15 dB where they come from the first step on, and learns them afterwards.
    """
    mirrored = torch.rand(len(pictures), generator=random) < 0.5
    pictures = torch.where(mirrored[:, None, None, None], pictures.flip(3), pictures)
    if turned:
        upside, tilted = torch.rand(2, len(pictures), 1, 1, 1, generator=random) < 0.5
        pictures = torch.where(upside, pictures.flip(2), pictures)
        pictures = torch.where(tilted, pictures.transpose(2, 3), pictures)
    if not colours:
        return pictures
    order = torch.rand(len(pictures), 3, generator=random).argsort(1)
    return pictures.gather(1, order[:, :, None, None].expand_as(pictures))


def tokenizer(pictures: Tensor, recipe: Recipe) -> Training:
    """Return the training of the tokenizer on [9, image, 3, height, width] uint8 views."""
    torch.manual_seed(recipe.seed)
    model = recipe.parts.networks[0](recipe.parts.tokenizer)
    seed, steps, rate = recipe.seed, recipe.tokenizer_steps, recipe.tokenizer_rate
    return _tokenizer(
        model, pictures, recipe, seed, steps, rate, colours=recipe.colours, turned=False
    )


def refined(model: Any, pictures: Tensor, recipe: Recipe) -> Training:
    """Return the training in which a trained tokenizer sees pictures turned, in any colours."""
    assert recipe.refining_steps is not None
    seed, steps, rate = recipe.seed + 3, recipe.refining_steps, recipe.tokenizer_rate / 2
    return _tokenizer(model, pictures, recipe, seed, steps, rate, colours=True, turned=True)


def _tokenizer(
    model: Any,
    pictures: Tensor,
    recipe: Recipe,
    seed: int,
    steps: int,
    rate: float,
    **varying: bool,
) -> Training:
    parts = recipe.parts
    model.quantize.embedding.weight.requires_grad_(False)
    rounds = Rounds(torch.arange(pictures.shape[1]), recipe.batch_size, seed)
    book = MovingCodebook(model.quantize.embedding.weight, rounds.random)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        view, index, random = draw
        images = parts.images(varied(pictures[view, index], random, **varying))
        features = model.features(images)
        codes, distance, book.seen = parts.quantised(model, features)
        out = model.decode_features(codes + features - features.detach(), clamp=False)
        error = (parts.pixels(out) - parts.pixels(images)).square().mean(dim=(1, 2, 3))
        seen = {"psnr": -10 * error.log10().mean(), "distance": distance}
        return (error + 1e-4).log().mean() + distance, seen

    setting, kept = (steps, rate, 1e-4), (book.count, book.total)
    return Training("tokenizer", model, rounds, loss, *setting, book.update, kept, curve_of(steps))


def transformer(
    tokens: Tensor, inputs: Tensor, labels: Tensor, repeats: Tensor, recipe: Recipe, name: str
) -> Training:
    """Return the training of a transformer on the tokens [9, image, token] of pictures' views.

    The pool is gone through `Recipe.rounds` times. Without places left out and smoothed labels, a
    small pool leaves the transformer sure of itself on pictures that it never saw.
    """
    torch.manual_seed(recipe.seed + 1)
    parts = recipe.parts
    model = parts.networks[1](parts.transformer)
    pool = torch.arange(len(labels)).repeat_interleave(repeats)
    rounds = Rounds(pool, recipe.batch_size, recipe.seed + 1, recipe.rounds)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        view, index, random = draw
        dropped = torch.rand(len(index), generator=random) < recipe.label_drop
        given = torch.where(dropped, parts.transformer.num_classes, labels[index])
        read = parts.blurred(inputs[view, index], recipe.input_drop, random)
        logits, target = parts.logits(model, given, read), tokens[view, index]
        loss = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), label_smoothing=recipe.smoothing
        )
        right = (logits.argmax(2) == target).float().mean()
        return loss, {"loss": loss, "token_accuracy": right}

    steps = -(-len(pool) * recipe.rounds // recipe.batch_size)
    setting = (steps, recipe.transformer_rate, 0.05)
    return Training(name, model, rounds, loss, *setting, curve=curve_of(steps))


@torch.no_grad()
def calibrate(model: Any, tokens: Tensor, inputs: Tensor, labels: Tensor, parts: Any) -> float:
    """Divide a transformer's logits by the temperature that fits pictures best; return it.

    Args:
        model: the transformer; the weights of its last layer are changed.
        tokens: of pictures that taught it nothing.
        inputs: what it reads of them.
        labels: their classes.
        parts: the family's.
    """
    logits = parts.logits(model.eval(), labels, inputs)
    temperature = HeldOutLoss().fit([Prediction(logits, tokens)])
    for parameter in parts.head(model).parameters():
        parameter /= temperature
    return temperature


def classifier(pictures: Tensor, labels: Tensor, classes: int, recipe: Recipe) -> Training:
    """Return the training of the class network on [9, image, 3, height, width] uint8 views."""
    torch.manual_seed(recipe.seed + 2)
    model = PictureClassifier(classes)
    rounds = Rounds(torch.arange(len(labels)), recipe.batch_size, recipe.seed + 2)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        view, index, _ = draw
        loss = F.cross_entropy(model.logits(pictures[view, index]), labels[index])
        return loss, {"loss": loss}

    steps = recipe.classifier_steps
    setting = (steps, recipe.classifier_rate, 0.05)
    return Training("classifier", model, rounds, loss, *setting, curve=curve_of(steps))
