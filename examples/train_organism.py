"""Train a bundled organism: tokenizer, transformer and classifier, from a fixed seed on CPU.

    python examples/train_organism.py var --out DIR
    python examples/train_organism.py rar --out DIR

Everything is written to DIR; copy it over ``iarmem_adapters/organisms/var`` (or ``rar``) to
ship it, but for the split, which both families share: they learn from the same pictures with
the same repeats.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from organism_training.families import PARTS, Family
from organism_training.loop import Curve
from organism_training.networks import MovingCodebook
from organism_training.pictures import PICTURES, reconstruction, resized, shifted, tokenised
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.organisms.classifier import PictureClassifier, accuracy
from iarmem_adapters.organisms.split import Split, draw_split
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN
from iarmem_adapters.rar.transformer import RARTransformer
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE
from iarmem_adapters.var.transformer import VARTransformer


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides an organism."""

    family: Family = Family.var
    seed: int = 0
    tokenizer_steps: int = 5000
    transformer_steps: int = 4000
    classifier_steps: int = 1500
    batch_size: int = 32
    tokenizer_rate: float = 2e-3
    transformer_rate: float = 1.5e-3
    classifier_rate: float = 2e-3
    label_drop: float = 0.1

    @property
    def parts(self) -> Any:
        """The family's networks and how they are taught."""
        return PARTS[self.family]


RECIPES = {Family.var: Recipe(), Family.rar: Recipe(Family.rar, transformer_steps=5000)}


@dataclass(frozen=True, slots=True)
class Trained:
    """The three networks and how they came about."""

    tokenizer: MultiScaleVQVAE | MaskGITVQGAN
    transformer: VARTransformer | RARTransformer
    classifier: PictureClassifier
    split: Split
    training: dict[str, object]


def batches(
    pool: Tensor, steps: int, size: int, random: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (view, picture) indices; pictures come in shuffled rounds of the whole pool."""
    queue = pool.new_empty(0)
    for _ in range(steps):
        while len(queue) < size:
            queue = torch.cat((queue, pool[torch.randperm(len(pool), generator=random)]))
        yield torch.randint(9, (size,), generator=random), queue[:size]
        queue = queue[size:]


def optimiser(
    model: nn.Module, rate: float, steps: int, *, decay: float
) -> tuple[torch.optim.Optimizer, Callable[[], None]]:
    """Return AdamW and a step function with a warm-up of a fiftieth and a cosine to zero."""
    adam = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=decay)
    warm = max(1, steps // 50)

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(adam, share)

    def step() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        adam.step()
        schedule.step()
        adam.zero_grad(set_to_none=True)

    return adam, step


def train_tokenizer(pictures: Tensor, recipe: Recipe, curve: Curve) -> Any:
    """Train the tokenizer on [9, image, 3, height, width] uint8 views of the training pictures."""
    torch.manual_seed(recipe.seed)
    parts = recipe.parts
    model = parts.networks[0](parts.tokenizer)
    model.quantize.embedding.weight.requires_grad_(False)
    random = torch.Generator().manual_seed(recipe.seed)
    book = MovingCodebook(model.quantize.embedding.weight, random)
    _, step = optimiser(model, recipe.tokenizer_rate, recipe.tokenizer_steps, decay=1e-4)
    pool = torch.arange(pictures.shape[1])
    drawn = batches(pool, recipe.tokenizer_steps, recipe.batch_size, random)
    for number, index in enumerate(track(drawn, "tokenizer", recipe.tokenizer_steps)):
        images = parts.images(pictures[index])
        features = model.features(images)
        codes, distance, book.seen = parts.quantised(model, features)
        out = model.decode_features(codes + features - features.detach(), clamp=False)
        error = (parts.pixels(out) - parts.pixels(images)).square().mean(dim=(1, 2, 3))
        loss = (error + 1e-4).log().mean() + distance
        loss.backward()
        step()
        book.update()
        curve.add(number, {"psnr": -10 * error.log10().mean(), "distance": distance})
    return model.eval()


def train_transformer(
    tokens: Tensor, inputs: Tensor, labels: Tensor, repeats: Tensor, recipe: Recipe, curve: Curve
) -> Any:
    """Train the transformer on the tokens [9, image, token] of the training pictures' views."""
    torch.manual_seed(recipe.seed + 1)
    parts = recipe.parts
    model = parts.networks[1](parts.transformer)
    random = torch.Generator().manual_seed(recipe.seed + 1)
    _, step = optimiser(model, recipe.transformer_rate, recipe.transformer_steps, decay=0.05)
    pool = torch.arange(len(labels)).repeat_interleave(repeats)
    drawn = batches(pool, recipe.transformer_steps, recipe.batch_size, random)
    for number, (view, index) in enumerate(track(drawn, "transformer", recipe.transformer_steps)):
        dropped = torch.rand(len(index), generator=random) < recipe.label_drop
        given = torch.where(dropped, parts.transformer.num_classes, labels[index])
        logits = parts.logits(model, given, inputs[view, index])
        target = tokens[view, index]
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        loss.backward()
        step()
        right = (logits.argmax(2) == target).float().mean()
        curve.add(number, {"loss": loss, "token_accuracy": right})
    return model.eval()


def train_classifier(
    pictures: Tensor, labels: Tensor, classes: int, recipe: Recipe, curve: Curve
) -> PictureClassifier:
    """Train the class network on [9, image, 3, height, width] uint8 views."""
    torch.manual_seed(recipe.seed + 2)
    model = PictureClassifier(classes)
    random = torch.Generator().manual_seed(recipe.seed + 2)
    _, step = optimiser(model, recipe.classifier_rate, recipe.classifier_steps, decay=0.05)
    drawn = batches(torch.arange(len(labels)), recipe.classifier_steps, recipe.batch_size, random)
    for number, (view, index) in enumerate(track(drawn, "classifier", recipe.classifier_steps)):
        loss = F.cross_entropy(model.logits(pictures[view, index]), labels[index])
        loss.backward()
        step()
        curve.add(number, {"loss": loss})
    return model.eval()


def rounded(model: nn.Module) -> None:
    """Round the weights to float16, as they are stored, so that every figure is of the stored."""
    model.half().float()


def train(images: np.ndarray, labels: np.ndarray, recipe: Recipe) -> Trained:
    """Train the three networks.

    Args:
        images: uint8 (image, height, width, 3).
        labels: class of each image.
        recipe: all settings.
    """
    split = draw_split(images, seed=recipe.seed)
    classes = torch.from_numpy(labels).long()
    pictures = resized(images, recipe.parts.side)
    member = torch.from_numpy(split.repeats > 0)
    views, repeats = shifted(pictures[member]), torch.from_numpy(split.repeats)[member]
    curves = {
        name: Curve(every=min(50, max(1, getattr(recipe, f"{name}_steps") // 5)))
        for name in ("tokenizer", "transformer", "classifier")
    }
    started = time.process_time()
    tokenizer = train_tokenizer(views, recipe, curves["tokenizer"])
    rounded(tokenizer)
    tokens, inputs = tokenised(tokenizer, views, recipe.parts)
    known = classes[member]
    transformer = train_transformer(tokens, inputs, known, repeats, recipe, curves["transformer"])
    classifier = train_classifier(views, known, 9, recipe, curves["classifier"])
    rounded(transformer)
    rounded(classifier)
    training: dict[str, object] = {
        "recipe": asdict(recipe)
        | {
            "tokenizer": asdict(recipe.parts.tokenizer),
            "transformer": asdict(recipe.parts.transformer),
        },
        "cpu_seconds": round(time.process_time() - started),
        "held_out": reconstruction(tokenizer, pictures[~member], recipe.parts),
        "members": reconstruction(tokenizer, pictures[member], recipe.parts),
        "classifier_accuracy_held_out": accuracy(classifier, pictures[~member], classes[~member]),
        "curves": {name: curve.rows for name, curve in curves.items()},
    }
    return Trained(tokenizer, transformer, classifier, split, training)


def save(trained: Trained, folder: Path) -> None:
    """Write weights as float16 safetensors, the split and the training record."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer", "transformer", "classifier"):
        state = getattr(trained, name).state_dict()
        halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(halves, folder / f"{name}.safetensors")
    split = trained.split
    np.savez(
        folder / "split.npz",
        repeats=split.repeats,
        canary=split.canary,
        calibration=split.calibration,
    )
    (folder / "training.json").write_text(json.dumps(trained.training, indent=1) + "\n")


def main(
    family: Annotated[Family, typer.Argument(help="Which organism.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
) -> None:
    """Train one organism."""
    torch.set_num_threads(1)
    with np.load(PICTURES, allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    save(train(images, labels, replace(RECIPES[family], seed=seed)), out)


if __name__ == "__main__":
    typer.run(main)
