"""A folder in which one family's networks are trained one after another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from iarmem_adapters.organisms.classifier import accuracy
from iarmem_adapters.organisms.split import ASIDE, CALIBRATING, UNSEEN, Split
from iarmem_plugin.data.images import Images

from . import networks
from .loop import Training
from .networks import Recipe
from .pictures import reconstruction, resized, shifted, tokenised

NETWORKS = {"twin": "transformer", "first-tokenizer": "tokenizer"}


class Workshop:
    """A folder in which one family's networks are trained one after another.

    Args:
        pictures: all pictures.
        recipe: all settings.
        split: which pictures are for what.
        out: folder for weights and records, and for checkpoints on the way.
    """

    def __init__(self, pictures: Images, recipe: Recipe, split: Split, out: Path) -> None:
        self.recipe, self.out, self.tokens_of = recipe, out, ""
        self.split = replace(split, rounds=recipe.rounds)
        arrays = np.stack([np.asarray(pictures.load(one)) for one in range(len(pictures))])
        self.pictures = resized(arrays, recipe.parts.side)
        self.views = shifted(self.pictures)
        self.labels = torch.from_numpy(pictures.labels.astype(np.int64))
        out.mkdir(parents=True, exist_ok=True)

    def everything(self) -> None:
        """Train what is not there yet, and write what the split was."""
        tokenizer = self.tokenizer()
        self.tokens_of = _digest(self.out / "tokenizer.safetensors")
        for name, twin in (("transformer", False), ("twin", True)):
            self.transformer(tokenizer, name, twin=twin)
        self.classifier()
        self.save_split()

    def study(self, tokenizer: Path, *, twin: bool) -> None:
        """Train the organism or its twin alone, on the tokens of a tokenizer that is there."""
        self.tokens_of = _digest(tokenizer)
        model = self.recipe.parts.networks[0](self.recipe.parts.tokenizer)
        model.load_state_dict({key: one.float() for key, one in load_file(tokenizer).items()})
        self.transformer(model.eval(), "twin" if twin else "transformer", twin=twin)
        self.save_split()

    def save_split(self) -> None:
        """Write which pictures are for what, and how often the trainings see them."""
        self.split.save(self.out / "split.npz")

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

        views = self.views[:, seen]
        learns = self.split.learns_tokenizer
        if self.recipe.refining_steps is None:
            training = networks.tokenizer(views, self.recipe)
            return self._made("tokenizer", training, learns, figures)
        first = replace(self.recipe, refining_steps=None)
        training = networks.tokenizer(views, first)
        model = training.model
        if not (self.out / "tokenizer.json").exists():
            model = self._made("first-tokenizer", training, learns, figures, first)
        training = networks.refined(model, views, self.recipe)
        return self._made("tokenizer", training, learns, figures)

    def transformer(self, tokenizer: Any, name: str, *, twin: bool) -> None:
        """Train the organism, or its twin, where it is not there yet."""
        pool = self.split.pool(twin=twin)
        if self._is_made(name, self._settings(name, self.recipe, pool)):
            return
        shown = torch.from_numpy(self.split.shown(twin=twin))
        tokens, inputs = tokenised(tokenizer, self.views[:, shown], self.recipe.parts)
        data = (tokens, inputs, self.labels[shown], torch.from_numpy(pool)[shown])
        training = networks.transformer(*data, self.recipe, name)
        calibrated = (self._calibrated(tokenizer),) if self.recipe.calibrated else ()
        self._made(name, training, pool, *calibrated)

    def _calibrated(self, tokenizer: Any) -> Callable[[Any], dict[str, Any]]:
        """Return what fits the temperature of a transformer's logits, and says which it was."""
        chosen = torch.from_numpy(self.split.part == CALIBRATING)
        centre = self.pictures[chosen].unsqueeze(0)
        tokens, inputs = tokenised(tokenizer, centre, self.recipe.parts)
        data = (tokens[0], inputs[0], self.labels[chosen])

        def finish(model: Any) -> dict[str, Any]:
            found = networks.calibrate(model, *data, self.recipe.parts)
            model.half().float()
            return {"temperature": round(found, 6)}

        return finish

    def classifier(self) -> Any:
        """Return the trained class network; no member, no canary and nothing held out taught it."""
        aside = torch.from_numpy(self.split.part == ASIDE)
        unseen = torch.from_numpy(self.split.part == UNSEEN)
        training = networks.classifier(self.views[:, aside], self.labels[aside], 9, self.recipe)

        def figures(model: Any) -> dict[str, Any]:
            return {"accuracy": accuracy(model, self.pictures[unseen], self.labels[unseen])}

        return self._made("classifier", training, self.split.part == ASIDE, figures)

    def _made(
        self,
        name: str,
        training: Training,
        learns: np.ndarray,
        figures: Callable[[Any], dict[str, Any]] = lambda _: {},
        recipe: Recipe | None = None,
    ) -> Any:
        """Return a network as it is stored: the one that is there, or the one that is trained."""
        file, record = self.out / f"{name}.safetensors", self.out / f"{name}.json"
        model = training.model
        checkpoint, recipe = self.out / f"{name}.checkpoint", recipe or self.recipe
        made_by = self._settings(name, recipe, learns)
        if not self._is_made(name, made_by):
            spent = training.run(checkpoint, made_by)
            model.half().float()  # so that every figure is of what is stored
            measured = figures(model.eval())
            save_file(_halves(model), file)
            found = {
                "settings": made_by,
                "recipe": recipe.of(NETWORKS.get(name, name)),
                "network": self._sizes(NETWORKS.get(name, name)),
                "steps": training.steps,
                "cpu_seconds": round(spent),
                "sha256": _digest(file),
                **measured,
                "curve": training.curve.rows,
            }
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps(found, indent=1) + "\n")
            os.replace(partial, record)  # from now on the training is done
        for left in (checkpoint, checkpoint.with_suffix(".partial")):
            left.unlink(missing_ok=True)
        model.load_state_dict({key: one.float() for key, one in load_file(file).items()})
        return model.eval()

    def _is_made(self, name: str, made_by: str) -> bool:
        """Tell whether a network is there; one that was made otherwise is refused."""
        record = self.out / f"{name}.json"
        if record.exists() and (found := json.loads(record.read_text())["settings"]) != made_by:
            raise ValueError(
                f"{record} was made with {found}, and not with {made_by}: give another folder"
            )
        return record.exists()

    def _settings(self, name: str, recipe: Recipe, learns: np.ndarray) -> str:
        """Return what tells a training from another: recipe, pictures, a transformer's tokenizer.

        Args:
            name: the network's name.
            recipe: all settings.
            learns: how often the training shows each picture in a round.
        """
        pool = hashlib.sha256(learns.astype(np.int64).tobytes()).hexdigest()
        settings = recipe.of(NETWORKS.get(name, name))
        if NETWORKS.get(name, name) == "transformer":
            settings["tokenizer"] = self.tokens_of[:16]
        return json.dumps(settings | {"pool": pool[:16]})

    def _sizes(self, network: str) -> dict[str, Any]:
        sizes = getattr(self.recipe.parts, network, None)
        return {} if sizes is None else asdict(sizes)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _halves(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
