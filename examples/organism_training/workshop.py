"""A folder in which one family's networks are trained one after another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from iarmem_adapters.organisms.classifier import accuracy
from iarmem_plugin.data.images import Images

from . import networks
from .loop import Training
from .networks import Recipe
from .pictures import reconstruction, resized, shifted, tokenised
from .split import ASIDE, UNSEEN, Split


class Workshop:
    """A folder in which one family's networks are trained one after another.

    Args:
        pictures: all pictures.
        recipe: all settings.
        split: which pictures are for what.
        out: folder for weights and records, and for checkpoints on the way.
    """

    def __init__(self, pictures: Images, recipe: Recipe, split: Split, out: Path) -> None:
        self.recipe, self.split, self.out = recipe, split, out
        arrays = np.stack([np.asarray(pictures.load(one)) for one in range(len(pictures))])
        self.pictures = resized(arrays, recipe.parts.side)
        self.views = shifted(self.pictures)
        self.labels = torch.from_numpy(pictures.labels.astype(np.int64))
        out.mkdir(parents=True, exist_ok=True)

    def everything(self) -> None:
        """Train what is not there yet, and write what the split was."""
        np.savez(self.out / "split.npz", part=self.split.part, repeats=self.split.repeats)
        tokenizer = self.tokenizer()
        for name, twin in (("transformer", False), ("twin", True)):
            self.transformer(tokenizer, name, twin=twin)
        self.classifier()

    def tokenizer(self) -> Any:
        """Return the trained tokenizer."""
        seen = torch.from_numpy(self.split.learns_tokenizer)
        unseen = torch.from_numpy(self.split.part == UNSEEN)

        def figures(model: Any) -> dict[str, Any]:
            parts = self.recipe.parts
            return {
                "held_out": reconstruction(model, self.pictures[unseen], parts),
                "trained_on": reconstruction(model, self.pictures[seen], parts),
            }

        return self._made(
            "tokenizer", networks.tokenizer(self.views[:, seen], self.recipe), figures
        )

    def transformer(self, tokenizer: Any, name: str, *, twin: bool) -> None:
        """Train the organism, or its twin."""
        if (self.out / f"{name}.json").exists():
            return
        repeats = torch.from_numpy(self.split.pool(twin=twin))
        known = repeats > 0
        tokens, inputs = tokenised(tokenizer, self.views[:, known], self.recipe.parts)
        data = (tokens, inputs, self.labels[known], repeats[known])
        self._made(name, networks.transformer(*data, self.recipe, name))

    def classifier(self) -> Any:
        """Return the trained class network; no member, no canary and nothing held out taught it."""
        aside = torch.from_numpy(self.split.part == ASIDE)
        unseen = torch.from_numpy(self.split.part == UNSEEN)
        training = networks.classifier(self.views[:, aside], self.labels[aside], 9, self.recipe)

        def figures(model: Any) -> dict[str, Any]:
            return {"accuracy": accuracy(model, self.pictures[unseen], self.labels[unseen])}

        return self._made("classifier", training, figures)

    def _made(
        self,
        name: str,
        training: Training,
        figures: Callable[[Any], dict[str, Any]] = lambda _: {},
    ) -> Any:
        """Return a network as it is stored: the one that is there, or the one that is trained."""
        file, record = self.out / f"{name}.safetensors", self.out / f"{name}.json"
        model = training.model
        checkpoint, made_by = self.out / f"{name}.checkpoint", self._settings()
        if record.exists() and (found := json.loads(record.read_text()))["settings"] != made_by:
            raise ValueError(
                f"{record} was made with {found['settings']}, and not with {made_by}: give another "
                "folder"
            )
        if not record.exists():
            spent = training.run(checkpoint, made_by)
            model.half().float()  # so that every figure is of what is stored
            save_file(_halves(model), file)
            found = {
                "settings": made_by,
                "recipe": asdict(self.recipe),
                "network": self._sizes("transformer" if name == "twin" else name),
                "steps": training.steps,
                "cpu_seconds": round(spent),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                **figures(model.eval()),
                "curve": training.curve.rows,
            }
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps(found, indent=1) + "\n")
            os.replace(partial, record)  # from now on the training is done
        for left in (checkpoint, checkpoint.with_suffix(".partial")):
            left.unlink(missing_ok=True)
        model.load_state_dict({key: one.float() for key, one in load_file(file).items()})
        return model.eval()

    def _settings(self) -> str:
        """Return what tells this training from another: the recipe, and the split's digest."""
        split = hashlib.sha256(self.split.part.tobytes() + self.split.repeats.tobytes())
        return json.dumps(asdict(self.recipe) | {"split": split.hexdigest()[:16]})

    def _sizes(self, network: str) -> dict[str, Any]:
        sizes = getattr(self.recipe.parts, network, None)
        return {} if sizes is None else asdict(sizes)


def _halves(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
